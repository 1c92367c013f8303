"""The cluster behind the endpoints: which one it is, and whether our programs are on it."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, Literal

from solders.pubkey import Pubkey

from psyche_chain.chain import ids, queries
from psyche_chain.chain.errors import DecodeError, ProgramError
from psyche_chain.chain.programs import NAMES, elf_path
from psyche_chain.chain.rpc import RpcPool
from psyche_chain.errors import ClusterError

LOADER_ID: Final = Pubkey.from_string("BPFLoaderUpgradeab1e11111111111111111111111")
FIXED_LOADER_ID: Final = Pubkey.from_string("BPFLoader2111111111111111111111111111111111")
"""Of programs that a test validator was started with; the account itself holds the code."""
PROGRAM_IDS: Final = {
    "coordinator": ids.COORDINATOR_ID,
    "authorizer": ids.AUTHORIZER_ID,
    "treasurer": ids.TREASURER_ID,
}
CODE_HEAD: Final = 45
"""Bytes before the code in an upgradeable program's data account."""

_PROGRAM_TAG: Final = b"\2\0\0\0"
_CODE_TAG: Final = b"\3\0\0\0"
_CLUSTERS: Final = {
    "5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp": "mainnet-beta",
    "EtWTRABZaYq6iMfeYKouRu166VU2xqa1": "devnet",
    "4uhcVJyU9pJkvQyS88uRDiswHXSCkY3z": "testnet",
}
"""By the first 32 characters of the genesis hash, as CAIP-2 names chains."""

State = Literal["ok", "missing", "not a program", "closed", "another version"]


@dataclass(frozen=True, slots=True)
class ProgramHealth:
    """One of our programs on a cluster."""

    name: str
    key: Pubkey
    state: State
    sha256: str | None
    """Of the code on chain, where it was read; trailing zeros left out."""

    @property
    def good(self) -> bool:
        return self.state == "ok"


async def cluster_name(rpc: RpcPool) -> str:
    """`devnet`, `testnet`, `mainnet-beta`, or `private cluster`."""
    return _CLUSTERS.get((await queries.genesis_hash(rpc))[:32], "private cluster")


def code_address(program: Pubkey) -> Pubkey:
    """The account that holds an upgradeable program's code."""
    return Pubkey.find_program_address([bytes(program)], LOADER_ID)[0]


def code_sha256(code: bytes) -> str:
    """Of a program's code; the loader may keep more room than the code needs, filled with zeros."""
    return hashlib.sha256(code.rstrip(b"\0")).hexdigest()


async def look_at_programs(rpc: RpcPool, *, code: bool) -> list[ProgramHealth]:
    """The state of each program.

    Args:
        rpc: the cluster.
        code: compare the code as well: reads about a megabyte.
    """
    keys = [PROGRAM_IDS[name] for name in NAMES]
    limit = None if code else CODE_HEAD
    found = await queries.get_accounts(rpc, [*keys, *map(code_address, keys)], first_bytes=limit)
    return [
        _health(name, key, found[i], found[i + len(keys)], code)
        for i, (name, key) in enumerate(zip(NAMES, keys, strict=True))
    ]


def _health(
    name: str, key: Pubkey, program: queries.Account | None, data: queries.Account | None, code: bool
) -> ProgramHealth:
    if program is None:
        return ProgramHealth(name, key, "missing", None)
    if program.owner == FIXED_LOADER_ID:
        theirs = program.data
    elif program.owner != LOADER_ID or program.data[:4] != _PROGRAM_TAG:
        return ProgramHealth(name, key, "not a program", None)
    elif data is None or data.data[:4] != _CODE_TAG:
        return ProgramHealth(name, key, "closed", None)
    else:
        theirs = data.data[CODE_HEAD:]
    if not code:
        return ProgramHealth(name, key, "ok", None)
    found, ours = code_sha256(theirs), code_sha256(elf_path(name).read_bytes())
    return ProgramHealth(name, key, "ok" if found == ours else "another version", found)


async def check_programs(rpc: RpcPool, *, code: bool = False, after: str = "") -> None:
    """Refuse a cluster that lacks one of the programs.

    Args:
        rpc: the cluster.
        code: compare the code as well.
        after: the failure that made us look; begins the message.

    Raises:
        ClusterError: names each program that is missing, no program, closed or (with `code`) different.
    """
    bad = [p for p in await look_at_programs(rpc, code=code) if not p.good]
    if not bad:
        return
    where = f"{rpc.names[0]} ({await cluster_name(rpc)})"
    what = "; ".join(f"the {p.name} ({p.key}) is {p.state}" for p in bad)
    if any(p.state == "another version" for p in bad):
        hint = "use the psyche-py that belongs to it, or another --rpc; look with: psyche-chain doctor"
    else:
        hint = "another --rpc? To put the programs there: psyche-localnet deploy --rpc URL, or anchor deploy"
    begin = f"{after.rstrip('.')}. " if after else ""
    raise ClusterError(f"{begin}The programs on {where} cannot be used: {what}".strip(), hint)


_VERSION_ERRORS: Final = frozenset(
    {
        "InstructionMissing",
        "InstructionFallbackNotFound",
        "InstructionDidNotDeserialize",
        "AccountDiscriminatorNotFound",
        "AccountDiscriminatorMismatch",
        "AccountDidNotDeserialize",
        "AccountNotEnoughKeys",
        "DeclaredProgramIdMismatch",
        "InvalidProgramExecutable",
        "ConstraintSpace",
        "ProgramFailedToComplete",
        "InvalidAccountData",
        "WrongVersion",
        "WrongSize",
    }
)
"""Refusals that a program of another version gives to instructions and accounts of ours."""


@asynccontextmanager
async def on_our_programs(rpc: RpcPool) -> AsyncIterator[None]:
    """Check that the programs are there; when something fails as it does on another version of them, say so.

    Raises:
        ClusterError: one of them is missing, or is another version and something failed because of it.
    """
    await check_programs(rpc)
    try:
        yield
    except (ProgramError, DecodeError) as exc:
        unknown = isinstance(exc, ProgramError) and exc.name.startswith("error ")
        if unknown or isinstance(exc, DecodeError) or exc.name in _VERSION_ERRORS:
            await check_programs(rpc, code=True, after=exc.message)
        raise
