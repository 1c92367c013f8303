"""The AdamW of a member's own local steps: it changes the member's copy, never the shared weights.

It need not be exact, only the same on one machine, so its kernels may be fused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from psyche_train.fold.chunks import Grid
from psyche_train.spec import SparseLoCoOptimizer
from psyche_train.strategies.pending import read_buffers

FIRST, SECOND, STEPS = "inner/exp_avg", "inner/exp_avg_sq", "inner/steps"


class LocalAdamW:
    """First and second moments per tensor, fp32, and the number of steps taken.

    Args:
        config: the run's `[optimizer.SparseLoCo]`.
        first, second: ``name -> fp32``; changed in place.
    """

    def __init__(
        self, config: SparseLoCoOptimizer, first: dict[str, Tensor], second: dict[str, Tensor], steps: int
    ) -> None:
        self.config = config
        self.first = first
        self.second = second
        self.steps = steps

    @classmethod
    def fresh(cls, config: SparseLoCoOptimizer, grids: Sequence[Grid], device: torch.device) -> LocalAdamW:
        """No step taken."""
        zeros = [{grid.name: torch.zeros(grid.shape, device=device) for grid in grids} for _ in range(2)]
        return cls(config, zeros[0], zeros[1], 0)

    @classmethod
    def read(
        cls,
        config: SparseLoCoOptimizer,
        flat: Mapping[str, Tensor],
        grids: Sequence[Grid],
        device: torch.device,
    ) -> LocalAdamW:
        """Take what `tensors` returned.

        Raises:
            ValueError: a tensor is missing or has another shape.
        """
        steps = flat.get(STEPS)
        if steps is None or steps.numel() != 1 or int(steps) < 0:
            raise ValueError(f"the saved {STEPS} is missing or no count")
        first, second = (
            {
                name: buffer.to(device, torch.float32)
                for name, buffer in read_buffers(flat, kind, grids).items()
            }
            for kind in (FIRST, SECOND)
        )
        return cls(config, first, second, int(steps))

    def tensors(self) -> dict[str, Tensor]:
        """Everything as flat CPU tensors."""
        flat = {f"{FIRST}/{name}": value.cpu().contiguous() for name, value in self.first.items()}
        flat |= {f"{SECOND}/{name}": value.cpu().contiguous() for name, value in self.second.items()}
        return {**flat, STEPS: torch.tensor([self.steps], dtype=torch.int64)}

    def copy(self, trained: Sequence[Grid]) -> LocalAdamW:
        """A copy for what is trained in a round, which can be thrown away or `put` back."""
        first, second = (
            {grid.name: grid.take(buffers[grid.name]).clone() for grid in trained}
            for buffers in (self.first, self.second)
        )
        return LocalAdamW(self.config, first, second, self.steps)

    def put(self, trained: Sequence[Grid], moved: LocalAdamW) -> None:
        """Take the moments of a copy that has taken its steps."""
        for grid in trained:
            grid.put(self.first[grid.name], moved.first[grid.name])
            grid.put(self.second[grid.name], moved.second[grid.name])
        self.steps = moved.steps

    @torch.no_grad()
    def step(self, weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor], lr: float) -> None:
        """Move `weights` in place; weight decay is decoupled (https://arxiv.org/abs/1711.05101)."""
        one, two = self.config.betas
        self.steps += 1
        size = lr / (1 - one**self.steps)
        root = 1 / math.sqrt(1 - two**self.steps)
        for name, weight in weights.items():
            gradient = gradients[name]
            first = self.first[name].mul_(one).add_(gradient, alpha=1 - one)
            second = self.second[name].mul_(two).addcmul_(gradient, gradient, value=1 - two)
            weight.mul_(1 - lr * self.config.weight_decay)
            weight.addcdiv_(first, second.sqrt().mul_(root).add_(self.config.eps), value=-size)
