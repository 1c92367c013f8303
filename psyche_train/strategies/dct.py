"""The sender's transform and selection, on tensors as they lie: no chunk is ever copied out of its tensor.

A tensor of R x S chunks of r x s is, without a copy, ``[R, r, S, s]``. So the transform down the columns is
one matrix product per row of chunks and the transform along the rows one for everything, and the coefficient
(a, b) of a chunk takes the place of its element (a, b): coefficients have the tensor's own shape.
None of this is shared with other members, so it need not be exact.
"""

# Shape letters: C = chunks, A = coefficients per chunk, K = kept per chunk, R / S = chunks down / across,
# r / s = rows / columns of a chunk.

from __future__ import annotations

import torch
from torch import Tensor

from psyche_train.fold.basis import real_basis
from psyche_train.fold.chunks import Grid

_SLAB = {"cpu": 1 << 18}
"""Elements transformed at a time: on a CPU what its cache holds, elsewhere `_LARGE_SLAB`."""
_LARGE_SLAB = 1 << 24


def accumulate(coefficients: Tensor, values: Tensor, grid: Grid, *, decay: float, rate: float) -> None:
    """``coefficients <- decay * coefficients + rate * DCT(values)``, in place.

    The transform is the orthonormal DCT-II of every chunk. Decay and sum happen inside its second product.

    Args:
        coefficients: fp32, contiguous, of the tensor's shape.
        values: fp32, of the tensor's shape.
    """
    r, s = grid.chunk_rows, grid.chunk_columns
    down = real_basis(r).to(values.device)
    across = real_basis(s).to(values.device).T
    into = coefficients.view(grid.rows, r, grid.columns * s)
    values = values.reshape(into.shape)
    for part in _slabs(grid, values.device):
        first = torch.matmul(down, values[part])
        if s == 1:
            into[part].mul_(decay).add_(first, alpha=rate)
        else:
            into[part].view(-1, s).addmm_(first.view(-1, s), across, beta=decay, alpha=rate)


def inverse(coefficients: Tensor, grid: Grid) -> Tensor:
    """The values whose transform `coefficients` is: fp32 of the tensor's shape."""
    r, s = grid.chunk_rows, grid.chunk_columns
    down = real_basis(r).to(coefficients.device).T
    across = real_basis(s).to(coefficients.device)
    first = torch.matmul(down, coefficients.view(grid.rows, r, grid.columns * s))
    return torch.matmul(first.view(-1, s), across).view(grid.shape)


def largest_of_chunks(coefficients: Tensor, grid: Grid, k: int) -> Tensor:
    """For every chunk the indices of its `k` largest magnitudes, ascending; equal ones keep the lower index.

    Where fewer than `k` coefficients of a chunk are not zero, which zeros fill the row is not said.

    Args:
        coefficients: fp32, contiguous, of the tensor's shape.

    Returns:
        int64 ``[C, k]``.
    """
    r, s = grid.chunk_rows, grid.chunk_columns
    blocks = coefficients.view(grid.rows, r, grid.columns, s)
    if 4 * k > r or s == 1:
        return largest(blocks.transpose(1, 2).reshape(grid.num_chunks, grid.area), k)
    # The k largest of a chunk lie in the k rows with the largest peaks: each of these rows alone holds a
    # value above all others of the remaining rows, if the next peak is strictly smaller.
    low, high = torch.aminmax(blocks, dim=3)
    peak_Cr = torch.maximum(high, low.neg_()).transpose(1, 2).reshape(grid.num_chunks, r)
    top = peak_Cr.topk(k + 1, dim=1)
    row_CK = top.indices[:, :k].sort(dim=1).values
    chunk_C = torch.arange(grid.num_chunks, device=coefficients.device)
    across_C, down_C = chunk_C % grid.columns, chunk_C // grid.columns
    line_CK = ((down_C * r)[:, None] + row_CK) * grid.columns + across_C[:, None]
    lines = coefficients.view(-1, s).index_select(0, line_CK.flatten())
    found_CK = largest(lines.view(grid.num_chunks, k * s), k)
    index_CK = row_CK.gather(1, found_CK // s) * s + found_CK % s
    tied = ((top.values[:, k - 1] == top.values[:, k]) & (top.values[:, k] > 0)).nonzero()[:, 0]
    if len(tied):
        index_CK[tied] = largest(blocks[down_C[tied], :, across_C[tied]].flatten(1), k)
    return index_CK


def largest(values_CA: Tensor, k: int) -> Tensor:
    """Indices of the `k` largest magnitudes of each row, ascending; equal magnitudes keep the lower index.

    Args:
        values_CA: fp32 ``[C, A]``, ``A >= k``.

    Returns:
        int64 ``[C, k]``.
    """
    size_CA = values_CA.abs()
    if k == size_CA.shape[1]:
        return torch.arange(k, device=size_CA.device).expand(size_CA.shape[0], k)
    top = size_CA.topk(k + 1, dim=1)
    index_CK = top.indices[:, :k].sort(dim=1).values
    tied = (top.values[:, k - 1] == top.values[:, k]).nonzero()[:, 0]
    if len(tied):  # topk breaks ties as it likes: do those rows again with a stable sort
        order = size_CA[tied].sort(dim=1, descending=True, stable=True).indices
        index_CK[tied] = order[:, :k].sort(dim=1).values
    return index_CK


def _slabs(grid: Grid, device: torch.device) -> list[slice]:
    """Consecutive rows of chunks, some at a time."""
    elements = grid.chunk_rows * grid.columns * grid.chunk_columns
    per_slab = max(1, _SLAB.get(device.type, _LARGE_SLAB) // elements)
    return [slice(start, start + per_slab) for start in range(0, grid.rows, per_slab)]
