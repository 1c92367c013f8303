"""From the accepted updates of a round to one signed step per weight, in exact integers.

For each coefficient the signs are summed and divided by a count (`votes`), in fixed point with 16 fractional
bits; then the inverse DCT with the integer basis: pass 1 down the columns, a rounding shift by 18 bits, pass
2 along the rows. Every product and partial sum stays below 2**53: with edge n, |m| <= 2**16, a row of the
basis has norm 2**20, so pass 1 is at most 2**36 * sqrt(2 n) and pass 2 at most 2**38 * 2 n <= 2**46 at
n = 128. A float64 matmul therefore computes the exact integers in whatever order it likes, and int64 gives
the same. All shifts and divisions are floors.
"""

# Shape letters: C = chunks, A = coefficients per chunk, r / s = rows / columns of a chunk.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from psyche_train.fold.basis import integer_basis
from psyche_train.fold.chunks import Grid, Int64s
from psyche_train.fold.mean import Votes

VOTE_BITS = 16
SHIFT_BITS = 18
_SLAB_COEFFICIENTS = 1 << 22
"""Dense coefficients transformed at a time; bounds memory, changes nothing."""


@dataclass(frozen=True, slots=True)
class Signs:
    """One tensor of one update: the coefficients that were sent."""

    keys: Int64s
    """int64, ``chunk * area + coefficient`` in the sender's grid, strictly ascending."""
    signs: npt.NDArray[np.int8]
    """int8, +1 or -1."""


@dataclass(frozen=True, slots=True)
class Ballot:
    """One tensor of one update, with the grid of the sender's width."""

    grid: Grid
    signs: Signs
    tokens: int = 1
    """Tokens that the update was trained on."""


def direction(
    grid: Grid,
    ballots: Sequence[Ballot],
    *,
    votes: Votes,
    dtype: torch.dtype = torch.float64,
    device: torch.device | None = None,
) -> Tensor:
    """Return the step's sign for every weight of one tensor: int8 of the grid's shape, -1, 0 or +1.

    Args:
        grid: of the width that is folded.
        ballots: the accepted updates of this tensor; their order does not matter.
        votes: divide by the members that sent a coefficient, or by all whose slice holds its chunk; or weigh
            each of those by its tokens.
        dtype: float64 or int64; the result is the same.
    """
    means = _means(grid, ballots, votes)
    step = torch.empty((grid.num_chunks, grid.chunk_rows, grid.chunk_columns), dtype=torch.int8)
    per_slab = max(1, _SLAB_COEFFICIENTS // grid.area)
    for start in range(0, grid.num_chunks, per_slab):
        slab = means[start : start + per_slab].to(device=device or torch.device("cpu"), dtype=dtype)
        step[start : start + per_slab] = _inverse(slab, grid).to("cpu")
    return grid.join(step)


def _means(grid: Grid, ballots: Sequence[Ballot], votes: Votes) -> Tensor:
    """Mean sign per coefficient in fixed point, int64 ``[C, r, s]``.

    With tokens below 2**32 and at most 2**8 members every number stays below 2**58.
    """
    size = grid.num_chunks * grid.area
    sums_A = np.zeros(size, dtype=np.int64)
    counts_A = np.zeros(size if votes == "senders" else grid.num_chunks, dtype=np.int64)
    for ballot in ballots:
        keys, held = grid.adopt(ballot.signs.keys, ballot.grid)
        weight = ballot.tokens if votes == "tokens" else 1
        sums_A[keys] += ballot.signs.signs[held] * np.int64(weight)  # keys of one sender are unique
        if votes == "senders":
            counts_A[keys] += 1
        else:
            counts_A += grid.held_by(ballot.grid) * np.int64(weight)
    if votes != "senders":
        counts_A = np.repeat(counts_A, grid.area)
    voted = np.nonzero(sums_A)[0]
    means_A = np.zeros(size, dtype=np.int64)
    counts = counts_A[voted]
    means_A[voted] = (sums_A[voted] * (2 << VOTE_BITS) + counts) // (2 * counts)
    return torch.from_numpy(means_A).reshape(grid.num_chunks, grid.chunk_rows, grid.chunk_columns)


def _inverse(means_Crs: Tensor, grid: Grid) -> Tensor:
    """Sign of the inverse DCT, int8 ``[C, r, s]``; chunks of one column take pass 1 only, unshifted."""
    down = integer_basis(grid.chunk_rows).to(means_Crs.device, means_Crs.dtype)
    first = torch.matmul(down.T.contiguous(), means_Crs)
    if grid.chunk_columns == 1:
        return first.sign().to(torch.int8)
    rounded = first + (1 << (SHIFT_BITS - 1))
    whole = first.dtype == torch.int64
    shifted = rounded >> SHIFT_BITS if whole else (rounded * 2.0**-SHIFT_BITS).floor_()
    across = integer_basis(grid.chunk_columns).to(means_Crs.device, means_Crs.dtype)
    return torch.matmul(shifted, across).sign().to(torch.int8)


def apply_step(parameter: Tensor, step: Tensor, *, lr: float, weight_decay: float) -> None:
    """Decay and move one fp32 tensor in place: two separate eager kernels, never fused.

    Args:
        step: int8 of the parameter's shape, from `direction`.
        lr: computed in float64; it and ``1 - lr * weight_decay`` are rounded to fp32 once, here.
    """
    rate = float(np.float32(lr))
    keep = float(np.float32(1.0 - lr * weight_decay))
    with torch.no_grad():
        parameter.mul_(keep)
        parameter.sub_(step.to(parameter.device, torch.float32) * rate)
