"""Looking at deployments: comparing, what a cut-off one leaves, what one needs; and the keys that Anchor is given."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sbf_toolchain.driver import decode_base58
from sbf_toolchain.keys import public_key, use_declared_keypair
from solders.keypair import Keypair
from solders.litesvm import LiteSVM
from solders.pubkey import Pubkey

from localnet import cli
from localnet.chain.process import ChainProcess
from localnet.deploy import (
    DeployError,
    Match,
    Program,
    Rpc,
    buffers,
    close_buffers,
    deploy_all,
    loader,
    verify,
)
from localnet.deploy.programs import needed
from psyche_chain.cli import exit_codes

MEMO = Pubkey.from_string("MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr")
TOKEN = Pubkey.from_string("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA")


@pytest.fixture(scope="module")
def rpc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rpc]:
    with ChainProcess(tmp_path_factory.mktemp("chain"), slot_ms=50) as chain:
        client = Rpc(chain.url)
        yield client
        client.close()


def elf(program: Pubkey) -> bytes:
    account = LiteSVM().get_account(program)
    assert account is not None
    return bytes(account.data)


def write_key(path: Path, keypair: Keypair) -> Path:
    path.write_text(json.dumps(list(bytes(keypair))))
    return path


class Cut(Exception):
    """Stands for the end of the process."""


def test_verify_tells_equal_from_different_and_missing(
    rpc: Rpc, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    payer = Keypair()
    memo, token = elf(MEMO), elf(TOKEN)
    names = ("authorizer", "coordinator", "treasurer")
    keys = {name: Keypair() for name in names}
    for name, key in keys.items():
        (tmp_path / f"{name}.so").write_bytes(memo)
        write_key(tmp_path / f"{name}-keypair.json", key)  # as `anchor build` leaves them
    built = [Program(name, memo, keys[name]) for name in names]
    command = ["deploy", "--verify", "--rpc", rpc.url, "--programs", str(tmp_path), "--keys", str(tmp_path)]

    deploy_all(rpc, payer, built[:2])
    deploy_all(rpc, payer, [Program("coordinator", token, keys["coordinator"])])
    found = verify(rpc, built)
    assert [one.match for one in found.values()] == [Match.EQUAL, Match.DIFFERENT, Match.MISSING]
    assert found["authorizer"].authority == found["coordinator"].authority == payer.pubkey()
    assert cli.main([*command, "--json"]) == exit_codes.ERROR
    shown = json.loads(capsys.readouterr().out)
    assert {name: entry["result"] for name, entry in shown.items()} == {
        "authorizer": "equal",
        "coordinator": "different",
        "treasurer": "missing",
    }
    deploy_all(rpc, payer, built)  # the coordinator's code gets shorter: zeros are left after it
    assert cli.main(command) == exit_codes.OK
    assert capsys.readouterr().out.count("equal") == 3


def test_one_byte_more_or_less_is_different() -> None:
    state = loader.ProgramState(1, None, b"\x7fELF\x01\0\0")
    assert state.holds(b"\x7fELF\x01")
    assert state.holds(b"\x7fELF\x01\0\0")
    assert not state.holds(b"\x7fELF\x01\0\0\0")
    assert not state.holds(b"\x7fELF")
    assert not state.holds(b"\x7fELF\x02")


@pytest.mark.parametrize("finish", [True, False])
def test_a_cut_off_deployment_is_finished_or_taken_back(
    rpc: Rpc, tmp_path: Path, finish: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    payer, program = Keypair(), Program("token", elf(TOKEN), Keypair())
    rpc.airdrop(payer.pubkey(), 10**10)

    def cut(program: Program, done: int, size: int) -> None:
        if done:
            raise Cut

    with pytest.raises(Cut):
        deploy_all(rpc, payer, [program], cut)
    left = buffers(rpc, payer.pubkey())
    assert list(left.values()) == [rpc.rent(37 + len(program.elf))]
    assert buffers(rpc, Keypair().pubkey()) == {}
    if finish:
        seen: list[int] = []
        deploy_all(rpc, payer, [program], lambda program, done, size: seen.append(done))
        assert seen[0] > 0, "what was written before was written again"
        assert verify(rpc, [program])["token"].match is Match.EQUAL
        assert buffers(rpc, payer.pubkey()) == {}
        return
    before = rpc.balance(payer.pubkey())
    wallet = write_key(tmp_path / "id.json", payer)
    command = ["deploy", "--close-buffers", "--rpc", rpc.url, "--payer", str(wallet)]
    assert cli.main(command) == exit_codes.OK
    assert str(next(iter(left))) in capsys.readouterr().out
    assert rpc.balance(payer.pubkey()) == before + sum(left.values()) - 5000
    assert close_buffers(rpc, payer) == {}


def test_a_payer_with_just_enough_needs_no_faucet(rpc: Rpc, monkeypatch: pytest.MonkeyPatch) -> None:
    payer = Keypair()
    programs = [Program(name, elf(MEMO), Keypair()) for name in ("one", "two")]
    enough = needed(rpc, payer, programs)
    rents = 2 * (rpc.rent(45 + len(programs[0].elf)) + rpc.rent(36))
    assert rents < enough < rents * 1.01
    rpc.airdrop(payer.pubkey(), enough - 1)

    def refuse(key: Pubkey, lamports: int) -> None:
        assert lamports == 1
        raise DeployError("no faucet")

    with monkeypatch.context() as patch:
        patch.setattr(rpc, "airdrop", refuse)
        with pytest.raises(DeployError, match="are needed"):
            deploy_all(rpc, payer, programs)
        assert buffers(rpc, payer.pubkey()) == {}
    rpc.airdrop(payer.pubkey(), 10**6)
    monkeypatch.setattr(rpc, "airdrop", refuse)
    deploy_all(rpc, payer, programs)
    assert needed(rpc, payer, programs) == 0
    other = [Program(program.name, elf(TOKEN), program.keypair) for program in programs]
    assert needed(rpc, payer, other) > rpc.rent(45 + len(elf(TOKEN)))


def test_declared_id_decides_which_key_anchor_finds(tmp_path: Path) -> None:
    development, stray, own = Keypair(), Keypair(), Keypair()
    write_key(tmp_path / "p-dev-keypair.json", development)
    path = tmp_path / "p-keypair.json"
    declared = decode_base58(str(development.pubkey()))
    assert declared == bytes(development.pubkey())

    assert "development key" in use_declared_keypair(path, tmp_path, declared)
    assert public_key(path) == declared
    assert use_declared_keypair(path, tmp_path, declared) == ""
    write_key(path, stray)
    assert "what was there is in" in use_declared_keypair(path, tmp_path, declared)
    assert public_key(path) == declared
    (kept,) = tmp_path.glob("p-keypair-*.json")
    assert public_key(kept) == bytes(stray.pubkey())
    write_key(path, own)  # ids of one's own, synchronised: the source declares them
    assert use_declared_keypair(path, tmp_path, bytes(own.pubkey())) == ""
    assert public_key(path) == bytes(own.pubkey())
