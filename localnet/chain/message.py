"""What the server needs to know of a transaction's message besides what solders tells."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from solders.message import Message, MessageV0
from solders.transaction import VersionedTransaction

from localnet.chain.ids import (
    BPF_LOADER,
    BPF_LOADER_DEPRECATED,
    BPF_LOADER_UPGRADEABLE,
    COMPUTE_BUDGET,
    ED25519,
    LOADER_V4,
    SECP256K1,
    SECP256R1,
    SYSTEM,
    VOTE,
)
from localnet.chain.records import LAMPORTS_PER_SIGNATURE

MAX_TRANSACTION_BYTES = 1232
MAX_UNITS = 1_400_000
_DEFAULT_UNITS = 200_000
_BUILTIN_UNITS = 3_000
_BUILTINS = {
    SYSTEM,
    VOTE,
    COMPUTE_BUDGET,
    BPF_LOADER,
    BPF_LOADER_DEPRECATED,
    BPF_LOADER_UPGRADEABLE,
    LOADER_V4,
}
PRECOMPILES = frozenset({ED25519, SECP256K1, SECP256R1})
TABLE_META_BYTES = 56
"""Bytes before the first address in an address lookup table account."""


@dataclass(frozen=True, slots=True)
class Instruction:
    program: bytes
    accounts: bytes
    """Indices into the message's keys."""
    data: bytes


@dataclass(frozen=True, slots=True)
class Parsed:
    """A message with its keys as bytes, before lookup tables are resolved."""

    version: int | None
    """None for a legacy message."""
    static_keys: tuple[bytes, ...]
    num_signers: int
    num_readonly_signed: int
    num_readonly_unsigned: int
    blockhash: bytes
    instructions: tuple[Instruction, ...]
    lookups: tuple[tuple[bytes, bytes, bytes], ...]
    """(table, writable indices, readonly indices)."""

    @property
    def payer(self) -> bytes:
        return self.static_keys[0]

    @property
    def num_lookups(self) -> int:
        """How many keys come from lookup tables."""
        return sum(len(writable) + len(readonly) for _, writable, readonly in self.lookups)

    def static_writable(self, index: int) -> bool:
        if index < self.num_signers:
            return index < self.num_signers - self.num_readonly_signed
        return index < len(self.static_keys) - self.num_readonly_unsigned


def parse(tx: VersionedTransaction) -> Parsed:
    """Read a sanitized transaction's message."""
    message = tx.message
    header = message.header
    keys = tuple(bytes(key) for key in message.account_keys)
    lookups: tuple[tuple[bytes, bytes, bytes], ...] = ()
    if isinstance(message, MessageV0):
        lookups = tuple(
            (bytes(item.account_key), bytes(item.writable_indexes), bytes(item.readonly_indexes))
            for item in message.address_table_lookups
        )
    return Parsed(
        version=None if isinstance(message, Message) else 0,
        static_keys=keys,
        num_signers=header.num_required_signatures,
        num_readonly_signed=header.num_readonly_signed_accounts,
        num_readonly_unsigned=header.num_readonly_unsigned_accounts,
        blockhash=bytes(message.recent_blockhash),
        instructions=tuple(
            Instruction(keys[ix.program_id_index], bytes(ix.accounts), bytes(ix.data))
            for ix in message.instructions
        ),
        lookups=lookups,
    )


@dataclass(frozen=True, slots=True)
class Fees:
    base: int
    priority: int
    unit_limit: int

    @property
    def total(self) -> int:
        return self.base + self.priority


def fees(message: Parsed) -> Fees:
    """Base fee (5000 lamports a signature, precompile signatures included) and priority fee, in lamports."""
    price = 0
    limit: int | None = None
    default = 0
    signatures = message.num_signers
    for ix in message.instructions:
        if ix.program == COMPUTE_BUDGET:
            if len(ix.data) >= 5 and ix.data[0] == 2:
                limit = struct.unpack_from("<I", ix.data, 1)[0]
            elif len(ix.data) >= 9 and ix.data[0] == 3:
                price = struct.unpack_from("<Q", ix.data, 1)[0]
        if ix.program in PRECOMPILES:
            signatures += ix.data[0] if ix.data else 0
        default += _BUILTIN_UNITS if ix.program in _BUILTINS else _DEFAULT_UNITS
    units = min(default if limit is None else limit, MAX_UNITS)
    priority = -(-price * units // 1_000_000)
    return Fees(signatures * LAMPORTS_PER_SIGNATURE, min(priority, 2**64 - 1), units)
