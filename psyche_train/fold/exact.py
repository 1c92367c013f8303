"""From the accepted updates of a round to one signed step per weight, in exact integers.

For each coefficient the signs are summed and divided by a count (`votes`), in fixed point with 16 fractional
bits; then the inverse DCT with the integer basis: pass 1 down the columns, a rounding shift by 18 bits, pass
2 along the rows. Every product and partial sum stays below 2**53: with edge n, |m| <= 2**16, a row of the
basis has norm 2**20, so pass 1 is at most 2**36 * sqrt(2 n) and pass 2 at most 2**38 * 2 n <= 2**46 at
n = 128. These bounds hold for the sums of magnitudes, so for every partial sum too: a float64 matmul computes
the exact integers in whatever order it likes, zeros left out or not, and int64 gives the same. All shifts and
divisions are floors.
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
_SLAB_COEFFICIENTS = 1 << 17
"""Coefficients transformed at a time: what a CPU's cache holds; changes nothing."""


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

    Chunks for which nothing was sent, or whose votes cancel, are not computed: their step is 0.

    Args:
        grid: of the width that is folded.
        ballots: the accepted updates of this tensor; their order does not matter.
        votes: divide by the members that sent a coefficient, or by all whose slice holds its chunk; or weigh
            each of those by its tokens.
        dtype: float64, or int64 for a second, dense computation of the same.
        device: where to compute and where the result is; the CPU unless given.
    """
    device = device or torch.device("cpu")
    keys, means = _means(grid, ballots, votes)
    chunk = keys // grid.area
    first = np.flatnonzero(np.diff(chunk, prepend=-1))  # where a chunk's keys begin
    step = torch.zeros(
        (grid.num_chunks, grid.chunk_rows, grid.chunk_columns), dtype=torch.int8, device=device
    )
    inverse = _dense if dtype == torch.int64 else _sparse
    per_slab = max(1, _SLAB_COEFFICIENTS // grid.area)
    for start in range(0, len(first), per_slab):
        begin = first[start]
        end = first[start + per_slab] if start + per_slab < len(first) else len(keys)
        touched, slot = np.unique(chunk[begin:end], return_inverse=True)
        local = slot * grid.area + keys[begin:end] % grid.area
        signs_Crs = inverse(local, means[begin:end], len(touched), grid, device)
        if len(touched) == touched[-1] - touched[0] + 1:
            step[touched[0] : touched[-1] + 1] = signs_Crs
        else:
            step[torch.from_numpy(touched).to(device)] = signs_Crs
    return grid.join(step)


def _means(grid: Grid, ballots: Sequence[Ballot], votes: Votes) -> tuple[Int64s, Int64s]:
    """Mean sign in fixed point of every coefficient whose votes do not cancel: keys, ascending, and means.

    With tokens below 2**32 and at most 2**8 members every number of the mean stays below 2**58. A vote is
    sorted as one number: key, then ballot, then sign.
    """
    bits = len(ballots).bit_length()
    codes, counts_C = [np.empty(0, dtype=np.int64)], np.zeros(grid.num_chunks, dtype=np.int64)
    weight_of: dict[Grid, int] = {}
    weights = np.array([ballot.tokens if votes == "tokens" else 1 for ballot in ballots], dtype=np.int64)
    for number, ballot in enumerate(ballots):
        keys, held = grid.adopt(ballot.signs.keys, ballot.grid)
        codes.append((keys << bits | number) << 1 | (ballot.signs.signs[held] < 0))
        if votes != "senders":
            weight_of[ballot.grid] = weight_of.get(ballot.grid, 0) + int(weights[number])
    for sender, total in weight_of.items():  # most members have one width
        counts_C += grid.held_by(sender) * np.int64(total)
    code = np.sort(np.concatenate(codes))
    first = np.flatnonzero(np.diff(code >> bits + 1, prepend=-1))
    if len(first) == 0:
        return code, code
    weight = weights[code >> 1 & (1 << bits) - 1]
    sums = np.add.reduceat(np.where(code & 1, -weight, weight), first)
    voted = sums != 0
    keys, sums, senders = (
        (code[first] >> bits + 1)[voted],
        sums[voted],
        np.diff(first, append=len(code))[voted],
    )
    count = senders if votes == "senders" else counts_C[keys // grid.area]
    return keys, (sums * (2 << VOTE_BITS) + count) // (2 * count)


def _sparse(keys: Int64s, means: Int64s, chunks: int, grid: Grid, device: torch.device) -> Tensor:
    """Sign of the inverse DCT in float64, from the columns in which anything was sent.

    Pass 1 transforms only those columns and pass 2 sums only over them: what is left out is zero. Each chunk
    gets as many places for columns as the fullest chunk needs; an unused place holds zeros.

    Args:
        keys: int64, ``chunk * area + coefficient``, chunk in ``0 .. chunks - 1``.

    Returns:
        int8 ``[chunks, r, s]``.
    """
    r, s = grid.chunk_rows, grid.chunk_columns
    chunk, coefficient = np.divmod(keys, grid.area)
    row, column = np.divmod(coefficient, s)
    used_Cs = np.zeros((chunks, s), dtype=np.bool_)
    used_Cs[chunk, column] = True
    place_Cs = used_Cs.cumsum(axis=1) - 1
    places = int(place_Cs[:, -1].max()) + 1
    at = chunk * places + place_Cs[chunk, column]
    column_of = np.zeros(chunks * places, dtype=np.int64)
    column_of[at] = column
    down = integer_basis(r).to(device, torch.float64)
    means_Pr = torch.zeros((chunks * places, r), dtype=torch.float64, device=device)
    means_Pr.view(-1)[torch.from_numpy(at * r + row).to(device)] = torch.from_numpy(means).to(device).double()
    if s == 1:
        return torch.mm(means_Pr, down).sign_().to(torch.int8).view(chunks, r, 1)
    # The shift is in the basis: dividing by a power of two moves no bit. floor(x + 1/2) as in the definition.
    first_Pr = torch.mm(means_Pr, down * 2.0**-SHIFT_BITS).add_(0.5).floor_()
    across = integer_basis(s).to(device, torch.float64)
    across_Cps = across[torch.from_numpy(column_of).to(device)].view(chunks, places, s)
    second = torch.bmm(first_Pr.view(chunks, places, r).transpose(1, 2), across_Cps)
    return second.sign_().to(torch.int8)


def _dense(keys: Int64s, means: Int64s, chunks: int, grid: Grid, device: torch.device) -> Tensor:
    """`_sparse` by the letter of the definition: dense, in int64."""
    means_A = torch.zeros(chunks * grid.area, dtype=torch.int64, device=device)
    means_A[torch.from_numpy(keys).to(device)] = torch.from_numpy(means).to(device)
    means_Crs = means_A.view(chunks, grid.chunk_rows, grid.chunk_columns)
    first = torch.matmul(integer_basis(grid.chunk_rows).to(device).T.contiguous(), means_Crs)
    if grid.chunk_columns == 1:
        return first.sign().to(torch.int8)
    shifted = (first + (1 << (SHIFT_BITS - 1))) >> SHIFT_BITS
    return torch.matmul(shifted, integer_basis(grid.chunk_columns).to(device)).sign().to(torch.int8)


def apply_step(parameter: Tensor, step: Tensor, *, lr: float, weight_decay: float) -> None:
    """Decay and move one fp32 tensor in place: two separate eager kernels, never fused.

    The second multiplies and subtracts in one: the product of lr with -1, 0 or +1 is exact, so that it rounds
    once, whether its machine code contracts the two or not. The decay's product is not, so it is a kernel of
    its own.

    Args:
        step: int8 of the parameter's shape, from `direction`.
        lr: computed in float64; it and ``1 - lr * weight_decay`` are rounded to fp32 once, here.
    """
    rate = float(np.float32(lr))
    keep = float(np.float32(1.0 - lr * weight_decay))
    with torch.no_grad():
        parameter.mul_(keep)
        parameter.sub_(step.to(parameter.device), alpha=rate)
