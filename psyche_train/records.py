"""The record of a round, the hash chain over records, and the file that keeps them.

The coordinator's `history` is a hash chain: closing a round sets ``history = SHA-256(preimage)``, where the
preimage holds the old history and all that a replay needs (`RoundRecord.preimage`). So a list of records
from anybody can be checked against the chain with nothing but hashing.

    RecordError (ValueError): bytes, a file or a call that is not a valid record or does not fit the log.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from psyche_train._durable import sync_path

GENESIS = bytes(32)
"""The history of a run in which nothing was closed yet."""

MAX_SLOTS = 256
_HEAD = struct.Struct("<QQQB32sQI32s32sH")
_ACCEPTED = struct.Struct("<HBH32s")
_MAX_BYTES = _HEAD.size + MAX_SLOTS * _ACCEPTED.size


class RecordError(ValueError):
    """Bytes, a file or a call that is not a valid record or does not fit the log."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """One accepted slot of a closed round."""

    slot: int
    tier: int
    weight: int
    commitment: bytes
    """32 bytes: id of the member's blob."""


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """What closing a round put into the history; integers are unsigned (u64, `samples` u32)."""

    epoch: int
    number: int
    step: int
    """0-based training step of the round; a round that was not trained carries the next one's."""
    trained: bool
    seed: bytes
    data_index: int
    """First new sample of the round."""
    samples: int
    assigned: bytes
    """256 bits, bit ``i`` of byte ``i // 8`` is slot ``i``."""
    spec_hash: bytes
    accepted: tuple[Accepted, ...]
    """Ascending by slot."""

    def __post_init__(self) -> None:
        for name in ("epoch", "number", "step", "data_index"):
            _check_uint(name, getattr(self, name), 64)
        _check_uint("samples", self.samples, 32)
        for name in ("seed", "assigned", "spec_hash"):
            _check_hash(name, getattr(self, name))
        if len(self.accepted) > MAX_SLOTS:
            raise RecordError(f"{len(self.accepted)} accepted slots, at most {MAX_SLOTS}")
        last = -1
        for entry in self.accepted:
            _check_uint("slot", entry.slot, 16)
            _check_uint("tier", entry.tier, 8)
            _check_uint("weight", entry.weight, 16)
            _check_hash("commitment", entry.commitment)
            if not last < entry.slot < MAX_SLOTS:
                raise RecordError(f"accepted slot {entry.slot} after {last}: ascending and below {MAX_SLOTS}")
            if not self.is_assigned(entry.slot):
                raise RecordError(f"slot {entry.slot} is accepted but was not assigned")
            last = entry.slot
        if self.accepted and not self.trained:
            raise RecordError("a round that was not trained has accepted slots")

    def is_assigned(self, slot: int) -> bool:
        """Whether the round asked `slot` to train."""
        return bool(self.assigned[slot // 8] >> (slot % 8) & 1)

    def to_bytes(self) -> bytes:
        """Return the canonical bytes: the preimage without the history."""
        head = _HEAD.pack(
            self.epoch,
            self.number,
            self.step,
            int(self.trained),
            self.seed,
            self.data_index,
            self.samples,
            self.assigned,
            self.spec_hash,
            len(self.accepted),
        )
        return head + b"".join(_ACCEPTED.pack(a.slot, a.tier, a.weight, a.commitment) for a in self.accepted)

    @classmethod
    def from_bytes(cls, data: bytes) -> RoundRecord:
        """Read canonical bytes; every other byte string is a `RecordError`."""
        if not _HEAD.size <= len(data) <= _MAX_BYTES:
            raise RecordError(f"a record has {_HEAD.size} to {_MAX_BYTES} bytes, not {len(data)}")
        *fields, count = _HEAD.unpack_from(data)
        epoch, number, step, trained, seed, data_index, samples, assigned, spec_hash = fields
        if trained > 1:
            raise RecordError(f"the trained flag is {trained}, allowed 0 and 1")
        if len(data) != _HEAD.size + count * _ACCEPTED.size:
            raise RecordError(f"{len(data)} bytes do not hold {count} accepted slots")
        accepted = tuple(Accepted(*entry) for entry in _ACCEPTED.iter_unpack(data[_HEAD.size :]))
        return cls(
            epoch, number, step, bool(trained), seed, data_index, samples, assigned, spec_hash, accepted
        )

    def preimage(self, history: bytes) -> bytes:
        """What the coordinator hashes when it closes this round after `history`."""
        _check_hash("history", history)
        return history + self.to_bytes()

    def next_history(self, history: bytes) -> bytes:
        """The history after this record."""
        return hashlib.sha256(self.preimage(history)).digest()


def verify_chain(history: bytes, records: Sequence[RoundRecord], target: bytes) -> bool:
    """Whether `records` lead from `history` to `target`, in this order."""
    for record in records:
        history = record.next_history(history)
    return history == target


class RecordLog:
    """Append-only file of records, each with the history before it.

    Appends are durable when `append` returns. A torn tail (power loss) is cut off on opening. The file may
    hold several chains, because a member that was away can begin again from a later checkpoint.

    Resource handling: no file stays open. A second process may read while one writes: open it with
    ``read_only=True``, it follows the writer's appends and rewinds.
    """

    _ENTRY = struct.Struct("<I8s32s")  # length of the record, checksum, history before it

    def __init__(self, path: Path | str, *, read_only: bool = False) -> None:
        self.path = Path(path)
        self._read_only = read_only
        self._entries: list[tuple[bytes, RoundRecord]] = []
        self._index: dict[bytes, int] = {}
        self._read_bytes = 0
        self._inode = -1
        if not read_only:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.touch()
        self._refresh()
        if not read_only and self._read_bytes < self.path.stat().st_size:
            with self.path.open("r+b") as file:
                file.truncate(self._read_bytes)
                os.fsync(file.fileno())

    def __len__(self) -> int:
        """Number of records in the file."""
        self._refresh()
        return len(self._entries)

    @property
    def head(self) -> bytes | None:
        """The history after the last record; None when the log is empty."""
        self._refresh()
        if not self._entries:
            return None
        history, record = self._entries[-1]
        return record.next_history(history)

    def append(self, history: bytes, record: RoundRecord) -> None:
        """Add the record that was closed after `history`; adding it again changes nothing.

        Raises:
            RecordError: another record follows `history` already (`rewind_to` first), or it is read-only.
        """
        if self._read_only:
            raise RecordError(f"{self.path} was opened read-only")
        _check_hash("history", history)
        known = self._index.get(history)
        if known is not None:
            if self._entries[known][1] == record:
                return
            raise RecordError(
                f"{self.path} holds another round after history {history.hex()[:16]} "
                f"(number {self._entries[known][1].number}, not {record.number}): rewind the log to it first"
            )
        entry = self._encode(history, record)
        with self.path.open("r+b") as file:
            file.seek(self._read_bytes)  # over the torn tail of a write that failed
            file.write(entry)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
        self._remember(history, record)
        self._read_bytes += len(entry)

    def after(self, history: bytes) -> list[RoundRecord]:
        """Return the records that follow `history`, oldest first; empty when the log knows none."""
        self._refresh()
        found: list[RoundRecord] = []
        at = self._index.get(history)
        while at is not None and len(found) < len(self._entries):
            before, record = self._entries[at]
            found.append(record)
            at = self._index.get(record.next_history(before))
        return found

    def entries(self) -> list[tuple[bytes, RoundRecord]]:
        """Every record of the file with the history before it, in the order of the file."""
        self._refresh()
        return list(self._entries)

    @property
    def unread_bytes(self) -> int:
        """Bytes at the end of the file that are no whole record: it is torn or damaged there."""
        self._refresh()
        return max(0, self.path.stat().st_size - self._read_bytes) if self.path.exists() else 0

    def rewind_to(self, history: bytes) -> None:
        """Drop every record that does not lead to `history`, for a run that the chain has set back.

        A history that the log does not know empties it: nothing in it is known to lie before that point.
        """
        if self._read_only:
            raise RecordError(f"{self.path} was opened read-only")
        kept: list[tuple[bytes, RoundRecord]] = []
        by_result = {record.next_history(before): (before, record) for before, record in self._entries}
        at = history
        while at in by_result and len(kept) < len(self._entries):
            kept.append(by_result[at])
            at = by_result[at][0]
        kept.reverse()
        beside = self.path.with_name(self.path.name + ".new")
        with beside.open("wb") as file:
            file.write(b"".join(self._encode(before, record) for before, record in kept))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self.path)
        sync_path(self.path.parent)
        self._inode = -1
        self._refresh()

    def _refresh(self) -> None:
        """Read what the file holds beyond what was read; all of it after a rewind."""
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            stat = None
        if stat is None or stat.st_ino != self._inode or stat.st_size < self._read_bytes:
            self._entries, self._index, self._read_bytes = [], {}, 0
            self._inode = stat.st_ino if stat else -1
        if stat is None or stat.st_size == self._read_bytes:
            return
        with self.path.open("rb") as file:
            file.seek(self._read_bytes)
            data = file.read()
        for size, history, record in self._decode(data):
            self._remember(history, record)
            self._read_bytes += size

    def _remember(self, history: bytes, record: RoundRecord) -> None:
        self._index[history] = len(self._entries)
        self._entries.append((history, record))

    @classmethod
    def _encode(cls, history: bytes, record: RoundRecord) -> bytes:
        data = record.to_bytes()
        return cls._ENTRY.pack(len(data), hashlib.sha256(history + data).digest()[:8], history) + data

    @classmethod
    def _decode(cls, data: bytes) -> Iterator[tuple[int, bytes, RoundRecord]]:
        """Yield ``(bytes used, history, record)`` until the data ends or does not verify."""
        at = 0
        while len(data) - at >= cls._ENTRY.size:
            length, checksum, history = cls._ENTRY.unpack_from(data, at)
            body = data[at + cls._ENTRY.size : at + cls._ENTRY.size + length]
            if length > _MAX_BYTES or len(body) < length:
                return
            if hashlib.sha256(history + body).digest()[:8] != checksum:
                return
            try:
                record = RoundRecord.from_bytes(body)
            except RecordError:
                return
            at += cls._ENTRY.size + length
            yield cls._ENTRY.size + length, history, record


def _check_uint(name: str, value: int, bits: int) -> None:
    if not 0 <= value < 1 << bits:
        raise RecordError(f"{name} = {value} is outside u{bits}")


def _check_hash(name: str, value: bytes) -> None:
    if len(value) != 32:
        raise RecordError(f"{name} has {len(value)} bytes, not 32")
