"""DisTrO behind the strategy interface: gradients, `DistroState`, the signs on the wire, the exact fold."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from psyche_train.fold.chunks import Grid
from psyche_train.fold.exact import Ballot, Signs, apply_step, direction
from psyche_train.fold.mean import replace
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
        self.state = DistroState(config, self.shares.held(tier), device)

    def codec_of(self, grids: tuple[Grid, ...]) -> PayloadLayout:
        """See `Strategy.codec_of`."""
        return PayloadLayout(grids, self.config.compression_topk, self.config.entropy)

    @property
    def layout(self) -> Mapping[str, Any]:
        """Kind, chunk, top-k, whether indices are entropy-coded, and how much helpers sample."""
        coded = {"entropy": True} if self.config.entropy else {}
        return {
            "kind": "Distro",
            "chunk": self.config.compression_chunk,
            "topk": self.config.compression_topk,
            **coded,
            **self.shares.layout,
        }

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
        """See `Strategy.train`.

        The gradient is taken at other weights with `lookahead` (less ``lr * sign(error)``) and with `ahead`
        (less the steps that `DistroState.expected` returns); both are taken off if both are on.
        """
        trained = self.shares.trained(self.tier, epoch, round_number)
        steps = self.state.expected(round_number) if self.config.ahead else {}
        offset = {grid.name: grid.take(steps[grid.name]) * lr for grid in trained if steps}
        if self.config.lookahead:
            for name, error in self.state.residual(trained).items():
                left = error.sign() * lr
                offset[name] = offset[name] + left if steps else left
        loss, gradients = learner.gradients(
            windows, cancelled=cancelled, clip_norm=self.config.clip_grad_norm, offset=offset or None
        )
        return loss, self.state.encode(round_number, gradients, lr, trained)

    def fold(
        self, weights: Mapping[str, Tensor], updates: Sequence[Update[Body]], *, step: int, lr: float
    ) -> None:
        """See `psyche_train.fold.exact`; every direction is computed before the first weight changes."""
        steps = {}
        covered = self.covered(updates)
        for i, grid in enumerate(self.shares.held(self.tier)):
            ballots = [
                Ballot(sent[i], update.body[i], update.header.tokens)
                for sent, update in zip(covered, updates, strict=True)
            ]
            steps[grid.name] = direction(grid, ballots, votes=self.config.votes, device=self.fold_device)
        for name, weight in weights.items():
            moved = weight.detach().to(self.fold_device)  # the weight itself, but for MPS
            apply_step(moved, steps[name], lr=lr, weight_decay=self.config.weight_decay)
            if moved.data_ptr() != weight.data_ptr():
                replace(weight, moved, None)

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

    def own_tensors(self) -> Iterator[Tensor]:
        """See `Strategy.own_tensors`."""
        yield from self.state.error.values()
        for kept in self.state.pending.values():
            for part in kept.values():
                yield part.keys
                yield part.values

    def tensors(self) -> dict[str, Tensor]:
        """Error buffers and what was sent."""
        return self.state.tensors()

    def load_tensors(self, flat: Mapping[str, Tensor]) -> None:
        """See `Strategy.load_tensors`."""
        self.state.load_tensors(flat)
