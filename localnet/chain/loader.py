"""The upgradeable loader's DeployWithMaxDataLen, which LiteSVM of solders 0.26 refuses.

LiteSVM has all features on, among them the one that ends new deployments with this loader. All other
instructions of the loader (buffers, writes, upgrade, extend, authorities, close) run in LiteSVM itself.
Checks, their order, errors and log lines follow the loader's own.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from solders.pubkey import Pubkey

from localnet.chain.ids import BPF_LOADER_UPGRADEABLE, SYSTEM
from localnet.chain.message import Instruction
from localnet.chain.records import AccountRecord, Json
from localnet.chain.svm import Svm

PROGRAM_BYTES = 36
PROGRAM_DATA_META = 45
BUFFER_META = 37
MAX_ACCOUNT_BYTES = 10 * 1024 * 1024
_DEPLOY = struct.pack("<I", 2)
_UNITS = 2370 + 150
"""Compute units of the loader's instruction and of its inner account creation."""
_LOADER = Pubkey.from_bytes(BPF_LOADER_UPGRADEABLE)
_SYSTEM = Pubkey.from_bytes(SYSTEM)


def is_deploy(ix: Instruction) -> bool:
    """Whether an instruction has to be carried out here."""
    return ix.program == BPF_LOADER_UPGRADEABLE and ix.data[:4] == _DEPLOY


@dataclass(frozen=True, slots=True)
class Meta:
    """An instruction's account: its address and its privileges in the message."""

    address: bytes
    signer: bool
    writable: bool


class Refused(Exception):
    """The loader's error in Solana's JSON form, with the log line that goes with it."""

    def __init__(self, err: Json, log: str = "") -> None:
        super().__init__(log or str(err))
        self.err = err
        self.log = log


@dataclass(slots=True)
class Deployed:
    logs: list[str]
    units: int
    err: Json = None


def deploy(svm: Svm, ix: Instruction, metas: list[Meta], slot: int) -> Deployed:
    """Carry out one deployment; on failure the accounts may be half written and the caller restores them."""
    logs = [f"Program {_LOADER} invoke [1]"]
    try:
        program = _deploy(svm, ix, metas, slot, logs.append)
    except Refused as exc:
        if exc.log:
            logs.append(exc.log)
        logs.append(f"Program {_LOADER} failed: {_describe(exc.err)}")
        return Deployed(logs, _UNITS, exc.err)
    logs += [f"Deployed program {Pubkey.from_bytes(program)}", f"Program {_LOADER} success"]
    return Deployed(logs, _UNITS)


def _deploy(svm: Svm, ix: Instruction, metas: list[Meta], slot: int, log: Callable[[str], None]) -> bytes:
    if len(ix.data) < 12:
        raise Refused("InvalidInstructionData")
    (max_data_len,) = struct.unpack_from("<Q", ix.data, 4)
    if len(metas) < 8:
        raise Refused("NotEnoughAccountKeys")
    payer, code, program, buffer = metas[0], metas[1], metas[2], metas[3]
    authority = metas[7]

    old_program = svm.get(program.address)
    if old_program.owner != BPF_LOADER_UPGRADEABLE:
        raise Refused("InvalidAccountOwner" if old_program.lamports else "InvalidAccountData")
    if old_program.data[:4] != bytes(4):
        raise Refused("AccountAlreadyInitialized", "Program account already initialized")
    if len(old_program.data) < PROGRAM_BYTES:
        raise Refused("AccountDataTooSmall", "Program account too small")
    if old_program.lamports < svm.rent_minimum(len(old_program.data)):
        raise Refused("ExecutableAccountNotRentExempt", "Program account not rent-exempt")

    source = svm.get(buffer.address)
    if source.owner != BPF_LOADER_UPGRADEABLE or source.data[:4] != struct.pack("<I", 1):
        raise Refused("InvalidArgument", "Invalid Buffer account")
    if source.data[4:5] != b"\x01" or source.data[5:37] != authority.address:
        raise Refused("IncorrectAuthority", "Buffer and upgrade authority don't match")
    if not authority.signer:
        raise Refused("MissingRequiredSignature", "Upgrade authority did not sign")
    elf = source.data[BUFFER_META:]
    if not elf:
        raise Refused("InvalidAccountData", "Buffer account too small")
    if max_data_len < len(elf):
        raise Refused("AccountDataTooSmall", "Max data length is too small to hold Buffer data")
    size = PROGRAM_DATA_META + max_data_len
    if size > MAX_ACCOUNT_BYTES:
        raise Refused("InvalidArgument", "Max data length is too large")
    derived, _ = Pubkey.find_program_address([program.address], _LOADER)
    if bytes(derived) != code.address:
        raise Refused("InvalidArgument", "ProgramData address is not derived")
    for meta in (payer, code, program, buffer):
        if not meta.writable:
            raise Refused("ReadonlyDataModified")
    if not payer.signer:
        raise Refused("PrivilegeEscalation")

    _create_code_account(svm, payer.address, code.address, buffer.address, size, log)
    header = struct.pack("<IQB", 3, slot, 1) + authority.address
    old_code = svm.get(code.address)
    svm.put(code.address, old_code._replace(data=header + elf + bytes(max_data_len - len(elf))))
    svm.put(buffer.address, svm.get(buffer.address)._replace(data=source.data[:BUFFER_META]))
    new_program = old_program._replace(
        data=struct.pack("<I", 2) + code.address + old_program.data[PROGRAM_BYTES:], executable=True
    )
    try:
        svm.put(program.address, new_program)
    except ValueError:
        raise Refused("InvalidAccountData", "ELF error: the file is not a program that can run") from None
    svm.put_program(program.address, new_program)
    return program.address


def _create_code_account(
    svm: Svm, payer: bytes, code: bytes, buffer: bytes, size: int, log: Callable[[str], None]
) -> None:
    """Return the buffer's lamports to the payer and let it pay for the program data account."""
    source = svm.get(buffer)
    if buffer != payer:
        svm.put(buffer, source._replace(lamports=0))
        funds = svm.get(payer)
        svm.put(payer, funds._replace(lamports=funds.lamports + source.lamports))
    log(f"Program {_SYSTEM} invoke [2]")
    old = svm.get(code)
    if old.lamports or old.data:
        log(
            f"Create Account: account Address {{ address: {Pubkey.from_bytes(code)}, base: None }} "
            "already in use"
        )
        raise Refused({"Custom": 0}, f"Program {_SYSTEM} failed: custom program error: 0x0")
    rent = svm.rent_minimum(size)
    funds = svm.get(payer)
    if funds.lamports < rent:
        log(f"Transfer: insufficient lamports {funds.lamports}, need {rent}")
        raise Refused({"Custom": 1}, f"Program {_SYSTEM} failed: custom program error: 0x1")
    svm.put(payer, funds._replace(lamports=funds.lamports - rent))
    svm.put(code, AccountRecord(rent, bytes(size), BPF_LOADER_UPGRADEABLE))
    log(f"Program {_SYSTEM} success")


_TEXT = {
    "AccountAlreadyInitialized": "instruction requires an uninitialized account",
    "AccountDataTooSmall": "account data too small for instruction",
    "ExecutableAccountNotRentExempt": "executable accounts must be rent exempt",
    "IncorrectAuthority": "Incorrect authority provided",
    "InvalidAccountData": "invalid account data for instruction",
    "InvalidAccountOwner": "Invalid account owner",
    "InvalidArgument": "invalid program argument",
    "InvalidInstructionData": "invalid instruction data",
    "MissingRequiredSignature": "missing required signature for instruction",
    "NotEnoughAccountKeys": "insufficient account keys for instruction",
    "PrivilegeEscalation": "Cross-program invocation with unauthorized signer or writable account",
    "ReadonlyDataModified": "instruction modified data of a read-only account",
}


def _describe(err: Json) -> str:
    if isinstance(err, dict):
        return f"custom program error: {err['Custom']:#x}"
    return _TEXT[str(err)]
