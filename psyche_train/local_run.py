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
from psyche_train.records import Accepted, RoundRecord
from psyche_train.spec import TrainSpec
from psyche_train.trainer import Trainer, TrainJob

RUN = hashlib.sha256(b"psyche local run").digest()


@dataclass(frozen=True, slots=True)
class Progress:
    """One trained round."""

    step: int
    losses: tuple[float, ...]
    """Training loss per member."""
    payload_bytes: tuple[int, ...]
    seconds: float


class LocalRun:
    """Members of given tiers that train one run together.

    Args:
        samples: samples of a round, all members together.
        pipelined: train round h + 1 before round h is folded, as the clients do.
    """

    def __init__(
        self,
        spec: TrainSpec,
        tiers: Sequence[int],
        state_dir: Path,
        *,
        samples: int,
        pipelined: bool = True,
        threads: int | None = None,
        device: str = "cpu",
    ) -> None:
        self.spec, self.samples, self.pipelined = spec, samples, pipelined
        self.members = [
            Trainer(spec, tier=tier, run=RUN, state_dir=state_dir / f"{i}", device=device, threads=threads)
            for i, tier in enumerate(tiers)
        ]
        for member in self.members:
            member.load()
        self.log: list[tuple[RoundRecord, dict[int, bytes]]] = []
        self._folded = 0

    def train(self, steps: int) -> Iterator[Progress]:
        """Train rounds and yield each; `drain` folds the last one."""
        for _ in range(steps):
            started = time.monotonic()
            number = len(self.log) + 1
            shares = intervals(
                self.samples, [], (number - 1) * self.samples, [(i, 1) for i in range(len(self.members))]
            )
            blobs: dict[int, bytes] = {}
            losses = []
            for slot, member in enumerate(self.members):
                job = TrainJob(1, number, number - 1, slot, member.tier, shares[slot])
                result = member.train(job)
                blobs[slot] = result.blob
                losses.append(result.loss)
            self.log.append((self._record(number, blobs), blobs))
            self._fold_until(number - 1 if self.pipelined else number)
            yield Progress(
                step=number - 1,
                losses=tuple(losses),
                payload_bytes=tuple(len(blob) for blob in blobs.values()),
                seconds=time.monotonic() - started,
            )

    def drain(self) -> None:
        """Fold what was trained and not yet folded."""
        self._fold_until(len(self.log))

    def _fold_until(self, number: int) -> None:
        while self._folded < number:
            record, blobs = self.log[self._folded]
            for slot, member in enumerate(self.members):
                member.fold(record, blobs, slot)
            self._folded += 1

    def _record(self, number: int, blobs: dict[int, bytes]) -> RoundRecord:
        assigned = bytearray(32)
        for slot in blobs:
            assigned[slot // 8] |= 1 << (slot % 8)
        accepted = tuple(
            Accepted(slot, self.members[slot].tier, 1, hashlib.sha256(blob).digest())
            for slot, blob in sorted(blobs.items())
        )
        return RoundRecord(
            epoch=1,
            number=number,
            step=number - 1,
            trained=True,
            seed=hashlib.sha256(number.to_bytes(8, "little")).digest(),
            data_index=(number - 1) * self.samples,
            samples=self.samples,
            assigned=bytes(assigned),
            spec_hash=self.spec.sha256,
            accepted=accepted,
        )
