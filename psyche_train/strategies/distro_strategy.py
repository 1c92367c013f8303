"""DisTrO behind the strategy interface: gradients, `DistroState`, the signs on the wire, the exact fold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from psyche_train.fold.chunks import grids
from psyche_train.fold.exact import Ballot, Signs, apply_step, direction
from psyche_train.learner import Learner
from psyche_train.models.schema import Schema
from psyche_train.spec import DistroOptimizer, TrainSpec
from psyche_train.strategies.base import Strategy
from psyche_train.strategies.distro import DistroState
from psyche_train.strategies.payload import PayloadLayout
from psyche_train.strategies.update import Update

Body = tuple[Signs, ...]


class Distro(Strategy[Body]):
    """One gradient a round; of its DCT the largest coefficients, one bit each. No folded state."""

    code = 1

    def __init__(
        self, config: DistroOptimizer, spec: TrainSpec, schema: Schema, tier: int, device: torch.device
    ) -> None:
        super().__init__(spec, schema, tier, device)
        self.config = config
        self._codecs = tuple(
            PayloadLayout(grids(schema, any_tier, config.compression_chunk), config.compression_topk)
            for any_tier in range(schema.max_tier + 1)
        )
        self.state = DistroState(config, self._codecs[tier].grids, device)

    @property
    def codecs(self) -> Sequence[PayloadLayout]:
        """The body's codec of every tier."""
        return self._codecs

    @property
    def layout(self) -> Mapping[str, Any]:
        """Kind, chunk and top-k."""
        return {
            "kind": "Distro",
            "chunk": self.config.compression_chunk,
            "topk": self.config.compression_topk,
        }

    def train(
        self,
        learner: Learner,
        windows: Tensor,
        *,
        round_number: int,
        lr: float,
        cancelled: Callable[[], bool],
    ) -> tuple[float, Body]:
        """See `Strategy.train`; with `lookahead` the gradient is taken at ``weights - lr * sign(error)``."""
        offset = None
        if self.config.lookahead:
            offset = {name: error.sign() * lr for name, error in self.state.error.items()}
        loss, gradients = learner.gradients(
            windows, cancelled=cancelled, clip_norm=self.config.clip_grad_norm, offset=offset
        )
        return loss, self.state.encode(round_number, gradients, lr)

    def fold(
        self, weights: Mapping[str, Tensor], updates: Sequence[Update[Body]], *, step: int, lr: float
    ) -> None:
        """See `psyche_train.fold.exact`; every direction is computed before the first weight changes."""
        steps = {}
        for i, grid in enumerate(self._codecs[self.tier].grids):
            ballots = [
                Ballot(self._codecs[update.header.tier].grids[i], update.body[i], update.header.tokens)
                for update in updates
            ]
            steps[grid.name] = direction(grid, ballots, votes=self.config.votes, device=self.fold_device)
        for name, weight in weights.items():
            apply_step(weight, steps[name], lr=lr, weight_decay=self.config.weight_decay)

    def settle(self, round_number: int, *, accepted: bool) -> None:
        """See `Strategy.settle`."""
        self.state.settle(round_number, accepted=accepted)

    def drop_before(self, round_number: int) -> None:
        """See `Strategy.drop_before`."""
        self.state.drop_before(round_number)

    def leave(self) -> None:
        """See `Strategy.leave`."""
        self.state.pending.clear()

    def clear(self) -> None:
        """Forget the error buffers and what was sent."""
        self.state.clear()

    def tensors(self) -> dict[str, Tensor]:
        """Error buffers and what was sent."""
        return self.state.tensors()

    def load_tensors(self, flat: Mapping[str, Tensor]) -> None:
        """See `Strategy.load_tensors`."""
        self.state.load_tensors(flat)
