"""Plain data-parallel AdamW, the baseline: whole fp32 gradients are exchanged, and the fold is the optimizer.

Decoupled weight decay (https://arxiv.org/abs/1711.05101). The moments are folded state. A gradient is clipped
by its sender. Four bytes a parameter and step: it measures the other strategies, it does not replace them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from psyche_train.fold.chunks import Grid
from psyche_train.fold.mean import MAX_MAGNITUDE, Mean, replace, rounded
from psyche_train.learner import Learner
from psyche_train.models.schema import Schema
from psyche_train.spec import AdamWOptimizer, TrainSpec
from psyche_train.strategies.base import Strategy
from psyche_train.strategies.header import UpdateError
from psyche_train.strategies.update import Update

Body = tuple[npt.NDArray[np.float32], ...]
FIRST, SECOND = "exp_avg", "exp_avg_sq"


class DenseCodec:
    """A body of fp32 tensors in schema order, little-endian, row by row; nothing between them.

    Args:
        grids: of the codec's tier.
    """

    def __init__(self, grids: tuple[Grid, ...]) -> None:
        self.grids = grids
        self.max_bytes = 4 * sum(math.prod(grid.shape) for grid in grids)
        """Length of every valid body."""

    def encode(self, body: Body) -> bytes:
        """Return the one encoding of a body."""
        return b"".join(values.astype("<f4", copy=False).tobytes() for values in body)

    def decode(self, data: bytes, at: int) -> Body:
        """Read the body that begins at byte `at`; the values stay views of `data`."""
        if len(data) - at != self.max_bytes:
            raise UpdateError("length", f"a body of {len(data) - at} bytes, not {self.max_bytes}")
        tensors = []
        for grid in self.grids:
            count = math.prod(grid.shape)
            values = np.frombuffer(data, dtype="<f4", count=count, offset=at)
            if not bool((np.abs(values) <= MAX_MAGNITUDE).all()):  # false for NaN, too
                raise UpdateError(
                    "number", f"{grid.name}: a gradient is not finite, or above {MAX_MAGNITUDE:g}"
                )
            tensors.append(values.reshape(grid.shape))
            at += 4 * count
        return tuple(tensors)


class AdamW(Strategy[Body]):
    """No own state. Folded state: both moments."""

    code = 3

    def __init__(
        self, config: AdamWOptimizer, spec: TrainSpec, schema: Schema, tier: int, device: torch.device
    ) -> None:
        super().__init__(spec, schema, tier, device)
        self.config = config

    def codec_of(self, grids: tuple[Grid, ...]) -> DenseCodec:
        """See `Strategy.codec_of`."""
        return DenseCodec(grids)

    @property
    def layout(self) -> Mapping[str, Any]:
        """The kind, and how much helpers sample."""
        return {"kind": "AdamW", **self.shares.layout}

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
        """See `Strategy.train`."""
        loss, gradients = learner.gradients(
            windows, cancelled=cancelled, clip_norm=self.config.clip_grad_norm
        )
        return loss, tuple(
            gradients[grid.name].clamp(-MAX_MAGNITUDE, MAX_MAGNITUDE).cpu().numpy().astype(np.float32)
            for grid in self.shares.trained(self.tier, epoch, round_number)
        )

    def fold(
        self, weights: Mapping[str, Tensor], updates: Sequence[Update[Body]], *, step: int, lr: float
    ) -> None:
        """One AdamW step with the mean gradient; where no update's width holds an entry, nothing changes.

        The factors are computed in float64 with operations that IEEE 754 fixes, and rounded once.
        """
        one, two = self.config.betas
        size = rounded(lr / (1.0 - power(one, step + 1)))
        root = rounded(1.0 / math.sqrt(1.0 - power(two, step + 1)))
        keep, eps = rounded(1.0 - lr * self.config.weight_decay), rounded(self.config.eps)
        covered = self.covered(updates)
        for i, grid in enumerate(self.shares.held(self.tier)):
            mean = Mean(grid, self.config.votes, self.fold_device)
            for sent, update in zip(covered, updates, strict=True):
                values = torch.from_numpy(update.body[i].copy())
                mean.add_dense(sent[i], values, update.header.tokens)
            gradient, reached = mean.result()
            first, second = (self.folded[f"{kind}/{grid.name}"] for kind in (FIRST, SECOND))
            new_first = first * rounded(one)
            new_first.add_(gradient * rounded(1.0 - one))
            square = gradient * gradient
            new_second = second * rounded(two)
            new_second.add_(square * rounded(1.0 - two))
            replace(first, new_first, reached)
            replace(second, new_second, reached)
            divisor = new_second.sqrt_()
            divisor.mul_(root)
            divisor.add_(eps)
            change = new_first.div_(divisor)
            change.mul_(size)
            weight = weights[grid.name]
            moved = weight.detach().to(self.fold_device) * keep
            replace(weight, moved.sub_(change), reached)

    def settle(self, round_number: int, *, accepted: bool) -> None:
        """There is no feedback: a gradient that was not accepted is lost."""

    def drop_before(self, round_number: int) -> None:
        """Nothing is kept."""

    def leave(self) -> None:
        """Nothing is kept."""

    def clear(self) -> None:
        """Nothing is kept."""

    def own_tensors(self) -> Iterator[Tensor]:
        """None."""
        return iter(())

    def tensors(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}

    def load_tensors(self, flat: Mapping[str, Tensor]) -> None:
        """Nothing to take."""


def power(base: float, exponent: int) -> float:
    """``base ** exponent`` by multiplications only: the same bits everywhere, which C's pow does not promise."""
    result = 1.0
    while exponent:
        if exponent & 1:
            result *= base
        base *= base
        exponent >>= 1
    return result
