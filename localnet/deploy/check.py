"""What a chain holds: are the programs those that were built here, and what have cut-off deployments left?"""

from __future__ import annotations

import struct
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import base58
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from localnet.deploy.loader import LOADER, read_program
from localnet.deploy.programs import Program
from localnet.deploy.rpc import Rpc

_BUFFER = 1
_CLOSE = 5
_BUFFER_HEAD = 37


class Match(Enum):
    """How a program on the chain compares with a file."""

    EQUAL = "equal"
    DIFFERENT = "different"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Verified:
    """A program on the chain beside the file that it should be.

    Attributes:
        slot: when it was deployed or changed last; None where it is missing.
        authority: who may change it; None: nobody.
    """

    match: Match
    slot: int | None = None
    authority: Pubkey | None = None


def verify(rpc: Rpc, programs: Sequence[Program]) -> dict[str, Verified]:
    """Compare programs on the chain with built files, byte for byte; room that is left over must be zero.

    Raises:
        DeployError: an address is in use by something else, or its program was closed.
    """
    found = {}
    for program in programs:
        state = read_program(rpc, program.id)
        if state is None:
            found[program.name] = Verified(Match.MISSING)
        else:
            match = Match.EQUAL if state.holds(program.elf) else Match.DIFFERENT
            found[program.name] = Verified(match, state.slot, state.authority)
    return found


def buffers(rpc: Rpc, authority: Pubkey) -> dict[Pubkey, int]:
    """Buffers that an authority has left, with their lamports."""
    start = struct.pack("<IB", _BUFFER, 1) + bytes(authority)
    config = {
        "encoding": "base64",
        "commitment": "confirmed",
        "dataSlice": {"offset": 0, "length": _BUFFER_HEAD},
        "filters": [{"memcmp": {"offset": 4, "bytes": base58.b58encode(start[4:]).decode()}}],
    }
    return {
        Pubkey.from_string(entry["pubkey"]): int(entry["account"]["lamports"])
        for entry in rpc.call("getProgramAccounts", str(LOADER), config)
        if b64decode(entry["account"]["data"][0]) == start
    }


def close_buffers(rpc: Rpc, authority: Keypair) -> dict[Pubkey, int]:
    """Close the buffers of an authority; their lamports go back to it.

    Returns:
        What was closed, with the lamports that came back.

    Raises:
        DeployError: the chain refused.
    """
    found = buffers(rpc, authority.pubkey())
    for buffer in found:
        metas = [
            AccountMeta(buffer, False, True),
            AccountMeta(authority.pubkey(), False, True),
            AccountMeta(authority.pubkey(), True, False),
        ]
        rpc.send([Instruction(LOADER, struct.pack("<I", _CLOSE), metas)], authority)
    return found
