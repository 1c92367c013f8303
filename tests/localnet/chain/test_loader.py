"""Deployment with the upgradeable loader, which the server carries out itself."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from uuid import uuid4

import pytest
from solana.rpc.api import Client
from solana.rpc.core import RPCException
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.litesvm import LiteSVM
from solders.pubkey import Pubkey
from solders.system_program import ID as SYSTEM
from solders.system_program import CreateAccountParams, create_account
from solders.sysvar import CLOCK, RENT

from localnet import cli
from localnet.chain.process import ChainProcess
from localnet.deploy import DeployError, Deployment, Rpc, deploy_program
from localnet.deploy.loader import LOADER, code_address
from psyche_chain.cli import exit_codes

from .conftest import SOL, newest_blockhash, signed

MEMO = Pubkey.from_string("MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr")
TOKEN = Pubkey.from_string("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA")


@pytest.fixture(scope="module")
def memo() -> bytes:
    """A small program that succeeds when it is given a valid text."""
    return LiteSVM().get_account(MEMO).data


@pytest.fixture(scope="module")
def token() -> bytes:
    """A larger program; an unknown instruction fails with Custom(12)."""
    return LiteSVM().get_account(TOKEN).data


def call(client: Client, payer: Keypair, program: Pubkey) -> str:
    """Call a program with a memo's data; the error, or an empty text."""
    instruction = Instruction(program, b"\xf0\x9f\x90\x86" + uuid4().hex.encode(), [])
    try:
        client.send_transaction(signed([instruction], newest_blockhash(client), payer))
    except RPCException as exc:
        return exc.args[0].message
    return ""


def test_program_is_deployed_upgraded_and_found_after_a_kill(
    tmp_path: Path, memo: bytes, token: bytes
) -> None:
    chain = ChainProcess(tmp_path, slot_ms=50)
    chain.start()
    chain.wait_ready()
    rpc = Rpc(chain.url)
    try:
        client = Client(chain.url, commitment="confirmed")
        payer, program = Keypair(), Keypair()
        client.request_airdrop(payer.pubkey(), 100 * SOL)
        seen: list[int] = []
        assert deploy_program(rpc, payer, program, memo, lambda done, size: seen.append(done)) is (
            Deployment.DEPLOYED
        )
        assert seen[-1] == len(memo)
        assert seen == sorted(seen)
        account = client.get_account_info(program.pubkey()).value
        assert account.executable
        assert account.owner == LOADER
        assert call(client, payer, program.pubkey()) == ""
        assert deploy_program(rpc, payer, program, memo) is Deployment.UNCHANGED
        chain.kill()
        chain.start()
        chain.wait_ready()
        assert call(client, payer, program.pubkey()) == ""
        assert deploy_program(rpc, payer, program, token) is Deployment.UPGRADED  # larger: extended first
        assert "custom program error: 0xc" in call(client, payer, program.pubkey())
        other = Keypair()
        client.request_airdrop(other.pubkey(), 100 * SOL)
        with pytest.raises(DeployError, match="may change it"):
            deploy_program(rpc, other, program, memo)
    finally:
        rpc.close()
        chain.stop()


def _deploy(payer: Keypair, program: Pubkey, buffer: Pubkey, size: int, authority: Keypair) -> Instruction:
    metas = [
        AccountMeta(payer.pubkey(), True, True),
        AccountMeta(code_address(program), False, True),
        AccountMeta(program, False, True),
        AccountMeta(buffer, False, True),
        AccountMeta(RENT, False, False),
        AccountMeta(CLOCK, False, False),
        AccountMeta(SYSTEM, False, False),
        AccountMeta(authority.pubkey(), True, False),
    ]
    return Instruction(LOADER, struct.pack("<IQ", 2, size), metas)


def _buffer(client: Client, payer: Keypair, content: bytes) -> Pubkey:
    """A buffer that holds some bytes (900 at most)."""
    buffer = Keypair()
    size = 37 + len(content)
    rent = client.get_minimum_balance_for_rent_exemption(size).value
    params = CreateAccountParams(
        from_pubkey=payer.pubkey(), to_pubkey=buffer.pubkey(), lamports=rent, space=size, owner=LOADER
    )
    metas = [AccountMeta(buffer.pubkey(), False, True), AccountMeta(payer.pubkey(), False, False)]
    init = Instruction(LOADER, struct.pack("<I", 0), metas)
    client.send_transaction(signed([create_account(params), init], newest_blockhash(client), payer, buffer))
    metas = [AccountMeta(buffer.pubkey(), False, True), AccountMeta(payer.pubkey(), True, False)]
    write = Instruction(LOADER, struct.pack("<IIQ", 1, 0, len(content)) + content, metas)
    client.send_transaction(signed([write], newest_blockhash(client), payer))
    return buffer.pubkey()


@pytest.mark.parametrize(
    ("case", "error"),
    [
        ("not a program", "invalid account data for instruction"),
        ("too small", "account data too small for instruction"),
        ("wrong authority", "Incorrect authority provided"),
    ],
)
def test_refused_deployment_changes_nothing(client: Client, payer: Keypair, case: str, error: str) -> None:
    content = b"this is no ELF file"
    buffer = _buffer(client, payer, content)
    program, other = Keypair(), Keypair()
    rent = client.get_minimum_balance_for_rent_exemption(36).value
    params = CreateAccountParams(
        from_pubkey=payer.pubkey(),
        to_pubkey=program.pubkey(),
        lamports=rent,
        space=36,
        owner=LOADER,
    )
    size = 1 if case == "too small" else 100
    authority = other if case == "wrong authority" else payer
    instructions = [
        create_account(params),
        _deploy(payer, program.pubkey(), buffer, size, authority),
    ]
    signers = [payer, program, *([other] if authority is other else [])]
    before = client.get_balance(payer.pubkey()).value
    with pytest.raises(RPCException) as caught:
        client.send_transaction(signed(instructions, newest_blockhash(client), *signers))
    assert f"Error processing Instruction 1: {error}" in caught.value.args[0].message
    assert client.get_balance(payer.pubkey()).value == before
    found = client.get_multiple_accounts([program.pubkey(), code_address(program.pubkey()), buffer]).value
    assert found[:2] == [None, None]
    assert found[2].data[37:] == content


def test_closed_program_cannot_be_called(tmp_path: Path, memo: bytes) -> None:
    chain = ChainProcess(tmp_path, slot_ms=50)
    chain.start()
    chain.wait_ready()
    rpc = Rpc(chain.url)
    try:
        client = Client(chain.url, commitment="confirmed")
        payer, program = Keypair(), Keypair()
        client.request_airdrop(payer.pubkey(), 100 * SOL)
        deploy_program(rpc, payer, program, memo)
        slot = client.get_slot().value
        while client.get_slot().value <= slot:
            pass
        metas = [
            AccountMeta(code_address(program.pubkey()), False, True),
            AccountMeta(payer.pubkey(), False, True),
            AccountMeta(payer.pubkey(), True, False),
            AccountMeta(program.pubkey(), False, True),
        ]
        close = Instruction(LOADER, struct.pack("<I", 5), metas)
        client.send_transaction(signed([close], newest_blockhash(client), payer))
        assert client.get_account_info(code_address(program.pubkey())).value is None
        assert call(client, payer, program.pubkey()) != ""
        chain.kill()
        chain.start()
        chain.wait_ready()
        assert call(client, payer, program.pubkey()) != ""
        with pytest.raises(DeployError, match="was closed"):
            deploy_program(rpc, payer, program, memo)
    finally:
        rpc.close()
        chain.stop()


def test_deploy_command_is_resumable_and_idempotent(
    chain: ChainProcess, tmp_path: Path, memo: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    programs, keys = tmp_path / "programs", tmp_path / "keys"
    programs.mkdir()
    keys.mkdir()
    for name in ("authorizer", "coordinator", "treasurer"):
        (programs / f"{name}.so").write_bytes(memo)
        (keys / f"{name}-dev-keypair.json").write_text(json.dumps(list(bytes(Keypair()))))
    command = ["deploy", "--rpc", chain.url, "--programs", str(programs), "--keys", str(keys)]
    command += ["--state-dir", str(tmp_path), "--json"]
    for expected in ("deployed", "unchanged"):
        assert cli.main(command) == exit_codes.OK
        result = json.loads(capsys.readouterr().out)
        assert {entry["result"] for entry in result.values()} == {expected}
    (programs / "treasurer.so").unlink()
    assert cli.main(command) == exit_codes.ERROR
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "make programs" in captured.err
