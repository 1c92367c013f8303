"""Durable nonces: transactions that name a nonce account's value instead of a recent blockhash."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable

from localnet.chain.ids import SYSTEM
from localnet.chain.message import Parsed
from localnet.chain.records import LAMPORTS_PER_SIGNATURE, AccountRecord

_ADVANCE = struct.pack("<I", 4)
_INITIALIZED = struct.pack("<II", 1, 1)
_SIZE = 80


def nonce_account(message: Parsed, get: Callable[[bytes], AccountRecord]) -> bytes | None:
    """The nonce account whose current value a transaction names, or None if it does not use one rightly."""
    if not message.instructions:
        return None
    first = message.instructions[0]
    if first.program != SYSTEM or first.data[:4] != _ADVANCE or not first.accounts:
        return None
    index = first.accounts[0]
    if index >= len(message.static_keys) or not message.static_writable(index):
        return None
    address = message.static_keys[index]
    record = get(address)
    if record.owner != SYSTEM or len(record.data) != _SIZE or record.data[:8] != _INITIALIZED:
        return None
    authority, value = record.data[8:40], record.data[40:72]
    signers = {
        message.static_keys[i]
        for i in first.accounts
        if i < min(message.num_signers, len(message.static_keys))
    }
    return address if value == message.blockhash and authority in signers else None


def advanced(record: AccountRecord, blockhash: bytes) -> AccountRecord:
    """A nonce account after it was used up by a transaction, failed or not."""
    value = hashlib.sha256(b"DURABLE_NONCE" + blockhash).digest()
    fee = struct.pack("<Q", LAMPORTS_PER_SIGNATURE)
    return record._replace(data=record.data[:40] + value + fee)
