"""What a training strategy is: how a member makes an update, and how updates change the shared weights.

Three kinds of state, never mixed:

- the *shared weights* belong to the learner; `Strategy.fold` is the only place where they change;
- the *folded state* (momenta of the fold) is a function of the log like the weights. It is cut by tier like
  them, and it is in the digests, in checkpoints and in what members take from one another;
- the member's *own state* (error buffers, what was sent and is not decided, a local optimizer) is saved on
  its disk only, and a crash costs no more than feedback.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from psyche_train.fold.chunks import Grid
from psyche_train.learner import Learner
from psyche_train.matformer.helper import Shares
from psyche_train.models.schema import Schema
from psyche_train.spec import TrainSpec
from psyche_train.strategies.update import Codec, Update

B = TypeVar("B")


class Strategy(ABC, Generic[B]):
    """One member's strategy; `B` is the body of an update.

    Args:
        schema: of the run's model.
        tier: the member's.
        device: where the member's buffers live.
    """

    code: ClassVar[int]
    """Number of the strategy in the header of an update."""

    def __init__(self, spec: TrainSpec, schema: Schema, tier: int, device: torch.device) -> None:
        self.spec = spec
        self.schema = schema
        self.tier = tier
        self.device = device
        self.fold_device = device if device.type in ("cuda", "meta") else torch.device("cpu")
        """Where the fold computes: CUDA and CPU keep to IEEE 754 alike, MPS is not trusted to."""
        self.shares = Shares(spec, schema)
        """What members of every tier hold and train."""
        self.folded: dict[str, Tensor] = {}
        """``kind/name -> fp32`` on `fold_device`, of the weight's shape as the member holds it."""
        self.start_folded()

    def start_folded(self) -> None:
        """Set the folded state to zeros: no round was folded yet."""
        self.folded = {
            f"{kind}/{grid.name}": torch.zeros(grid.shape, device=self.fold_device)
            for kind in self.spec.optimizer.chosen.folded
            for grid in self.shares.held(self.tier)
        }

    def take_folded(self, values: Mapping[str, Tensor]) -> None:
        """Take the folded state that belongs to weights which are taken with it, bit for bit."""
        self.folded = {
            name: values[name].to(self.fold_device, torch.float32, copy=True) for name in self.folded
        }

    def covered(self, updates: Sequence[Update[B]]) -> list[tuple[Grid, ...]]:
        """The grids of what each update covers, in schema order."""
        heads = [update.header for update in updates]
        return [self.shares.trained(head.tier, head.epoch, head.round) for head in heads]

    @cached_property
    def codecs(self) -> Sequence[Codec[B]]:
        """The body's codec of every tier."""
        return tuple(
            self.codec_of(self.shares.trained(tier, 0, 0)) for tier in range(self.schema.max_tier + 1)
        )

    @abstractmethod
    def codec_of(self, grids: tuple[Grid, ...]) -> Codec[B]:
        """Return the codec of a body that covers these grids; only their shapes matter."""

    @property
    @abstractmethod
    def layout(self) -> Mapping[str, Any]:
        """What an update's bytes depend on besides the shapes; part of the schema hash."""

    @abstractmethod
    def train(
        self,
        learner: Learner,
        windows: Tensor,
        *,
        epoch: int,
        round_number: int,
        lr: float,
        cancelled: Callable[[], bool],
    ) -> tuple[float, B]:
        """Train on one batch; returns the mean loss and what is sent. Shared weights end as they began.

        A round that is trained again first gets back what was taken out of the error buffers for it.

        Args:
            learner: holds the weights that the member trains in this round (`Shares.trained`).
            windows: int64 ``[samples, max_seq_len + 1]``.
            epoch: of the round.
            lr: learning rate of the step.
            cancelled: asked between micro-batches.

        Raises:
            TrainCancelled, NotFinite: nothing was changed.
        """

    @abstractmethod
    def fold(
        self, weights: Mapping[str, Tensor], updates: Sequence[Update[B]], *, step: int, lr: float
    ) -> None:
        """Change the shared weights, in place, by the accepted updates of a round.

        Args:
            weights: ``name -> fp32`` of what the member holds (`Shares.held`), in schema order.
            updates: at least one, in slot order.
            step: of the round, from 0.
        """

    @abstractmethod
    def settle(self, round_number: int, *, accepted: bool) -> None:
        """Learn the chain's decision about a round: what was not accepted goes back into the buffers."""

    @abstractmethod
    def drop_before(self, round_number: int) -> None:
        """Forget what was sent for rounds below `round_number`, whose decision will not come any more."""

    @abstractmethod
    def leave(self) -> None:
        """Forget what was sent for every round: the weights come from elsewhere now."""

    @abstractmethod
    def clear(self) -> None:
        """Forget all own state: the run begins again."""

    @abstractmethod
    def own_tensors(self) -> Iterator[Tensor]:
        """The tensors of the own state in this process, for counting them."""

    def folded_tensors(self) -> Iterator[Tensor]:
        """The tensors of the folded state in this process, for counting them."""
        yield from self.folded.values()

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """The own state as flat CPU tensors, for a file; `load_tensors` reads it back."""

    @abstractmethod
    def load_tensors(self, flat: Mapping[str, Tensor]) -> None:
        """Take the own state that `tensors` returned.

        Raises:
            ValueError: a tensor is missing or has another shape; nothing was changed.
        """
