"""What every rank does, the first one included."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from psyche_train.jobs import NotFinite, TrainCancelled
from psyche_train.learner import Learner, LearnerOptions, clip, gradient_norm, num_counted
from psyche_train.models.schema import Schema
from psyche_train.parallel.group import RankGroup
from psyche_train.parallel.shards import Body, Shards
from psyche_train.spec import TrainSpec
from psyche_train.strategies.base import Strategy
from psyche_train.strategies.choose import strategy_of
from psyche_train.strategies.update import Update


class OwnLearner(Learner):
    """The learner that a rank's strategy sees: the weights that the rank owns, and their gradients.

    The model is whole. Before a gradient is computed, owners whose weights changed since the last time send
    them to the others.
    """

    def __init__(
        self, model: nn.Module, schema: Schema, shards: Shards, group: RankGroup, options: LearnerOptions
    ) -> None:
        super().__init__(model, shards.schemas[group.rank], group.device, options)
        self._shards, self._group = shards, group
        parameters = dict(model.named_parameters())
        self._all: dict[str, nn.Parameter] = {name: parameters[name] for name in shards.names}
        self._sent_version = -1

    def gradients(
        self,
        windows: Tensor,
        *,
        cancelled: Callable[[], bool],
        clip_norm: float | None,
        offset: Mapping[str, Tensor] | None = None,
    ) -> tuple[float, dict[str, Tensor]]:
        """Return the mean loss of the whole batch and the gradient of the owned tensors.

        See `Learner.gradients`. Every rank gets the whole batch and computes its part of it. Only rank 0's
        `cancelled` counts, and what is raised is raised on every rank.
        """
        saved = None
        if offset is not None:
            saved = {name: weight.detach().clone() for name, weight in self.weights.items()}
            self._move(offset)
        self.model.zero_grad(set_to_none=True)
        try:
            loss, gradients = self._reduced(windows, cancelled)
        finally:
            self.model.zero_grad(set_to_none=True)
            if saved is not None:
                self.copy_weights(saved)
        (total,) = self._group.total(gradient_norm(gradients.values()) ** 2)
        clip(loss, gradients, math.sqrt(total) if total >= 0 else math.nan, clip_norm)
        return loss, gradients

    def refresh(self) -> None:
        """Spread the tensors if any rank has changed its own since the last time."""
        (changed,) = self._group.total(self._version() != self._sent_version)
        if changed:
            self.spread()

    def spread(self) -> None:
        """Send every tensor from its owner to the other ranks."""
        self._group.spread((self._all[name], owner) for name, owner in self._shards.owners.items())
        self._sent_version = self._version()

    def _reduced(self, windows: Tensor, cancelled: Callable[[], bool]) -> tuple[float, dict[str, Tensor]]:
        self.refresh()
        rank, ranks = self._group.rank, self._group.ranks
        share = windows[len(windows) * rank // ranks : len(windows) * (rank + 1) // ranks]
        loss, stopped = 0.0, False
        try:
            loss = self._accumulate(share, num_counted(windows), cancelled)
        except TrainCancelled:
            stopped = True
        loss, stops = self._group.total(loss, stopped)
        if stops:
            raise TrainCancelled
        gradients = {}
        for name, owner in self._shards.owners.items():
            weight = self._all[name]
            gradient = torch.zeros_like(weight) if weight.grad is None else weight.grad.detach()
            weight.grad = None
            self._group.reduce(gradient, owner)
            if owner == rank:
                gradients[name] = gradient
        return loss, gradients

    def _version(self) -> int:
        """A number that grows with every change of an owned weight in place."""
        return sum(weight._version for weight in self.weights.values())


class Rank:
    """One rank's model and strategy.

    Args:
        schema: of the run's model, whole.
    """

    def __init__(
        self, spec: TrainSpec, schema: Schema, tier: int, group: RankGroup, options: LearnerOptions
    ) -> None:
        self.group, self.schema, self.options = group, schema, options
        self.shards = Shards(schema, tier, group.ranks)
        self.strategy: Strategy[Any] = strategy_of(spec, self.shards.schemas[group.rank], tier, group.device)
        self.learner: OwnLearner | None = None

    def hold(self, model: nn.Module) -> None:
        """Train this model from now on."""
        self.learner = OwnLearner(model, self.schema, self.shards, self.group, self.options)

    def take_from_first(self) -> None:
        """Overwrite all weights and constants by rank 0's."""
        learner = self._held()
        model = learner.model
        values = [*(parameter for _, parameter in model.named_parameters()), *learner.constants.values()]
        self.group.spread((value, 0) for value in values)
        learner.spread()  # nothing changes: notes that all ranks have the same

    def train(
        self, windows: Tensor, *, epoch: int, round_number: int, lr: float, cancelled: Callable[[], bool]
    ) -> tuple[float, Body]:
        """See `Strategy.train`; returns this rank's part of the body."""
        learner = self._held()
        try:
            loss, body = self.strategy.train(
                learner, windows, epoch=epoch, round_number=round_number, lr=lr, cancelled=cancelled
            )
        except (TrainCancelled, NotFinite):  # on every rank alike
            learner.refresh()
            raise
        learner.refresh()
        return loss, tuple(body)

    def fold(self, updates: Sequence[Update[Any]], *, step: int, lr: float) -> None:
        """Fold this rank's part, then take the others' weights from them."""
        learner, rank = self._held(), self.group.rank
        mine = [replace(update, body=self.shards.body_of(update.body, rank)) for update in updates]
        self.strategy.fold(learner.weights, mine, step=step, lr=lr)
        learner.spread()

    def _held(self) -> OwnLearner:
        assert self.learner is not None
        return self.learner
