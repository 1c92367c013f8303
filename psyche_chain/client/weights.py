"""The member's model in a thread of its own, one call at a time, with the log of what was folded into it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import trio

from psyche_chain.client.events import EventLog
from psyche_chain.client.ports import Evals, Model, NotYet
from psyche_train.jobs import TrainerLost
from psyche_train.records import RecordError, RecordLog, RoundRecord

logger = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Saved:
    """A checkpoint of this member's weights on its disk."""

    path: Path
    step: int
    weights_hash: bytes
    digests: tuple[bytes, ...]


class Weights:
    """The model and its record log, moved together: what the log ends with is what the weights are."""

    def __init__(self, model: Model, log_path: Path, events: EventLog, evals: Evals | None = None) -> None:
        self._model = model
        self._evals = evals
        self._thread = trio.CapacityLimiter(1)
        self._checks = trio.CapacityLimiter(1)
        self._cancel = threading.Event()
        self._events = events
        self._log = RecordLog(log_path)
        self._log_lock = threading.Lock()
        self.history: bytes = model.position.history
        self.step: int = model.position.step
        self.saved: dict[bytes, Saved] = {}
        self.validated: set[bytes] = set()
        self._unlogged: list[tuple[bytes, RoundRecord]] = []
        """Folded rounds, with the history before each, that are not in the log yet."""
        self._trained_here: dict[int, int] = {}
        """Round -> own slot, of trainings whose update this process still knows."""

    @property
    def parameters(self) -> int:
        """Number of parameters that this member holds."""
        return self._model.parameters

    @property
    def max_update_bytes(self) -> int:
        """Length of the longest valid update of any tier."""
        return self._model.max_update_bytes

    @property
    def data_missing(self) -> tuple[bytes, ...]:
        """Blobs of the run's data that peers have to be asked for."""
        missing: tuple[bytes, ...] = self._model.data.missing
        return missing

    @property
    def data_blobs(self) -> frozenset[bytes]:
        """Blobs of the run's data that are, or will be, in the store."""
        blobs: frozenset[bytes] = self._model.data.blobs
        return blobs

    async def data_offers(self) -> list[Any]:
        """What this member has of the run's data and others may need: bytes, or files with their blob ids."""
        return list(await self._run(self._model.data.offers))

    async def refresh_data(self) -> None:
        """Look again at what has been fetched of the run's data."""
        await self._run(self._model.data.refresh)

    def records_after(self, history: bytes) -> list[RoundRecord]:
        """What the own log knows to follow a history."""
        with self._log_lock:
            return self._log.after(history)

    async def train(self, job: Any) -> Any | None:
        """Train one job; None if `cancel_training` came first."""
        self._cancel.clear()
        model = self._model
        result = await self._run(lambda: model.train(job, self._cancel.is_set))
        if result is None or self._cancel.is_set():
            return None
        self._trained_here[job.round] = job.slot
        return result

    def cancel_training(self) -> None:
        """Make a `train` in progress return None between two of its micro-batches."""
        self._cancel.set()

    async def check(self, blob: bytes, expected: Any) -> None:
        """Decode an update as far as witnesses must; runs beside the other calls.

        Raises:
            ValueError: it is not the update that it should be.
        """
        model = self._model
        await trio.to_thread.run_sync(model.check, blob, expected, limiter=self._checks)

    async def fold(self, record: RoundRecord, blobs: Mapping[int, bytes]) -> None:
        """Fold one closed round and append it to the log."""
        model = self._model
        before = self.history
        own = self._trained_here.get(record.number)

        def fold() -> None:
            model.fold(record, blobs, own)
            self._unlogged.append((before, record))
            self._write_log()

        try:
            await self._run(fold)
        except NotYet:
            self._follow()  # a fold that failed in its middle went back to a checkpoint
            raise
        self._trained_here = {n: slot for n, slot in self._trained_here.items() if n > record.number}
        self._follow()
        self._events.emit(
            "fold",
            round=record.number,
            step=record.step,
            accepted=[a.slot for a in record.accepted],
            history=self.history,
        )

    def _write_log(self) -> None:
        """Append what was folded. On a full disk it is kept here, and written after one of the next folds."""
        while self._unlogged:
            before, record = self._unlogged[0]
            try:
                with self._log_lock:
                    try:
                        self._log.append(before, record)
                    except RecordError:  # the chain has gone another way from here
                        self._log.rewind_to(before)
                        self._log.append(before, record)
            except OSError as error:
                logger.warning("the log of rounds cannot be written, %s: %s", self._log.path, error.strerror)
                return
            del self._unlogged[0]

    async def save(self) -> Saved:
        """Write a checkpoint and compute the digests that are attested."""
        model = self._model

        def save() -> Saved:
            path = model.save()
            return Saved(path, self.step, model.weights_hash(), tuple(model.digests()))

        history = self.history
        saved = await self._run(save)
        self.saved[history] = saved
        self._events.emit("checkpoint", step=saved.step, path=saved.path, weights_sha256=saved.weights_hash)
        return saved

    async def validate(self) -> float:
        """Validation loss of the weights as they are."""
        history, step = self.history, self.step
        loss = await self._run(self._model.validation_loss)
        self.validated.add(history)
        self._events.emit("val", step=step, loss=loss)
        return loss

    def evaluates(self) -> bool:
        """Whether an evaluation is under way or due."""
        return self._evals is not None and self._evals.is_due(self.step)

    async def evaluate(self) -> None:
        """Do one small slice of the evaluation."""
        evals, step = self._evals, self.step
        if evals is None:
            return
        result = await self._run(lambda: evals.slice(step))
        if result is None:
            return
        if "error" in result:
            self._events.emit("error", message=f"nothing is evaluated any more: {result['error']}")
        else:
            self._events.emit("eval", **result)

    async def weights_hash(self) -> bytes:
        """Hash of what this member holds; the chain's weights hash if its tier is 0."""
        return await self._run(self._model.weights_hash)

    async def digests(self) -> list[bytes]:
        """Digests of the parts that this member holds, the smallest slice first."""
        return list(await self._run(self._model.digests))

    async def pin(self, history: bytes) -> None:
        """Keep the checkpoint of that history, if there is one, however many follow."""
        if (saved := self.saved.get(history)) is not None:
            await self._run(lambda: self._model.pin(saved.path))

    async def restore(self, source: Any, position: Any) -> None:
        """Take the weights of a checkpoint that was verified: a path, or what members handed over."""
        model = self._model
        await self._run(lambda: model.restore(source, position))
        self._trained_here.clear()
        self._follow()

    async def reset(self) -> None:
        """Go back to the initial weights."""
        await self._run(self._model.reset)
        self._trained_here.clear()
        self._follow()

    def _follow(self) -> None:
        position = self._model.position
        self.history, self.step = position.history, position.step

    async def _run(self, call: Callable[[], T]) -> T:
        try:
            return await trio.to_thread.run_sync(call, limiter=self._thread)
        except TrainerLost:
            raise  # trying again is of no use
        except (RuntimeError, ValueError, OSError) as error:
            raise NotYet(f"the trainer: {error}") from error
