"""A model whose weights are hashes: one for every part that a tier adds, each a fold over accepted updates.

As in the real one, a member of tier t holds the parts T ... t, and an update of tier t changes these parts.
So two members have the same hash of a part exactly when they folded the same updates in the same order.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

from psyche_chain.chain.state import Checkpoint, RoundView
from psyche_train.blobs import blob_id
from psyche_train.checkpoints.part_index import Offered, Part, PartIndex
from psyche_train.records import GENESIS, RoundRecord

MAX_UPDATE_BYTES = 4096
PART_BYTES = 32
"""A part is its own digest."""
_MARK = b"update "


@dataclass(frozen=True, slots=True)
class Position:
    """Where in the log the weights are."""

    history: bytes
    step: int


@dataclass(frozen=True, slots=True)
class Job:
    """A share of a round."""

    round: int
    step: int
    slot: int
    tier: int
    intervals: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Result:
    """What a training gave."""

    blob: bytes
    loss: float
    tokens: int
    seconds: float


class Lab(Protocol):
    """What surrounds the model: time that it takes, and what goes wrong with it."""

    def before(self, what: str) -> None:
        """May raise what a trainer or a disk raises."""
        ...

    def takes(self, what: str, cancelled: Callable[[], bool]) -> None:
        """The call that runs takes the time that such a thing takes."""
        ...

    def folded(self, position: Position, parts: Sequence[bytes], tier: int) -> None:
        """The weights are now at a position."""
        ...


def fold_parts(parts: list[bytes], top: int, record: RoundRecord, blobs: Mapping[int, bytes]) -> list[bytes]:
    """The parts `[T, ..., t]` after a round; what is no update of the round contributes nothing."""
    parts = list(parts)
    for accepted in record.accepted:
        try:
            said = describe(blobs[accepted.slot])
        except ValueError:
            continue
        if (said.get("round"), said.get("slot")) != (record.number, accepted.slot):
            continue
        for index in range(len(parts)):
            if accepted.tier <= top - index:
                parts[index] = hashlib.sha256(parts[index] + blobs[accepted.slot]).digest()
    return parts


def weights_hash(parts: Sequence[bytes]) -> bytes:
    """As `psyche_train.fold.digest.weights_hash`, without torch."""
    combined = parts[0]
    for part in parts[1:]:
        combined = hashlib.sha256(combined + part).digest()
    return combined


def first_parts(top: int, tier: int) -> list[bytes]:
    """The parts before the first round."""
    return [hashlib.sha256(b"part %d" % part).digest() for part in range(top, tier - 1, -1)]


def read_parts(path: Path) -> list[bytes]:
    """The parts that a saved checkpoint holds.

    Raises:
        ValueError: the disk changed it.
    """
    data = (path / "model.safetensors" if path.is_dir() else path).read_bytes()
    if path.is_dir() and json.loads((path / "position.json").read_text())["sha256"] != blob_id(data).hex():
        raise ValueError(f"{path} was damaged on disk")
    return [data[at : at + PART_BYTES] for at in range(0, len(data), PART_BYTES)]


def describe(blob: bytes) -> dict[str, Any]:
    """What an update says of itself.

    Raises:
        ValueError: it is none.
    """
    if not blob.startswith(_MARK):
        raise ValueError("not an update")
    found: dict[str, Any] = json.loads(blob[len(_MARK) :])
    return found


class SimModel:
    """The weights of one process; checkpoints are folders on the member's disk."""

    parameters = 1
    max_update_bytes = MAX_UPDATE_BYTES
    data: Any = SimpleNamespace(missing=(), blobs=frozenset(), offers=list, refresh=lambda: None)

    def __init__(self, state_dir: Path, *, top: int, tier: int, lab: Lab) -> None:
        self._folder = state_dir / "checkpoints"
        self._top, self._tier, self._lab = top, tier, lab
        self._pinned: Path | None = None
        self.reset()
        self._load()

    def reset(self) -> None:
        """Back to the first weights."""
        self.position = Position(GENESIS, 0)
        self.parts = first_parts(self._top, self._tier)

    def _load(self) -> None:
        """Take the newest checkpoint on the disk that is whole."""
        for found in sorted(self._folder.glob("step-*/position.json"), reverse=True):
            position = json.loads(found.read_text())
            with contextlib.suppress(ValueError):
                self.restore(found.parent, Position(bytes.fromhex(position["history"]), position["step"]))
                return

    def train(self, job: Job, cancelled: Callable[[], bool]) -> Result | None:
        """An update that names what was trained and from which weights."""
        self._lab.before("train")
        said = {
            "round": job.round,
            "step": job.step,
            "slot": job.slot,
            "tier": job.tier,
            "samples": job.intervals,
            "history": self.position.history.hex(),
            "weights": weights_hash(self.parts).hex(),
        }
        self._lab.takes("train", cancelled)
        blob = _MARK + json.dumps(said).encode()
        return Result(blob, 1.0 / (1 + job.step), 16 * sum(b - a for a, b in job.intervals), 1.0)

    def check(self, blob: bytes, header: Any) -> None:
        """As a witness: whether it is the update of that round and slot."""
        said = describe(blob)
        if {name: said.get(name) for name in header} != header:
            raise ValueError("the header is of another update")

    def fold(self, record: RoundRecord, blobs: Mapping[int, bytes], own_slot: int | None) -> None:
        """Fold a closed round."""
        self._lab.before("fold")
        assert set(blobs) == {a.slot for a in record.accepted}, "blobs of other slots than were accepted"
        for accepted in record.accepted:
            assert blob_id(blobs[accepted.slot]) == accepted.commitment, "a blob that was not committed"
        self.parts = fold_parts(self.parts, self._top, record, blobs)
        self.position = Position(
            record.next_history(self.position.history), self.position.step + record.trained
        )
        self._lab.folded(self.position, self.parts, self._tier)

    def digests(self) -> list[bytes]:
        return list(self.parts)

    def weights_hash(self) -> bytes:
        return weights_hash(self.parts)

    def save(self) -> Path:
        """Write a checkpoint; of the older ones only the pinned one stays."""
        self._lab.before("save")
        path = self._folder / f"step-{self.position.step:08d}-{self.position.history.hex()[:8]}"
        path.mkdir(parents=True, exist_ok=True)
        data = b"".join(self.parts)
        (path / "model.safetensors").write_bytes(data)
        position = {
            "history": self.position.history.hex(),
            "step": self.position.step,
            "sha256": blob_id(data).hex(),
        }
        (path / "position.json").write_text(json.dumps(position))
        return path

    def pin(self, path: Path | None) -> None:
        self._pinned = path

    def restore(self, source: Path | Sequence[bytes], position: Position) -> None:
        """Take the own parts of a checkpoint, of this or a wider tier, or those that members handed over."""
        parts = read_parts(source) if isinstance(source, Path) else list(source)
        count = self._top - self._tier + 1
        if len(parts) < count:
            raise ValueError("the checkpoint is of a narrower tier")
        self.parts, self.position = parts[:count], position
        self._lab.folded(self.position, self.parts, self._tier)

    def validation_loss(self) -> float:
        return 1.0


class SimAdapter:
    """The model's own types; see `psyche_chain.client.ports.Adapter`."""

    def __init__(self, *, top: int, tier: int) -> None:
        self._top, self._tier = top, tier

    def job(self, round_: RoundView, slot: int, tier: int, share: Sequence[range]) -> Job:
        return Job(round_.number, round_.step, slot, tier, tuple((r.start, r.stop) for r in share))

    def expected(self, round_: RoundView, slot: int, tier: int, share: Sequence[range]) -> Any:
        samples = [[r.start, r.stop] for r in share]
        return {
            "round": round_.number,
            "step": round_.step,
            "slot": slot,
            "tier": tier,
            "samples": samples,
        }

    def position_of(self, checkpoint: Checkpoint) -> Position:
        return Position(checkpoint.history, checkpoint.step)

    def offered(self, path: Path, folder: Path) -> list[Offered]:
        found = []
        for number, part in enumerate(read_parts(path)):
            file = folder / str(number)
            file.write_bytes(part)
            found.append(Offered(Part(part, ((blob_id(part), len(part)),)), (file,)))
        return found

    def is_full(self, index: PartIndex) -> bool:
        return len(index.parts) == self._top + 1

    def needed(self, index: PartIndex) -> tuple[Part, ...]:
        if [part.num_bytes for part in index.parts] != [PART_BYTES] * (self._top + 1):
            raise ValueError("the parts are not this model's")
        return index.parts[: self._top - self._tier + 1]

    def assembled(self, parts: Sequence[Part], path_of: Callable[[bytes], Path]) -> tuple[bytes, ...]:
        found = tuple(b"".join(path_of(name).read_bytes() for name, _ in part.blobs) for part in parts)
        if found != tuple(part.digest for part in parts):
            raise ValueError("the blobs hold other parts")
        return found

    def verify_own(self, path: Path, checkpoint: Checkpoint) -> None:
        """Of a slice the chain shows no hash."""
        if len(read_parts(path)) != self._top - self._tier + 1:
            raise ValueError(f"{path} is of another tier")
        if self._tier == 0:
            self.verify(path / "model.safetensors", checkpoint.weights_hash)

    def verify(self, path: Path, weights_hash_: bytes) -> None:
        parts = read_parts(path)
        if not parts or weights_hash(parts) != weights_hash_:
            raise ValueError("another model")
