"""Plain values that travel between the SVM thread, the store and the RPC handlers.

Addresses, hashes and signatures are raw bytes everywhere inside the server; text is made at the edge.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from solders.account import Account
from solders.pubkey import Pubkey

Json = Any
"""A value that `json.dumps` takes; RPC shapes are too irregular for anything narrower."""

MAX_PROCESSING_AGE = 150
"""Blocks for which a blockhash is accepted, as in Solana."""
FINALITY_SLOTS = 32
"""Slots after which a block is reported as finalized, as in Solana (rooted at 32 confirmations)."""
LAMPORTS_PER_SIGNATURE = 5000
LAMPORTS_PER_SOL = 1_000_000_000
SLOTS_PER_EPOCH = 432_000


class AccountRecord(NamedTuple):
    """One account's content. Immutable, so that every thread may hold it."""

    lamports: int
    data: bytes
    owner: bytes
    executable: bool = False
    rent_epoch: int = 0

    @classmethod
    def from_solders(cls, account: Account) -> AccountRecord:
        return cls(
            account.lamports, account.data, bytes(account.owner), account.executable, account.rent_epoch
        )

    def to_solders(self) -> Account:
        return Account(
            self.lamports, self.data, Pubkey.from_bytes(self.owner), self.executable, self.rent_epoch
        )


GONE = AccountRecord(0, b"", bytes(32))
"""What an address without an account holds; Solana and this server drop accounts without lamports."""


class SlotRow(NamedTuple):
    """A slot, the blockhash that transactions may name from then on, and its time (Unix seconds)."""

    slot: int
    blockhash: bytes
    time: int


@dataclass(frozen=True, slots=True)
class Executed:
    """A transaction that was included in a block, whether it succeeded or failed.

    `changes` holds every account that it changed (lamports 0: gone). `keys` are all account keys in
    message order, with the loaded ones at the end.
    """

    signature: bytes
    slot: int
    block_time: int
    raw: bytes
    err: Json
    meta: dict[str, Json]
    keys: tuple[bytes, ...]
    changes: dict[bytes, AccountRecord]


@dataclass(frozen=True, slots=True)
class Rejected:
    """A transaction that was not included: it cost nothing and left no trace."""

    err: Json
    logs: list[str] = field(default_factory=list)
    units: int = 0
    return_data: Json = None
    loaded_bytes: int = 0
    fee: int | None = None
    """None where it was not even clear who pays."""


@dataclass(frozen=True, slots=True)
class Simulated:
    """What a transaction would do now. `err` is None for success; `accounts` then holds the writable ones."""

    slot: int
    err: Json
    logs: list[str] = field(default_factory=list)
    units: int = 0
    return_data: Json = None
    inner: Json = None
    accounts: dict[bytes, AccountRecord] = field(default_factory=dict)
    fee: int | None = None
    loaded_bytes: int = 0
    loaded_addresses: Json = None
    balances: dict[str, Json] = field(default_factory=dict)
    """Lamports and tokens before and after, by their names in an answer; empty where it did not get so far."""
    blockhash: tuple[str, int] | None = None
    """Replacement blockhash and its last valid block height, where one was asked for."""
