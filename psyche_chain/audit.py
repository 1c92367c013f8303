"""Audit a run: fold its log again from the records and blobs in folders, and compare every hash that is shown.

Nothing in the folders is believed. A record belongs to the log if hashing it leads to a history that the chain
shows; a blob is the update of a slot if it has the id in the record; the weights are right if their hash is the
one on which the members agreed. The checkpoints that lie in the folders are compared, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from psyche_chain.client.ledger import link, ring_records
from psyche_chain.client.view import ChainView
from psyche_train._manifest import blob_id
from psyche_train.checkpoints.store import read_position
from psyche_train.jobs import FoldError
from psyche_train.matformer.loading import CheckpointError, inferred
from psyche_train.matformer.stored import full_weights_hash
from psyche_train.records import GENESIS, RecordError, RecordLog, RoundRecord
from psyche_train.replay import Replay

AGREED = "agreed weights on the chain"
MAX_NAMED = 20
"""Missing or damaged blobs that are named; of the others only the number is told."""


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison."""

    what: str
    step: int
    expected: bytes
    found: bytes

    @property
    def equal(self) -> bool:
        """Whether it is as it should be."""
        return self.expected == self.found


@dataclass(slots=True)
class Audit:
    """What an audit found."""

    start: str
    rounds: int = 0
    """Rounds that were folded."""
    updates: int = 0
    useless: int = 0
    """Accepted updates that do not decode: they contribute nothing, for everyone alike."""
    rows: list[Row] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    """What is missing for the audit to be complete."""
    notes: list[str] = field(default_factory=list)
    """Damaged copies and files that were not needed."""

    @property
    def differs(self) -> bool:
        """A comparison failed: somebody's weights or records are false."""
        return any(not row.equal for row in self.rows)

    @property
    def verdict(self) -> str:
        """`differs`, `incomplete` or `verified`."""
        return "differs" if self.differs else "incomplete" if self.gaps else "verified"


@dataclass(frozen=True, slots=True)
class Sources:
    """Folders with what members keep."""

    logs: tuple[Path, ...]
    blobs: tuple[Path, ...]
    checkpoints: tuple[Path, ...]

    @classmethod
    def of(cls, state_dirs: Iterable[Path], blob_dirs: Iterable[Path]) -> Sources:
        """Of members' state directories, and of folders that hold blobs only."""
        dirs = list(state_dirs)
        return cls(
            tuple(d / "records.log" for d in dirs if (d / "records.log").is_file()),
            (*(d / "blobs" for d in dirs), *blob_dirs),
            tuple(sorted(p.parent for d in dirs for p in (d / "checkpoints").glob("step-*/position.json"))),
        )


def audit(
    replay: Replay,
    view: ChainView,
    sources: Sources,
    start: str,
    told: Callable[[int, int], None] = lambda done, total: None,
) -> Audit:
    """Fold the run's log from where `replay` stands, as far as records and blobs go.

    Args:
        start: where the weights that it begins with are from.
        told: is told how many of how many rounds are folded.
    """
    found = Audit(start)
    is_first = replay.position.history == GENESIS  # the specification, which the chain shows, has their hash
    records = _records(replay.position.history, view, sources, found)
    claims = _claims(replay, sources, found)
    blobs = _Blobs(sources.blobs, found)
    lost = [name for record in records for name in blobs.missing(record)]
    found.gaps += lost[:MAX_NAMED]
    if len(lost) > MAX_NAMED:
        found.gaps.append(f"{len(lost) - MAX_NAMED} more blobs are missing")
    _compare(replay, view, claims, found)
    for done, record in enumerate(records):
        told(done, len(records))
        taken = blobs.of(record)
        if taken is None:
            break
        try:
            replay.fold(record, taken)
        except FoldError as error:
            found.gaps.append(f"round {record.number} cannot be folded: {error}")
            break
        found.rounds += 1
        found.updates += len(taken)
        _compare(replay, view, claims, found)
    told(found.rounds, len(records))
    found.useless = replay.useless
    if replay.position.history == view.history:
        found.rows.append(
            Row("history of the chain", replay.position.step, view.history, replay.position.history)
        )
    elif not found.gaps:
        found.gaps.append(f"the folded log ends at history {replay.position.history.hex()}")
    if not is_first and not any(row.what == AGREED for row in found.rows):
        found.gaps.append(f"nothing on the chain proves the weights of {start}, with which the audit began")
    return found


def _records(start: bytes, view: ChainView, sources: Sources, found: Audit) -> list[RoundRecord]:
    """The records from `start` to the chain's head, or to the agreed checkpoint if they go no further."""
    before: dict[bytes, tuple[bytes, RoundRecord]] = {}
    for path in sources.logs:
        try:
            log = RecordLog(path, read_only=True)
        except (RecordError, OSError) as error:
            found.notes.append(f"{path} is not used: {error}")
            continue
        for history, record in log.entries():
            before[record.next_history(history)] = (history, record)
        if log.unread_bytes:
            found.notes.append(f"{path} is damaged: {log.unread_bytes} bytes at its end are no record")
    if view.history not in before:
        for history in (start, view.checkpoint.history, *list(before)):
            for record in link(history, view) or []:
                after = record.next_history(history)
                before[after] = (history, record)
                history = after
    reached = []
    targets = [("the head of the chain", view.history)]
    if view.checkpoint.agreed:
        targets.append((f"the agreed checkpoint of step {view.checkpoint.step}", view.checkpoint.history))
    for what, target in targets:
        path_, at = _walk(before, start, target)
        if at == start:
            reached = path_
            break
        known = f"before round {path_[0].number}" if path_ else "at all"
        found.gaps.append(f"no record leads to history {at.hex()} on the way to {what}: none known {known}")
    ring = {record.number: record for record in ring_records(view)}
    for record in reached:
        if record.number in ring and ring[record.number] != record:
            found.gaps.append(f"the chain shows another round {record.number} than the log")
    return reached


def _walk(
    before: dict[bytes, tuple[bytes, RoundRecord]], start: bytes, target: bytes
) -> tuple[list[RoundRecord], bytes]:
    """Back from `target`: the records found, oldest first, and the history at which they begin."""
    records: list[RoundRecord] = []
    at = target
    while at != start and at in before and len(records) <= len(before):
        at, record = before[at]
        records.append(record)
    return records[::-1], at


def _claims(replay: Replay, sources: Sources, found: Audit) -> dict[bytes, list[tuple[Path, bytes]]]:
    """History -> checkpoints in the folders that say they stand there, with the hash of what they hold."""
    claims: dict[bytes, list[tuple[Path, bytes]]] = {}
    for path in sources.checkpoints:
        try:
            position, info = read_position(path)
            if (info.run, info.spec_sha256) != (replay.run, replay.spec.sha256) or info.tier != 0:
                continue
            hash_ = full_weights_hash(inferred(path, replay.schema), replay.shared)
        except (CheckpointError, ValueError, OSError) as error:
            found.notes.append(f"{path} is damaged: {error}")
            continue
        if hash_ is not None:
            claims.setdefault(position.history, []).append((path, hash_))
    return claims


def _compare(
    replay: Replay, view: ChainView, claims: dict[bytes, list[tuple[Path, bytes]]], found: Audit
) -> None:
    """Compare the folded weights with whatever is known of this point of the log."""
    at, step = replay.position.history, replay.position.step
    is_agreed = view.checkpoint.agreed and at == view.checkpoint.history
    if not is_agreed and at not in claims:
        return
    own = replay.weights_hash()
    if is_agreed:
        found.rows.append(Row(AGREED, step, view.checkpoint.weights_hash, own))
    found.rows += [Row(str(path), step, own, hash_) for path, hash_ in claims.get(at, ())]


class _Blobs:
    """Updates by id, from whichever folder has a good copy."""

    def __init__(self, folders: Sequence[Path], found: Audit) -> None:
        self._folders = folders
        self._found = found

    def missing(self, record: RoundRecord) -> list[str]:
        """Names of what no folder has; damaged copies show when they are read."""
        return [
            self._name(record, entry.slot, entry.commitment) + " is missing"
            for entry in record.accepted
            if not any((folder / entry.commitment.hex()).is_file() for folder in self._folders)
        ]

    def of(self, record: RoundRecord) -> dict[int, bytes] | None:
        """Slot -> blob of a round; None if one is not to be had."""
        taken: dict[int, bytes] = {}
        for entry in record.accepted:
            name = self._name(record, entry.slot, entry.commitment)
            bad = []
            for folder in self._folders:
                path = folder / entry.commitment.hex()
                try:
                    data = path.read_bytes()
                except FileNotFoundError:
                    continue
                except OSError as error:
                    bad.append(f"{name} cannot be read in {folder}: {error.strerror}")
                    continue
                if blob_id(data) == entry.commitment:
                    taken[entry.slot] = data
                    break
                bad.append(f"{name} is damaged or falsified in {folder}")
            (self._found.notes if entry.slot in taken else self._found.gaps).extend(bad)
        return taken if len(taken) == len(record.accepted) else None

    @staticmethod
    def _name(record: RoundRecord, slot: int, commitment: bytes) -> str:
        return f"round {record.number}, slot {slot}: blob {commitment.hex()}"
