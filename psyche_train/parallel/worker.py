"""The process of one rank beside the first: takes orders from a pipe until it closes."""

from __future__ import annotations

import logging
import signal
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from psyche_train.jobs import NotFinite, TrainCancelled
from psyche_train.learner import LearnerOptions
from psyche_train.parallel.group import RankGroup
from psyche_train.parallel.rank import Rank
from psyche_train.resolve import schema_of
from psyche_train.spec import TrainSpec

logger = logging.getLogger(__name__)

AGREED = (TrainCancelled, NotFinite)
"""What every rank raises alike."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """What a rank is started with."""

    spec: bytes
    tier: int
    rank: int
    ranks: int
    device: str
    meeting: Path
    timeout_s: float
    threads: int
    options: LearnerOptions


def work(pipe: Connection, assignment: Assignment) -> None:
    """Join the group and obey; answers are ``("done", value)``, ``("raised", text)`` or ``("failed", text)``.

    The process ends when the pipe closes or after an error that the ranks do not share.
    """
    try:
        signal.signal(
            signal.SIGINT, signal.SIG_IGN
        )  # the member decides what Ctrl-C means, and closes the pipe
        torch.set_num_threads(assignment.threads)
        orders = _Orders(assignment)
        pipe.send(("done", None))
        orders.join()
        pipe.send(("done", None))
        while True:
            name, arguments = pipe.recv()
            try:
                answer = ("done", getattr(orders, name)(**arguments))
            except AGREED as error:
                answer = ("raised", str(error))
            except ValueError as error:
                if name != "load_tensors":
                    raise
                answer = ("raised", str(error))  # state that does not fit; this rank is as it was
            pipe.send(answer)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except Exception as error:
        logger.debug("rank %d failed", assignment.rank, exc_info=True)
        pipe.send(("failed", f"{type(error).__name__}: {error}"))


class _Orders:
    """Every method is an order by its name; its arguments are what the first rank sends."""

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        self._spec, self._tier = TrainSpec.from_bytes(assignment.spec), assignment.tier
        self._schema = schema_of(self._spec, assignment.tier)

    def join(self) -> None:
        """Meet the other ranks."""
        given = self._assignment
        device = torch.device(given.device)
        group = RankGroup(given.meeting, given.rank, given.ranks, device, given.timeout_s)
        self._rank = Rank(self._spec, self._schema, given.tier, group, given.options)

    def hold(self) -> None:
        """Build the model; its weights come from rank 0."""
        family, tier = self._schema.family, self._tier
        empty = {tensor.name: torch.zeros(tensor.shape_at(tier)) for tensor in self._schema.stored}
        factor = 2.0 ** (tier * self._spec.matformer.ffn_rescale)
        device = self._rank.group.device
        self._rank.hold(family.build(family.ffn_width >> tier, empty, device, factor=factor))

    def take_from_first(self) -> None:
        """See `Rank`."""
        self._rank.take_from_first()

    def train(self, *, windows: torch.Tensor, epoch: int, round_number: int, lr: float) -> Any:
        """See `Rank`; loss and body."""
        return self._rank.train(
            windows, epoch=epoch, round_number=round_number, lr=lr, cancelled=lambda: False
        )

    def fold(self, *, updates: Any, step: int, lr: float) -> None:
        """See `Rank`."""
        self._rank.fold(updates, step=step, lr=lr)

    def settle(self, *, round_number: int, accepted: bool) -> None:
        """See `Strategy`."""
        self._rank.strategy.settle(round_number, accepted=accepted)

    def drop_before(self, *, round_number: int) -> None:
        """See `Strategy`."""
        self._rank.strategy.drop_before(round_number)

    def leave(self) -> None:
        """See `Strategy`."""
        self._rank.strategy.leave()

    def clear(self) -> None:
        """See `Strategy`."""
        self._rank.strategy.clear()

    def start_folded(self) -> None:
        """See `Strategy`."""
        self._rank.strategy.start_folded()

    def folded(self) -> bytes:
        """This rank's part of the folded state, as safetensors."""
        return save({name: value.cpu().contiguous() for name, value in self._rank.strategy.folded.items()})

    def take_folded(self, *, values: bytes) -> None:
        """See `Strategy`."""
        self._rank.strategy.take_folded(load(values))

    def tensors(self) -> bytes:
        """This rank's own state, as safetensors."""
        return save(self._rank.strategy.tensors())

    def load_tensors(self, *, values: bytes) -> None:
        """See `Strategy`."""
        self._rank.strategy.load_tensors(load(values))

    def state_bytes(self) -> int:
        """Bytes of this rank's own and folded state."""
        return state_bytes(self._rank)


def state_bytes(rank: Rank) -> int:
    """Bytes of a rank's own and folded state."""
    strategy = rank.strategy
    return sum(value.nbytes for value in (*strategy.tensors().values(), *strategy.folded.values()))
