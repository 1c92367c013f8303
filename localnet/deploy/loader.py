"""One program: buffer, writes, deployment or upgrade; each step can be repeated.

The buffer's key is derived from who deploys what, so a deployment that was cut off finds its buffer again
and writes only the chunks that are missing.
"""

from __future__ import annotations

import hashlib
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.message import Message
from solders.pubkey import Pubkey
from solders.system_program import ID as SYSTEM
from solders.system_program import CreateAccountParams, create_account
from solders.sysvar import CLOCK, RENT
from solders.transaction import Transaction

from localnet.deploy.rpc import DeployError, Rpc

LOADER = Pubkey.from_string("BPFLoaderUpgradeab1e11111111111111111111111")
FINAL_LOADER = Pubkey.from_string("BPFLoader2111111111111111111111111111111111")
"""Runs programs that nobody can change, for example those that a test validator is started with."""
_PROGRAM_BYTES = 36
_CODE_META = 45
_BUFFER_META = 37
CHUNK = 1_000
"""Bytes a write carries; a transaction of 1,232 bytes has room for 1,012."""
LEAST_EXTENSION = 10_240
"""Bytes that a program grows by at least."""
_WRITE_ROUNDS = 20

Progress = Callable[[int, int], None]
"""Called with (bytes on the chain, bytes in all)."""


class Deployment(Enum):
    """What a deployment did."""

    UNCHANGED = "unchanged"
    DEPLOYED = "deployed"
    UPGRADED = "upgraded"


@dataclass(frozen=True, slots=True)
class ProgramState:
    """A program on the chain.

    Attributes:
        slot: when it was deployed or changed last.
        authority: who may change it; None: nobody.
        code: as many bytes as it has room for, the last ones usually zero.
    """

    slot: int
    authority: Pubkey | None
    code: bytes

    def holds(self, elf: bytes) -> bool:
        """Whether the code is this file, but for zeros after its end."""
        return self.code[: len(elf)] == elf and not any(self.code[len(elf) :])


def code_address(program: Pubkey) -> Pubkey:
    """The account that holds an upgradeable program's code."""
    return Pubkey.find_program_address([bytes(program)], LOADER)[0]


def deploy_program(
    rpc: Rpc, payer: Keypair, program: Keypair, elf: bytes, progress: Progress = lambda done, size: None
) -> Deployment:
    """Put a program on the chain, or make it the given one.

    Args:
        rpc: the chain.
        payer: pays, and is the upgrade authority.
        program: its public key is the program's id.
        elf: the built program.
        progress: told of the bytes that the chain holds.

    Raises:
        DeployError: the chain refused; running it again goes on where it stopped.
    """
    state = read_program(rpc, program.pubkey())
    if state is not None and state.holds(elf):
        progress(len(elf), len(elf))
        return Deployment.UNCHANGED
    if state is not None and state.authority != payer.pubkey():
        owner = "nobody" if state.authority is None else str(state.authority)
        raise DeployError(
            f"program {program.pubkey()} is there with other code, and only {owner} may change it, not "
            f"{payer.pubkey()}: name that key with --payer, or start a new chain with `up --reset`"
        )
    buffer = buffer_key(payer, program.pubkey(), elf)
    _fill(rpc, payer, buffer, elf, progress)
    if state is None:
        _deploy(rpc, payer, program, buffer.pubkey(), len(elf))
        return Deployment.DEPLOYED
    if len(state.code) < len(elf):
        _extend(rpc, payer, program.pubkey(), len(elf) - len(state.code))
    _upgrade(rpc, payer, program.pubkey(), buffer.pubkey())
    return Deployment.UPGRADED


def read_program(rpc: Rpc, program: Pubkey) -> ProgramState | None:
    """A program as the chain has it; None where nothing was deployed.

    Raises:
        DeployError: the program was closed, or the address is in use by something else.
    """
    account = rpc.account(program)
    if account is None:
        return None
    _, owner, data, _ = account
    if owner == str(FINAL_LOADER):
        return ProgramState(0, None, data)
    if owner != str(LOADER) or data[:4] not in (bytes(4), struct.pack("<I", 2)):
        raise DeployError(f"{program} is in use by something else than an upgradeable program")
    if data[:4] == bytes(4):
        return None  # made by a deployment that was cut off
    code = rpc.account(code_address(program))
    content = b"" if code is None else code[2]
    if content[:4] != struct.pack("<I", 3):
        raise DeployError(f"program {program} was closed: its id cannot be used again")
    authority = Pubkey.from_bytes(content[13:45]) if content[12] else None
    return ProgramState(struct.unpack_from("<Q", content, 4)[0], authority, content[_CODE_META:])


def buffer_key(payer: Keypair, program: Pubkey, elf: bytes) -> Keypair:
    """The key of the buffer for deploying a file as a program: the same at every try."""
    digest = hashlib.sha256(elf).digest()
    return Keypair.from_seed(
        hashlib.sha256(b"psyche-deploy" + payer.secret() + bytes(program) + digest).digest()
    )


def _fill(rpc: Rpc, payer: Keypair, buffer: Keypair, elf: bytes, progress: Progress) -> None:
    """Create the buffer where it is missing and write the chunks that differ until none does."""
    account = rpc.account(buffer.pubkey())
    size = _BUFFER_META + len(elf)
    if account is None:
        params = CreateAccountParams(
            from_pubkey=payer.pubkey(),
            to_pubkey=buffer.pubkey(),
            lamports=rpc.rent(size),
            space=size,
            owner=LOADER,
        )
        metas = [AccountMeta(buffer.pubkey(), False, True), AccountMeta(payer.pubkey(), False, False)]
        init = Instruction(LOADER, struct.pack("<I", 0), metas)
        rpc.send([create_account(params), init], payer, buffer)
    for _ in range(_WRITE_ROUNDS):
        account = rpc.account(buffer.pubkey())
        if account is None:
            raise DeployError(f"buffer {buffer.pubkey()} went away: run it again")
        written = account[2][_BUFFER_META:]
        missing = [at for at in range(0, len(elf), CHUNK) if written[at : at + CHUNK] != elf[at : at + CHUNK]]
        progress(len(elf) - min(len(elf), len(missing) * CHUNK), len(elf))
        if not missing:
            return
        _write(rpc, payer, buffer.pubkey(), elf, missing, progress)
    raise DeployError(f"{len(missing)} writes did not reach {rpc.url}: run it again")


def _write(
    rpc: Rpc, payer: Keypair, buffer: Pubkey, elf: bytes, offsets: list[int], progress: Progress
) -> None:
    blockhash = rpc.blockhash()
    before = len(elf) - min(len(elf), len(offsets) * CHUNK)
    signatures: list[str] = []
    metas = [AccountMeta(buffer, False, True), AccountMeta(payer.pubkey(), True, False)]
    for first in range(0, len(offsets), 48):
        transactions = []
        for at in offsets[first : first + 48]:
            chunk = elf[at : at + CHUNK]
            write = Instruction(LOADER, struct.pack("<IIQ", 1, at, len(chunk)) + chunk, metas)
            transactions.append(Transaction([payer], Message([write], payer.pubkey()), blockhash))
        signatures += rpc.send_many(transactions)
        progress(min(len(elf), before + (first + 48) * CHUNK), len(elf))
    end = time.monotonic() + 20.0
    while rpc.unconfirmed(signatures) and time.monotonic() < end:
        time.sleep(0.2)


def _deploy(rpc: Rpc, payer: Keypair, program: Keypair, buffer: Pubkey, size: int) -> None:
    instructions = []
    if rpc.account(program.pubkey()) is None:
        params = CreateAccountParams(
            from_pubkey=payer.pubkey(),
            to_pubkey=program.pubkey(),
            lamports=rpc.rent(_PROGRAM_BYTES),
            space=_PROGRAM_BYTES,
            owner=LOADER,
        )
        instructions.append(create_account(params))
    metas = [
        AccountMeta(payer.pubkey(), True, True),
        AccountMeta(code_address(program.pubkey()), False, True),
        AccountMeta(program.pubkey(), False, True),
        AccountMeta(buffer, False, True),
        AccountMeta(RENT, False, False),
        AccountMeta(CLOCK, False, False),
        AccountMeta(SYSTEM, False, False),
        AccountMeta(payer.pubkey(), True, False),
    ]
    instructions.append(Instruction(LOADER, struct.pack("<IQ", 2, size), metas))
    rpc.send(instructions, payer, *([program] if len(instructions) == 2 else []))


def _extend(rpc: Rpc, payer: Keypair, program: Pubkey, more: int) -> None:
    """Give a program room for larger code; the loader wants 10,240 bytes at least.

    Newer clusters want the authority's signature (ExtendProgramChecked) and refuse the older instruction;
    older ones, LiteSVM among them, know only that.
    """
    more = max(more, LEAST_EXTENSION)
    accounts = [AccountMeta(code_address(program), False, True), AccountMeta(program, False, True)]
    paid = [AccountMeta(SYSTEM, False, False), AccountMeta(payer.pubkey(), True, True)]
    authority = AccountMeta(payer.pubkey(), True, True)
    checked = Instruction(LOADER, struct.pack("<II", 9, more), [*accounts, authority, *paid])
    try:
        rpc.send([checked], payer)
    except DeployError as refused:
        if "invalid instruction data" not in str(refused):
            raise
        rpc.send([Instruction(LOADER, struct.pack("<II", 6, more), [*accounts, *paid])], payer)
    _next_slot(rpc)


def _upgrade(rpc: Rpc, payer: Keypair, program: Pubkey, buffer: Pubkey) -> None:
    metas = [
        AccountMeta(code_address(program), False, True),
        AccountMeta(program, False, True),
        AccountMeta(buffer, False, True),
        AccountMeta(payer.pubkey(), False, True),
        AccountMeta(RENT, False, False),
        AccountMeta(CLOCK, False, False),
        AccountMeta(payer.pubkey(), True, False),
    ]
    rpc.send([Instruction(LOADER, struct.pack("<I", 3), metas)], payer)


def _next_slot(rpc: Rpc) -> None:
    """The loader changes a program once a slot at most."""
    slot = rpc.call("getSlot", {"commitment": "confirmed"})
    while rpc.call("getSlot", {"commitment": "confirmed"}) <= slot:
        time.sleep(0.1)
