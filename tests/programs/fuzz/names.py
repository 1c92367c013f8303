"""Accounts by readable names, so that an episode is plain JSON and the model needs no addresses.

`w3` is a wallet and `h3` its hot key, `c0` a creator, `g0` a grantor, `s5` the key of a log, `m1` a mint, `rich`
whoever pays. Derived addresses spell out what they are derived from: `run/c0/alpha`, `spec/run/c0/alpha`,
`member/s5/w3`, `auth/g0/w3`, `pool/s5`, `claim/s5/w3`, `ata/m1/w3`. Capitals are programs and sysvars.
"""

import hashlib

from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.system_program import ID as SYSTEM
from solders.token import ID as TOKEN

from tests.programs.chain_harness import (
    ASSOCIATED,
    AUTHORIZER,
    COORDINATOR,
    SLOT_HASHES,
    TOKEN_2022,
    TREASURER,
)

JOIN_SCOPE = b"CoordinatorJoinRun"
FIXED = {
    "SYSTEM": SYSTEM,
    "TOKEN": TOKEN,
    "TOKEN_2022": TOKEN_2022,
    "ASSOCIATED": ASSOCIATED,
    "COORDINATOR": COORDINATOR.program,
    "AUTHORIZER": AUTHORIZER.program,
    "TREASURER": TREASURER.program,
    "SLOT_HASHES": SLOT_HASHES,
    "INSTRUCTIONS": Pubkey.from_string("Sysvar1nstructions1111111111111111111111111"),
    "zero": Pubkey.default(),
}
NUM_MINTS = 3
TOKEN_PROGRAMS = ("TOKEN", "TOKEN_2022", "TOKEN")
"""Token program of the mint `m<i>`."""


def token_program(mint: str) -> str:
    """The program of one of the world's mints."""
    return TOKEN_PROGRAMS[int(mint[1:])]


def digest(text: str) -> bytes:
    """32 bytes that stand for a text: keys, commitments, weights."""
    return hashlib.sha256(text.encode()).digest()


def is_tracked(name: str) -> bool:
    """Whether a name is an account of the model: not a program, a sysvar or the zero key."""
    return not name.isupper() and name != "zero"


class Keyring:
    """Names to addresses, remembered."""

    def __init__(self) -> None:
        self._known: dict[str, Pubkey] = dict(FIXED)
        self._bytes: dict[str, bytes] = {}
        self._bumps: dict[str, int] = {}

    def names(self) -> list[str]:
        """Every name that was ever asked for."""
        return list(self._known)

    def key(self, name: str) -> Pubkey:
        """The address of a name.

        Raises:
            KeyError: nothing is named like that.
        """
        found = self._known.get(name)
        if found is None:
            found = self._known[name] = self._derive(name)
        return found

    def raw(self, name: str) -> bytes:
        """The address of a name, as 32 bytes."""
        found = self._bytes.get(name)
        if found is None:
            found = self._bytes[name] = bytes(self.key(name))
        return found

    def bump(self, name: str) -> int:
        """The bump of a derived address."""
        self.key(name)
        return self._bumps[name]

    def _derive(self, name: str) -> Pubkey:
        if "/" not in name:
            return Keypair.from_seed(digest("fuzz " + name)).pubkey()
        address, self._bumps[name] = self._derived(name)
        return address

    def _derived(self, name: str) -> tuple[Pubkey, int]:
        kind, _, rest = name.partition("/")
        first, _, second = rest.partition("/")
        if kind == "run":
            return _pda(COORDINATOR.program, b"run", self.raw(first), second.encode())
        if kind == "spec":
            return _pda(COORDINATOR.program, b"spec", self.raw(rest))
        if kind == "member":
            return _pda(COORDINATOR.program, b"member", self.raw(first), self.raw(second))
        if kind == "auth":
            seeds = (b"authorization", self.raw(first), self.raw(second), JOIN_SCOPE)
            return _pda(AUTHORIZER.program, *seeds)
        if kind == "pool":
            return _pda(TREASURER.program, b"pool", self.raw(rest))
        if kind == "claim":
            return _pda(TREASURER.program, b"claim", self.raw("pool/" + first), self.raw(second))
        if kind != "ata":
            raise KeyError(name)
        return _pda(ASSOCIATED, self.raw(second), self.raw(token_program(first)), self.raw(first))


def _pda(program: Pubkey, *seeds: bytes) -> tuple[Pubkey, int]:
    return Pubkey.find_program_address(list(seeds), program)
