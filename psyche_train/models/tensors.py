"""One parameter of a model at every width: which part of it a MatFormer slice holds.

A tier's slice is the first ``1 / 2**tier`` of the feed-forward neurons along one axis. Where a model keeps
two projections in one tensor (gate above up), the axis consists of `groups` equal parts, and a slice holds
the first ``1 / 2**tier`` of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


class TierError(ValueError):
    """A tier that the model's width, the run or a checkpoint cannot serve."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One parameter."""

    name: str
    shape: tuple[int, ...]
    """At full width."""
    cut_axis: int | None
    """Axis of the feed-forward neurons; None for tensors that every tier holds whole."""
    groups: int = 1
    """Equal parts of `cut_axis` that are cut each by itself: 2 for gate and up in one tensor."""

    def shape_at(self, tier: int) -> tuple[int, ...]:
        """Shape of tier `tier`'s slice."""
        if self.cut_axis is None:
            return self.shape
        sizes = list(self.shape)
        sizes[self.cut_axis] >>= tier
        return tuple(sizes)

    def take(self, values: Tensor, tier: int, held: int = 0) -> Tensor:
        """Return tier `tier`'s slice of values that are at tier `held`'s width; a view where one is possible.

        Args:
            values: of `shape_at(held)`, ``held <= tier``.
        """
        return values if self.cut_axis is None else self._part(values, 0, self._width(tier), held)

    def added(self, values: Tensor, tier: int, held: int = 0) -> Tensor:
        """Return what tier `tier` has and ``tier + 1`` has not, of values at tier `held`'s width.

        Only for tensors that are cut.
        """
        return self._part(values, self._width(tier + 1), self._width(tier), held)

    def read(self, stored: Any, tier: int, held: int = 0) -> Tensor:
        """Read tier `tier`'s slice from a safetensors slice that holds tier `held`, and nothing else of it."""
        if self.cut_axis is None:
            return _read(stored, ())
        axis, apart = self.cut_axis, self._width(held)
        parts = [
            _read(stored, (*[slice(None)] * axis, slice(start, start + self._width(tier))))
            for start in range(0, self.groups * apart, apart)
        ]
        return parts[0] if self.groups == 1 else torch.cat(parts, dim=axis)

    def _width(self, tier: int) -> int:
        """Neurons of one group at tier `tier`."""
        assert self.cut_axis is not None
        return (self.shape[self.cut_axis] // self.groups) >> tier

    def _part(self, values: Tensor, start: int, stop: int, held: int) -> Tensor:
        axis = self.cut_axis
        assert axis is not None
        if self.groups == 1:
            return values.narrow(axis, start, stop - start)
        shape = values.shape
        grouped = values.reshape(*shape[:axis], self.groups, self._width(held), *shape[axis + 1 :])
        return grouped.narrow(axis + 1, start, stop - start).flatten(axis, axis + 1)


def _read(stored: Any, index: tuple[slice, ...]) -> Tensor:
    values: Tensor = stored[index]
    return values


@dataclass(frozen=True, slots=True)
class Normal:
    """First values: around zero, with this standard deviation."""

    deviation: float


@dataclass(frozen=True, slots=True)
class Constant:
    """First values: all the same."""

    value: float
