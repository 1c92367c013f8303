"""LiteSVM behind a small interface that speaks this server's plain values.

One thread only: LiteSVM's Python class cannot move between threads. Nothing here knows of blocks, fees'
bookkeeping or storage.
"""

from __future__ import annotations

import json
import struct
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass, field

from base58 import b58encode
from solders.clock import Clock
from solders.epoch_schedule import EpochSchedule
from solders.litesvm import LiteSVM
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction
from solders.transaction_metadata import FailedTransactionMetadata, TransactionMetadata

from localnet.chain.ids import (
    BPF_LOADER_UPGRADEABLE,
    BUILTIN_ACCOUNTS,
    RECENT_BLOCKHASHES,
    SLOT_HASHES,
    SLOT_HISTORY,
    SYSVAR_OWNER,
    SYSVARS,
)
from localnet.chain.records import (
    GONE,
    LAMPORTS_PER_SIGNATURE,
    MAX_PROCESSING_AGE,
    SLOTS_PER_EPOCH,
    AccountRecord,
    Json,
    SlotRow,
)

SLOT_HASHES_ENTRIES = 512
_HISTORY_BITS = 1_048_576


class SvmCrash(Exception):
    """LiteSVM panicked: the machine must be rebuilt from stored accounts before it is used again."""


@dataclass(slots=True)
class Run:
    """The result of running one message without keeping anything."""

    err: Json = None
    logs: list[str] = field(default_factory=list)
    units: int = 0
    return_data: Json = None
    inner: list[list[Json]] = field(default_factory=list)
    """Per top-level instruction: compiled inner instructions with stack heights."""
    accounts: dict[bytes, AccountRecord] = field(default_factory=dict)
    """Writable accounts as the message leaves them; empty on failure."""


class Svm:
    """A virtual machine with Solana's built-in programs, all features on, and settable sysvars."""

    def __init__(self) -> None:
        self._svm = (
            LiteSVM().with_transaction_history(0).with_blockhash_check(False).with_log_bytes_limit(10_000)
        )
        self._code_of: dict[bytes, bytes] = {}
        """Upgradeable program -> the account that holds its code."""
        self._known: dict[bytes, AccountRecord] = {}
        """What was written here and the built-in programs: LiteSVM would copy them anew at each question."""
        self._svm.set_epoch_schedule(EpochSchedule.without_warmup())

    def get(self, address: bytes) -> AccountRecord:
        """The account at an address, or GONE."""
        if address in self._known:
            return self._known[address]
        account = self._svm.get_account(Pubkey.from_bytes(address))
        if account is None or account.lamports == 0:
            return GONE
        record = AccountRecord.from_solders(account)
        if address not in SYSVARS:  # those change by themselves
            self._known[address] = record
        return record

    def put(self, address: bytes, record: AccountRecord) -> None:
        """Write an account. An executable one is loaded and verified.

        Raises:
            ValueError: it is executable and what it holds is not a program that can run.
        """
        try:
            self._svm.set_account(Pubkey.from_bytes(address), record.to_solders())
        except Exception as exc:  # solders.LiteSVMError has no public name
            raise ValueError(f"{Pubkey.from_bytes(address)} does not hold a program that can run") from exc
        if address not in SYSVARS:
            self._known[address] = record if record.lamports else GONE

    def put_all(self, changes: dict[bytes, AccountRecord]) -> None:
        """Write the accounts that a transaction changed, in an order that lets programs find their code.

        A program whose code is gone stays as an account but can no longer be called.
        """
        programs = {address: record for address, record in changes.items() if record.executable}
        for address, record in changes.items():
            if not record.executable:
                self.put(address, record)
        for program, code in self._code_of.items():
            if code in changes and program not in programs:
                programs[program] = self.get(program)._replace(executable=True)
        for address, record in programs.items():
            self.put_program(address, record)

    def put_program(self, address: bytes, record: AccountRecord) -> None:
        """Write an executable account; where its code cannot be loaded, write it so that calls fail."""
        if record.owner == BPF_LOADER_UPGRADEABLE and len(record.data) >= 36:
            self._code_of[address] = record.data[4:36]
        try:
            self.put(address, record)
        except ValueError:
            self.put(address, record._replace(executable=False))

    def builtin_accounts(self) -> dict[bytes, AccountRecord]:
        """Built-in programs and sysvars as they are now."""
        accounts = {address: self.get(address) for address in (*BUILTIN_ACCOUNTS, *SYSVARS)}
        return {address: record for address, record in accounts.items() if record is not GONE}

    def rent_minimum(self, data_len: int) -> int:
        """Lamports that exempt an account of this size from rent."""
        return (data_len + 128) * 3480 * 2

    def set_slot(self, row: SlotRow, hashes: Iterable[tuple[int, bytes]], epoch_start: int) -> None:
        """Move the Clock, SlotHashes, SlotHistory and RecentBlockhashes sysvars to a slot.

        Args:
            row: the slot that begins.
            hashes: (slot, hash) of earlier slots, newest first; 512 of them at most are used.
            epoch_start: Unix seconds at which the epoch began.
        """
        epoch = row.slot // SLOTS_PER_EPOCH
        entries = list(hashes)[:SLOT_HASHES_ENTRIES]
        packed = b"".join(struct.pack("<Q", slot) + value for slot, value in entries)
        self._put_sysvar(SLOT_HASHES, struct.pack("<Q", len(entries)) + packed)
        recent = [row.blockhash, *(value for _, value in entries[: MAX_PROCESSING_AGE - 1])]
        fee = struct.pack("<Q", LAMPORTS_PER_SIGNATURE)
        self._put_sysvar(
            RECENT_BLOCKHASHES, struct.pack("<Q", len(recent)) + b"".join(h + fee for h in recent)
        )
        self._add_to_history(row.slot)
        self._svm.set_clock(Clock(row.slot, epoch_start, epoch, epoch + 1, row.time))

    def fill_history(self, slot: int) -> None:
        """Mark all slots up to one as present in the SlotHistory sysvar (used at the start)."""
        bits = bytearray(_HISTORY_BITS // 8)
        for index in range(max(0, slot + 1 - _HISTORY_BITS), slot + 1):
            bits[index % _HISTORY_BITS // 8] |= 1 << index % 8
        data = struct.pack("<BQ", 1, len(bits) // 8) + bytes(bits)
        self._put_sysvar(SLOT_HISTORY, data + struct.pack("<QQ", _HISTORY_BITS, slot + 1))

    def _add_to_history(self, slot: int) -> None:
        data = bytearray(self.get(SLOT_HISTORY).data)
        data[9 + slot % _HISTORY_BITS // 8] |= 1 << slot % 8
        struct.pack_into("<Q", data, len(data) - 8, slot + 1)
        self._put_sysvar(SLOT_HISTORY, bytes(data))

    def _put_sysvar(self, address: bytes, data: bytes) -> None:
        self.put(address, AccountRecord(self.rent_minimum(len(data)), data, SYSVAR_OWNER))

    def run(self, tx: VersionedTransaction, *, verify: bool) -> Run:
        """Run a transaction against the current accounts and keep nothing.

        Raises:
            SvmCrash: the machine panicked.
        """
        self._svm.with_sigverify(verify)
        try:
            result = self._svm.simulate_transaction(tx)
        except BaseException as exc:
            if type(exc).__name__ == "PanicException":  # pyo3 derives it from BaseException
                raise SvmCrash(str(exc)) from exc
            raise
        if isinstance(result, FailedTransactionMetadata):
            meta = result.meta()
            err = json.loads(result.to_json())["err"]
            accounts = {}
        else:
            meta = result.meta()
            err = None
            accounts = {
                bytes(address): AccountRecord.from_solders(account) if account.lamports else GONE
                for address, account in result.post_accounts()
            }
        return Run(
            err, meta.logs(), meta.compute_units_consumed(), _return_data(meta), _inner(meta), accounts
        )


def _return_data(meta: TransactionMetadata) -> Json:
    value = meta.return_data()  # type: ignore[attr-defined]  # the stub has another name
    if not value.data:
        return None
    return {"programId": str(value.program_id), "data": [b64encode(value.data).decode(), "base64"]}


def _inner(meta: TransactionMetadata) -> list[list[Json]]:
    groups: list[list[Json]] = []
    for group in meta.inner_instructions():
        items: list[Json] = []
        for item in group:
            ix = item.instruction()
            items.append(
                {
                    "programIdIndex": ix.program_id_index,
                    "accounts": list(ix.accounts),
                    "data": b58encode(bytes(ix.data)).decode(),
                    "stackHeight": json.loads(item.to_json())["stackHeight"],
                }
            )
        groups.append(items)
    return groups
