"""The first rank's view of all of them: a strategy and a learner like those of a member of one process."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from psyche_train.fold.chunks import Grid
from psyche_train.learner import Learner, LearnerOptions
from psyche_train.models.schema import Schema
from psyche_train.parallel.group import RankError, RankGroup
from psyche_train.parallel.rank import Rank
from psyche_train.parallel.shards import Body
from psyche_train.parallel.worker import AGREED, Assignment, state_bytes, work
from psyche_train.spec import TrainSpec
from psyche_train.strategies.base import Strategy
from psyche_train.strategies.choose import strategy_of
from psyche_train.strategies.update import Codec, Update


class Team:
    """All ranks of one member.

    Resource handling: the other ranks are processes that end with `close`, with this object, or with this
    process. Error handling: once a rank is lost, every call raises `RankError`.

    Args:
        schema: of the run's model, whole.
        devices: one per rank, this process's first.
        threads: of torch, for every rank; None shares this process's among them.
        timeout_s: how long a rank may let the others wait.

    Raises:
        RankError: a rank cannot be started.
    """

    def __init__(
        self,
        spec: TrainSpec,
        schema: Schema,
        tier: int,
        devices: Sequence[torch.device],
        *,
        options: LearnerOptions | None = None,
        threads: int | None = None,
        timeout_s: float = 600.0,
    ) -> None:
        if spec.matformer.helper_fraction:
            raise RankError(
                "this run is in helper mode (matformer.helper_fraction), which trains on one rank: "
                "choose one device and --ranks 1"
            )
        self.timeout_s = timeout_s
        self._lost: str | None = None
        threads = threads or max(1, torch.get_num_threads() // len(devices))
        torch.set_num_threads(threads)
        self._folder = tempfile.TemporaryDirectory(prefix="psyche-ranks-")
        meeting = Path(self._folder.name) / "meeting"
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes: list[BaseProcess] = []
        options = options or LearnerOptions()
        for rank in range(1, len(devices)):
            assignment = Assignment(
                spec=spec.to_bytes(),
                tier=tier,
                rank=rank,
                ranks=len(devices),
                device=str(devices[rank]),
                meeting=meeting,
                timeout_s=timeout_s,
                threads=threads,
                options=options,
            )
            ours, theirs = context.Pipe()
            process = context.Process(
                target=work, args=(theirs, assignment), daemon=True, name=f"rank-{rank}"
            )
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
        self._close = weakref.finalize(self, _end, self._pipes, self._processes, self._folder)
        self._answers()  # started: whoever fails before that does not keep the others waiting
        group = self._guarded(lambda: RankGroup(meeting, 0, len(devices), devices[0], timeout_s))
        self._answers()
        self.rank = Rank(spec, schema, tier, group, options)
        self.strategy = TeamStrategy(self, spec, schema, tier, devices[0])

    def learner(self, model: nn.Module, schema: Schema, device: torch.device) -> Learner:
        """Give the ranks this model; returns the learner of the whole of it."""
        self.rank.hold(model)
        self.order("hold", lambda: None)
        learner = _TeamLearner(self, model, schema, device, self.rank.options)
        self.order("take_from_first", self.rank.take_from_first)
        return learner

    def order(self, name: str, own: Callable[[], Any], **arguments: Any) -> list[Any]:
        """Let every rank do the same; returns what each returned, this process's first.

        Args:
            own: this rank's part.
            arguments: what the others get.

        Raises:
            RankError: a rank was lost. What `own` raises, if the others raise it too.
        """
        return self.order_each(name, own, [arguments] * len(self._pipes))

    def order_each(
        self, name: str, own: Callable[[], Any], arguments: Sequence[Mapping[str, Any]]
    ) -> list[Any]:
        """Like `order`, with arguments for each rank but this one."""
        if self._lost is not None:
            raise RankError(f"{self._lost}: start the member again")
        for pipe, values in zip(self._pipes, arguments, strict=True):
            try:
                pipe.send((name, dict(values)))
            except OSError:
                raise self._failed("a rank has ended") from None
        try:
            mine = self._guarded(own)
        except (*AGREED, ValueError):
            self._answers()
            raise
        return [mine, *self._answers()]

    def close(self) -> None:
        """End the other ranks."""
        self._lost = self._lost or "the member was closed"
        self._close()

    def processes(self) -> Sequence[BaseProcess]:
        """The other ranks' processes."""
        return tuple(self._processes)

    def _guarded(self, own: Callable[[], Any]) -> Any:
        """Do this rank's part; an operation that another rank has left is a `RankError`."""
        try:
            return own()
        except (*AGREED, ValueError):
            raise
        except Exception as error:
            raise self._failed(f"{type(error).__name__}: {error}") from error

    def _answers(self) -> list[Any]:
        answers: list[Any] = []
        raised: str | None = None
        for rank, (pipe, process) in enumerate(zip(self._pipes, self._processes, strict=True), start=1):
            deadline = time.monotonic() + self.timeout_s
            if not wait([pipe, process.sentinel], timeout=max(0.0, deadline - time.monotonic())):
                raise self._failed(f"rank {rank} did not answer within {self.timeout_s:g} s")
            try:
                kind, value = pipe.recv()
            except (EOFError, OSError):
                raise self._failed(f"rank {rank} has ended") from None
            if kind == "failed":
                raise self._failed(f"rank {rank}: {value}")
            if kind == "raised":
                raised = value
            answers.append(value)
        if raised is not None:
            return []  # this rank raised it too, or `load_tensors` looks for it
        return answers

    def _failed(self, reason: str) -> RankError:
        """End the team; the other ranks' own words are the better reason."""
        for rank, (pipe, process) in enumerate(zip(self._pipes, self._processes, strict=True), start=1):
            try:
                if pipe.poll(1.0 if not process.is_alive() else 0.2):
                    kind, value = pipe.recv()
                    if kind == "failed":
                        reason = f"rank {rank}: {value}"
            except (EOFError, OSError):
                process.join(timeout=1.0)
                reason = f"rank {rank} has ended with exit code {process.exitcode}"
        self._lost = reason
        self._close()
        return RankError(f"{reason}: start the member again")


def _end(
    pipes: Sequence[Connection], processes: Sequence[BaseProcess], folder: tempfile.TemporaryDirectory[str]
) -> None:
    for pipe in pipes:
        pipe.close()
    for process in processes:
        process.join(timeout=2.0)
        if process.is_alive():
            process.kill()
            process.join(timeout=5.0)
    folder.cleanup()


class _TeamLearner(Learner):
    """The whole model in this process; what is written to it reaches every rank."""

    def __init__(
        self, team: Team, model: nn.Module, schema: Schema, device: torch.device, options: LearnerOptions
    ) -> None:
        super().__init__(model, schema, device, options)
        self._team = team

    def copy_weights(self, source: Mapping[str, Tensor]) -> None:
        """Overwrite all weights on every rank, bit for bit."""
        super().copy_weights(source)
        self._team.order("take_from_first", self._team.rank.take_from_first)


class TeamStrategy(Strategy[Body]):
    """The run's strategy, its state divided among the ranks."""

    def __init__(self, team: Team, spec: TrainSpec, schema: Schema, tier: int, device: torch.device) -> None:
        self._whole = strategy_of(spec, schema, tier, torch.device("meta"))  # codecs only: no state
        self._whole.folded = {}
        self._team, self._shards = team, team.rank.shards
        super().__init__(spec, schema, tier, device)
        self.code = self._whole.code  # type: ignore[misc]

    @property
    def folded(self) -> dict[str, Tensor]:
        """The folded state, fetched from all ranks; empty if the strategy has none."""
        if not self.spec.optimizer.chosen.folded:
            return {}
        mine, *others = self._team.order("folded", lambda: dict(self._own.folded))
        found = {key: value for part in (mine, *map(load, others)) for key, value in part.items()}
        return {
            f"{kind}/{name}": found[f"{kind}/{name}"]
            for kind in self.spec.optimizer.chosen.folded
            for name in self._shards.names
        }

    @folded.setter
    def folded(self, value: dict[str, Tensor]) -> None:
        """Nothing: every rank keeps its own part."""

    def start_folded(self) -> None:
        """See `Strategy.start_folded`."""
        self._team.order("start_folded", self._own.start_folded)

    def take_folded(self, values: Mapping[str, Tensor]) -> None:
        """See `Strategy.take_folded`."""
        if self.spec.optimizer.chosen.folded:
            self._each("take_folded", values, self._own.take_folded)

    def codec_of(self, grids: tuple[Grid, ...]) -> Codec[Body]:
        """See `Strategy.codec_of`."""
        return self._whole.codec_of(grids)

    @property
    def layout(self) -> Mapping[str, Any]:
        """What an update's bytes depend on besides the shapes."""
        return self._whole.layout

    def train(
        self,
        learner: Learner,
        windows: Tensor,
        *,
        epoch: int,
        round_number: int,
        lr: float,
        cancelled: Callable[[], bool],
    ) -> tuple[float, Body]:
        """See `Strategy.train`; every rank computes its part of every batch."""
        rank = self._team.rank
        results = self._team.order(
            "train",
            lambda: rank.train(windows, epoch=epoch, round_number=round_number, lr=lr, cancelled=cancelled),
            windows=windows,
            epoch=epoch,
            round_number=round_number,
            lr=lr,
        )
        return results[0][0], self._shards.joined([body for _, body in results])

    def fold(
        self, weights: Mapping[str, Tensor], updates: Sequence[Update[Body]], *, step: int, lr: float
    ) -> None:
        """See `Strategy.fold`; every rank folds what it owns."""
        job = {"updates": list(updates), "step": step, "lr": lr}
        self._team.order("fold", lambda: self._team.rank.fold(updates, step=step, lr=lr), **job)

    def settle(self, round_number: int, *, accepted: bool) -> None:
        """See `Strategy.settle`."""
        job = {"round_number": round_number, "accepted": accepted}
        self._team.order("settle", lambda: self._own.settle(round_number, accepted=accepted), **job)

    def drop_before(self, round_number: int) -> None:
        """See `Strategy.drop_before`."""
        self._team.order(
            "drop_before", lambda: self._own.drop_before(round_number), round_number=round_number
        )

    def leave(self) -> None:
        """See `Strategy.leave`."""
        self._team.order("leave", self._own.leave)

    def clear(self) -> None:
        """See `Strategy.clear`."""
        self._team.order("clear", self._own.clear)

    def own_tensors(self) -> Iterator[Tensor]:
        """Those of the first rank."""
        return self._own.own_tensors()

    def folded_tensors(self) -> Iterator[Tensor]:
        """Those of the first rank."""
        return self._own.folded_tensors()

    def tensors(self) -> dict[str, Tensor]:
        """Every rank's own state; a member of any number of ranks can take it."""
        mine, *others = self._team.order("tensors", self._own.tensors)
        return {key: value for part in (mine, *map(load, others)) for key, value in part.items()}

    def load_tensors(self, flat: Mapping[str, Tensor]) -> None:
        """See `Strategy.load_tensors`."""
        if len(self._each("load_tensors", flat, self._own.load_tensors)) != len(self._team.processes()) + 1:
            raise ValueError("the saved state does not fit the tensors of another rank")

    def state_bytes(self) -> list[int]:
        """Bytes of own and folded state, per rank."""
        return self._team.order("state_bytes", lambda: state_bytes(self._team.rank))

    @property
    def _own(self) -> Strategy[Any]:
        return self._team.rank.strategy

    def _each(
        self, name: str, values: Mapping[str, Tensor], own: Callable[[Mapping[str, Tensor]], None]
    ) -> list[Any]:
        """Give every rank its part of tensors."""
        ranks = range(1, len(self._team.processes()) + 1)
        parts = [
            {"values": save({key: value.cpu().contiguous() for key, value in part.items()})}
            for part in (self._shards.state_of(values, rank) for rank in ranks)
        ]
        return self._team.order_each(name, lambda: own(self._shards.state_of(values, 0)), parts)
