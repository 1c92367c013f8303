"""Means of updates in fp32, chunk by chunk: element-wise kernels only, one update after the other.

Each product, sum and quotient is one IEEE 754 operation in a kernel of its own, and updates are added in slot
order, so every device and thread count gets the same bits. Quotients divide a tensor by a tensor: by a number,
CUDA would multiply with the reciprocal.
"""

# Shape letters: C = chunks, A = entries per chunk.

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from psyche_train.fold.chunks import Grid, Int64s

Votes = Literal["senders", "holders", "tokens"]
MAX_MAGNITUDE = 2.0**40
"""Largest value that an update may hold: 256 of them, times 2**32 tokens, squared, stay finite."""


class Mean:
    """The mean of one tensor's updates at one width.

    Args:
        grid: of the width that is folded.
        votes: divide an entry by the members that sent it, by all whose slice holds it, or weigh those by
            their tokens.
        device: where it is computed.
    """

    def __init__(self, grid: Grid, votes: Votes, device: torch.device) -> None:
        self.grid = grid
        self.votes = votes
        self.device = device
        self._sum_CA = torch.zeros(grid.num_chunks, grid.area, dtype=torch.float32, device=device)
        self._weight_C = np.zeros(grid.num_chunks, dtype=np.int64)
        self._senders_CA = torch.zeros_like(self._sum_CA) if votes == "senders" else None

    def add_sparse(self, sender: Grid, keys: Int64s, values: Tensor, tokens: int) -> None:
        """Add entries of one update.

        Args:
            sender: the grid of the update's width.
            keys: int64, unique, in that grid.
            values: fp32 on any device, beside `keys`.
        """
        own, held = self.grid.adopt(keys, sender)
        at = torch.from_numpy(own).to(self.device)
        part = values[torch.from_numpy(held).to(values.device)].to(self.device)
        flat = self._sum_CA.view(-1)
        flat[at] = flat[at] + self._weighted(part, tokens)
        if self._senders_CA is not None:
            counts = self._senders_CA.view(-1)
            counts[at] = counts[at] + 1.0
        self._count(sender, tokens)

    def add_dense(self, sender: Grid, values: Tensor, tokens: int) -> None:
        """Add a whole update: fp32 of the sender's shape."""
        first = np.arange(sender.num_chunks, dtype=np.int64) * sender.area
        own, held = self.grid.adopt(first, sender)
        at = torch.from_numpy(own // self.grid.area).to(self.device)
        part_CA = sender.split(values).flatten(1)[torch.from_numpy(held).to(values.device)].to(self.device)
        self._sum_CA[at] = self._sum_CA[at] + self._weighted(part_CA, tokens)
        self._count(sender, tokens)

    def result(self) -> tuple[Tensor, Tensor | None]:
        """The mean, fp32 of the tensor's shape, and where some update's width holds the tensor.

        The second is bool of the same shape, or None if that is everywhere. Elsewhere the mean is zero.
        """
        if self._senders_CA is not None:
            mean_CA = self._sum_CA / self._senders_CA.clamp(min=1.0)
        else:
            divisor_C = torch.from_numpy(np.maximum(self._weight_C, 1).astype(np.float32)).to(self.device)
            mean_CA = self._sum_CA / divisor_C[:, None]
        covered_C = torch.from_numpy(self._weight_C > 0)
        covered = None
        if not bool(covered_C.all()):
            covered = self._join(covered_C.to(self.device)[:, None].expand_as(mean_CA))
        return self._join(mean_CA), covered

    def _weighted(self, values: Tensor, tokens: int) -> Tensor:
        return values * float(np.float32(tokens)) if self.votes == "tokens" else values

    def _count(self, sender: Grid, tokens: int) -> None:
        self._weight_C += self.grid.held_by(sender) * (tokens if self.votes == "tokens" else 1)

    def _join(self, values_CA: Tensor) -> Tensor:
        return self.grid.join(
            values_CA.reshape(self.grid.num_chunks, self.grid.chunk_rows, self.grid.chunk_columns)
        )


def replace(target: Tensor, values: Tensor, covered: Tensor | None) -> None:
    """Overwrite a tensor in place, bit for bit, where `covered` says so; everywhere if it is None."""
    kept = values if covered is None else torch.where(covered, values, target.to(values.device))
    with torch.no_grad():
        target.copy_(kept)


def rounded(value: float) -> float:
    """A float64 rounded to fp32 once."""
    return float(np.float32(value))
