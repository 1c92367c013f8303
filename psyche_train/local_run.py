"""Several members in one process, without chain or network: the real trainer, the real records.

The pipeline is the client's: round h + 1 is trained before round h is folded.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from psyche_train.assign import intervals
from psyche_train.batch_ramp import BatchRamp
from psyche_train.records import Accepted, RoundRecord
from psyche_train.spec import TrainSpec
from psyche_train.trainer import Trainer, TrainerError, TrainJob

RUN = hashlib.sha256(b"psyche local run").digest()


@dataclass(frozen=True, slots=True)
class Progress:
    """One trained round."""

    step: int
    samples: int
    """Samples of the round, all members together."""
    learning_rate: float
    losses: tuple[float, ...]
    """Training loss per member."""
    payload_bytes: tuple[int, ...]
    seconds: float


class LocalRun:
    """Members of given tiers that train one run together; each goes on from the checkpoint in its folder.

    Args:
        state_dir: member ``i`` keeps its checkpoints in ``state_dir/i``.
        samples: samples of a round, all members together, or how they grow.
        pipelined: train round h + 1 before round h is folded, as the clients do.
        epoch_rounds: rounds of an epoch; None: all are of the first.

    Raises:
        TrainerError: the checkpoints in `state_dir` are not of one step.
    """

    def __init__(
        self,
        spec: TrainSpec,
        tiers: Sequence[int],
        state_dir: Path,
        *,
        samples: int | BatchRamp,
        pipelined: bool = True,
        epoch_rounds: int | None = None,
        threads: int | None = None,
        device: str = "cpu",
    ) -> None:
        self.spec, self.pipelined, self.epoch_rounds = spec, pipelined, epoch_rounds
        if isinstance(samples, int):
            samples = BatchRamp(global_batch_size_start=samples, global_batch_size_end=samples)
        self.ramp = samples
        self.members = [
            Trainer(spec, tier=tier, run=RUN, state_dir=state_dir / f"{i}", device=device, threads=threads)
            for i, tier in enumerate(tiers)
        ]
        for member in self.members:
            member.load()
        positions = {member.position for member in self.members}
        if len(positions) > 1:
            steps = sorted(position.step for position in positions)
            raise TrainerError(
                f"the members in {state_dir} stand at different points (steps {steps}): "
                "remove that folder, or choose another"
            )
        position = positions.pop()
        self.first = position.round
        """Number of the first round that is trained now."""
        self.data_index = 0
        """First sample of the next round."""
        if position.step:  # a record says where its round began, not where it ended
            begun = position.data_index
            self.data_index = begun + self._samples(begun)
        self.log: list[tuple[RoundRecord, dict[int, bytes]]] = []
        self._folded = 0

    @property
    def step(self) -> int:
        """The step that the next round has."""
        return self.first - 1 + len(self.log)

    def train(self, steps: int) -> Iterator[Progress]:
        """Train rounds and yield each; `drain` folds the last one."""
        for _ in range(steps):
            started = time.monotonic()
            number, begin, samples = (
                self.first + len(self.log),
                self.data_index,
                self._samples(self.data_index),
            )
            shares = intervals(samples, [], begin, [(i, 1) for i in range(len(self.members))])
            blobs: dict[int, bytes] = {}
            losses = []
            for slot, member in enumerate(self.members):
                job = TrainJob(self._epoch(number), number, number - 1, slot, member.tier, shares[slot])
                result = member.train(job)
                blobs[slot] = result.blob
                losses.append(result.loss)
            self.log.append((self._record(number, begin, samples, blobs), blobs))
            self.data_index = begin + samples
            self._fold_until(len(self.log) - 1 if self.pipelined else len(self.log))
            yield Progress(
                step=number - 1,
                samples=samples,
                learning_rate=self.spec.learning_rate(number - 1),
                losses=tuple(losses),
                payload_bytes=tuple(len(blob) for blob in blobs.values()),
                seconds=time.monotonic() - started,
            )

    def drain(self) -> None:
        """Fold what was trained and not yet folded."""
        self._fold_until(len(self.log))

    def _samples(self, data_index: int) -> int:
        return self.ramp.samples(data_index, self.spec.max_seq_len, len(self.members))

    def _fold_until(self, count: int) -> None:
        while self._folded < count:
            record, blobs = self.log[self._folded]
            for slot, member in enumerate(self.members):
                member.fold(record, blobs, slot)
            self._folded += 1

    def _epoch(self, number: int) -> int:
        return 1 + (number - 1) // self.epoch_rounds if self.epoch_rounds else 1

    def _record(self, number: int, data_index: int, samples: int, blobs: dict[int, bytes]) -> RoundRecord:
        assigned = bytearray(32)
        for slot in blobs:
            assigned[slot // 8] |= 1 << (slot % 8)
        accepted = tuple(
            Accepted(slot, self.members[slot].tier, 1, hashlib.sha256(blob).digest())
            for slot, blob in sorted(blobs.items())
        )
        return RoundRecord(
            epoch=self._epoch(number),
            number=number,
            step=number - 1,
            trained=True,
            seed=hashlib.sha256(number.to_bytes(8, "little")).digest(),
            data_index=data_index,
            samples=samples,
            assigned=bytes(assigned),
            spec_hash=self.spec.sha256,
            accepted=accepted,
        )
