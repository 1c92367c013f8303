"""What a member keeps in memory: its slice of everything, and nothing of the rest.

Counted are the tensors that stay, and the gradient of a step. Activations depend on the batch and on how the
model is computed; the scratch of encoding and folding is a few times the largest tensor. Neither is counted.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from psyche_train.fold.chunks import Grid
from psyche_train.matformer.helper import Shares
from psyche_train.matformer.holding import Holding
from psyche_train.models.schema import Schema
from psyche_train.spec import AdamWOptimizer, SparseLoCoOptimizer, TrainSpec
from psyche_train.strategies.base import Strategy

MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes by purpose."""

    weights: int
    """What is held; in helper mode also the copy of what is trained."""
    own: int
    """Error buffers, a local optimizer, and what was sent and is not decided."""
    folded: int
    """Momenta of the fold."""
    gradient: int
    """Of one step."""

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.own + self.folded + self.gradient


def expected(spec: TrainSpec, schema: Schema, tier: int, shares: Shares | None = None) -> Memory:
    """Compute a member's memory from shapes alone; what was sent and is not decided is left out.

    Raises:
        TierError: the model has no such tier, or helper mode does not fit it.
    """
    shares = shares or Shares(spec, schema)
    held, trained = shares.held(tier), shares.trained(tier, 0, 0)
    buffers = {AdamWOptimizer: 0, SparseLoCoOptimizer: 3}.get(type(spec.optimizer.chosen), 1)
    copied = 0 if shares.held_tier(tier) == tier else _bytes(grid for grid in trained if not grid.is_prefix)
    return Memory(
        weights=_bytes(held) + copied,
        own=buffers * _bytes(held),
        folded=len(spec.optimizer.chosen.folded) * _bytes(held),
        gradient=_bytes(trained),
    )


def measured(holding: Holding, strategy: Strategy[Any], trained: int) -> Memory:
    """Count the tensors that are there; of several ranks, those of the first.

    Args:
        trained: parameters that are trained, each with a gradient during a step.
    """
    return Memory(
        weights=num_bytes([*holding.weights.values(), *holding.learner.weights.values()]),
        own=num_bytes(strategy.own_tensors()),
        folded=num_bytes(strategy.folded_tensors()),
        gradient=4 * trained,
    )


def num_bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of the memory behind tensors; what several share counts once."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


def free_bytes(device: torch.device) -> int | None:
    """Memory that a new process could have on a device; None where the system does not say.

    On the CPU that is what Linux calls available, and swap, within the limit of the control group.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        free = sum(int(fields[name].split()[0]) << 10 for name in ("MemAvailable", "SwapFree"))
    except (OSError, ValueError, KeyError, IndexError):
        return _free_without_proc()
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = (group / "memory.max").read_text(), (group / "memory.current").read_text()
        return min(free, max(0, int(limit) - int(used)))
    except (OSError, ValueError):
        return free


def fitting_tier(spec: TrainSpec, schema: Schema, tier: int, free: int) -> int | None:
    """The first tier above `tier` whose tensors fit into `free` bytes; None if none does."""
    shares = Shares(spec, schema)
    tiers = range(tier + 1, schema.max_tier + 1)
    return next((other for other in tiers if expected(spec, schema, other, shares).total <= free), None)


def shortage(spec: TrainSpec, schema: Schema, tier: int, device: torch.device) -> str | None:
    """Say that a tier does not fit into the free memory, and which one would; None if it fits."""
    free, needed = free_bytes(device), expected(spec, schema, tier).total
    if free is None or needed <= free:
        return None
    other = fitting_tier(spec, schema, tier, free)
    advice = (
        f"tier {other} needs {mib(expected(spec, schema, other).total)}: use --tier {other}"
        if other is not None
        else "no smaller tier of this run fits either: free memory, or use a larger machine"
    )
    return (
        f"tier {tier} needs {mib(needed)} for weights, buffers and gradients (activations come on top), "
        f"{mib(free)} are free on {device}; {advice}"
    )


def mib(size: int) -> str:
    """Bytes as MiB."""
    return f"{size / MIB:,.1f} MiB"


def _bytes(grids: Iterable[Grid]) -> int:
    return 4 * sum(math.prod(grid.shape) for grid in grids)


def _free_without_proc() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
