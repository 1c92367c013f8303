"""The weights that a member holds, and the learner that trains with them.

Without helper mode they are the same tensors. A member in helper mode holds the full model, and its learner
has the width of slice and sample: before it trains, the neurons that it trains in that round are copied in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property

import torch
from torch import Tensor

from psyche_train.fold.chunks import Grid
from psyche_train.learner import Learner
from psyche_train.matformer.helper import Shares

Build = Callable[[int, Mapping[str, Tensor]], Learner]
"""Makes a learner of so many feed-forward neurons, whose output is scaled for that width, from its weights."""


class Holding:
    """What a member holds is what it trains."""

    def __init__(self, learner: Learner) -> None:
        self.learner = learner
        self.weights: Mapping[str, Tensor] = learner.weights
        """``name -> fp32`` in schema order; only the fold changes them."""

    @cached_property
    def stored(self) -> Mapping[str, Tensor]:
        """Everything that a checkpoint holds: the weights, then the model's constants."""
        return {**self.weights, **self.learner.constants}

    def ready(self, trained: Sequence[Grid]) -> Learner:
        """Return the learner, with the current weights of what is trained."""
        return self.learner

    def copy_weights(self, source: Mapping[str, Tensor]) -> None:
        """Overwrite all that is held, bit for bit."""
        self.learner.copy_weights(source)

    def loss(self, windows: Tensor) -> float:
        """Mean loss per token of the member's slice, without a gradient."""
        return self.learner.loss(windows)


class HelperHolding(Holding):
    """The full model, and a learner of slice and sample.

    Tensors that no slice cuts are there once, in the learner; the others twice, at full width and at the
    learner's.

    Args:
        weights: ``name -> fp32`` at full width; copied.
        trained: grids of some round; only their sizes matter here.
        own: grids of the tier's slice.
        widths: feed-forward neurons that are trained, and those of the slice.
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        *,
        trained: Sequence[Grid],
        own: Sequence[Grid],
        widths: tuple[int, int],
        build: Build,
    ) -> None:
        super().__init__(build(widths[0], Taken(weights, trained)))
        self._own, self._build, self._own_width = own, build, widths[1]
        self._cut = frozenset(grid.name for grid in trained if not grid.is_prefix)
        device = self.learner.device
        self.weights = {
            name: weights[name].detach().to(device, torch.float32, copy=True) if name in self._cut else weight
            for name, weight in self.learner.weights.items()
        }

    @torch.no_grad()
    def copy_weights(self, source: Mapping[str, Tensor]) -> None:
        """Overwrite all that is held, bit for bit."""
        for name, value in self.stored.items():
            value.copy_(source[name])

    @torch.no_grad()
    def ready(self, trained: Sequence[Grid]) -> Learner:
        """Return the learner, with the current weights of what is trained."""
        for grid in trained:
            if grid.name in self._cut:
                self.learner.weights[grid.name].copy_(grid.take(self.weights[grid.name]))
        return self.learner

    def loss(self, windows: Tensor) -> float:
        """Mean loss per token of the tier's slice alone, as its export would have it."""
        return self._build(self._own_width, Taken(self.stored, self._own)).loss(windows)


class Taken(Mapping[str, Tensor]):
    """The part of wider weights that some grids name, each tensor cut when it is asked for; others whole."""

    def __init__(self, weights: Mapping[str, Tensor], grids: Sequence[Grid]) -> None:
        self._weights = weights
        self._grids = {grid.name: grid for grid in grids}

    def __getitem__(self, name: str) -> Tensor:
        values = self._weights[name].detach()
        return self._grids[name].take(values) if name in self._grids else values

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)


def hold(shares: Shares, tier: int, full_width: int, weights: Mapping[str, Tensor], build: Build) -> Holding:
    """Return what a member of a tier holds.

    Args:
        full_width: feed-forward neurons of the full model.
        weights: ``name -> fp32`` of what is held (`Shares.held`); copied.
    """
    if shares.helper is None or tier == 0:
        return Holding(build(full_width >> tier, weights))
    return HelperHolding(
        weights,
        trained=shares.trained(tier, 0, 0),
        own=shares.own(tier),
        widths=(shares.helper.width(tier), full_width >> tier),
        build=build,
    )
