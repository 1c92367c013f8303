"""The sender's transform and selection, on tensors as they lie: no chunk is ever copied out of its tensor.

A tensor of R x S chunks of r x s is, without a copy, ``[R, r, S, s]``. So the transform down the columns is
one matrix product per row of chunks and the transform along the rows one for everything, and the coefficient
(a, b) of a chunk takes the place of its element (a, b): coefficients have the tensor's own shape.
None of this is shared with other members, so it need not be exact.
"""

# Shape letters: C = chunks, A = coefficients per chunk, K = kept per chunk, R / S = chunks down / across,
# r / s = rows / columns of a chunk.

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from psyche_train.fold.basis import real_basis
from psyche_train.fold.chunks import Grid

_BATCH = {"cpu": 1 << 19}
"""Elements transformed at a time: on a CPU what its cache holds, elsewhere `_LARGE_BATCH`."""
_LARGE_BATCH = 1 << 24
_SELECTED = 1 << 22
"""Coefficients among which is selected at a time; bounds memory."""


def inverse(coefficients: Tensor, grid: Grid) -> Tensor:
    """The values whose transform `coefficients` is: fp32 of the tensor's shape."""
    r, s = grid.chunk_rows, grid.chunk_columns
    down = real_basis(r).to(coefficients.device).T
    across = real_basis(s).to(coefficients.device)
    first = torch.matmul(down, coefficients.view(grid.rows, r, grid.columns * s))
    return torch.matmul(first.view(-1, s), across).view(grid.shape)


class Pool:
    """The coefficients of all tensors that have one chunk shape, in one buffer, so that one call selects in all.

    A line is what one row of one chunk has: `s` coefficients in a row.

    Args:
        grids: all of the same chunk shape.
        device: where the buffer lives.
    """

    def __init__(self, grids: Sequence[Grid], device: torch.device) -> None:
        self.grids = tuple(grids)
        self.rows, self.columns, self.area = grids[0].chunk_rows, grids[0].chunk_columns, grids[0].area
        sizes = [grid.num_chunks * grid.area for grid in grids]
        self.flat = torch.zeros(sum(sizes), dtype=torch.float32, device=device)
        self.tensors = {
            grid.name: part.view(grid.shape)
            for grid, part in zip(grids, torch.split(self.flat, sizes), strict=True)
        }
        """``name -> fp32`` of the tensor's shape: views of `flat`."""
        self.num_chunks = [grid.num_chunks for grid in grids]
        self.last_chunk = torch.tensor(self.num_chunks).cumsum(0) - 1
        """Of each tensor, counted through all of them."""
        starts = torch.tensor([0, *sizes]).cumsum(0) // self.columns
        chunk = [torch.arange(grid.num_chunks) for grid in grids]
        self._first_C = torch.cat(
            [
                starts[i] + chunk[i] // grid.columns * (self.rows * grid.columns) + chunk[i] % grid.columns
                for i, grid in enumerate(grids)
            ]
        ).to(device)
        """Each chunk's first line."""
        across = torch.tensor([grid.columns for grid in grids])
        self._stride_C = across.repeat_interleave(torch.tensor(self.num_chunks)).to(device)
        """Lines from one of its rows to the next."""
        self._key_C = torch.cat(chunk).to(device) * self.area
        self._batches = _batches(self.grids, _BATCH.get(device.type, _LARGE_BATCH))
        longest = max(batch[-1].end - batch[0].start for batch in self._batches)
        self._first = torch.empty(longest, dtype=torch.float32, device=device)
        """What the transform's first product leaves of a batch; kept, for fresh pages cost a part of a product."""
        self._peaks = torch.zeros(len(self.flat) // self.columns, dtype=torch.float32, device=device)
        """The largest magnitude of each line."""

    def accumulate(self, values: Mapping[str, Tensor], *, decay: float, rate: float) -> None:
        """``coefficients <- decay * coefficients + rate * DCT(values)``, in place, for every tensor.

        The transform is the orthonormal DCT-II of every chunk. Decay and sum happen inside its second product.

        Args:
            values: ``name -> fp32`` of the tensor's shape.
        """
        down = real_basis(self.rows).to(self.flat.device)
        across = real_basis(self.columns).to(self.flat.device).T
        for batch in self._batches:
            low, high = batch[0].start, batch[-1].end
            first = self._first[: high - low]
            for piece in batch:
                grid = piece.grid
                source = values[grid.name].reshape(grid.rows, self.rows, -1)[piece.rows]
                torch.matmul(down, source, out=first[piece.start - low : piece.end - low].view(source.shape))
            lines, first = self.flat[low:high].view(-1, self.columns), first.view(-1, self.columns)
            if self.columns == 1:
                lines.mul_(decay).add_(first, alpha=rate)
                continue
            lines.addmm_(first, across, beta=decay, alpha=rate)
            peaks = self._peaks[low // self.columns : high // self.columns]
            torch.maximum(lines.amax(1), lines.amin(1).neg_(), out=peaks)

    def take_largest(self, k: int) -> tuple[Tensor, Tensor]:
        """Take the `k` largest magnitudes of every chunk out, leaving zeros; of equal ones those of lower index.

        `accumulate` comes right before it: the peaks are those that it left.

        Where fewer than `k` of a chunk are not zero, which zeros come with them is not said.

        Returns:
            Keys, int64 ``[C, k]``, ``chunk of its tensor * area + coefficient``, ascending in a tensor; values,
            fp32 ``[C, k]``. Both on the CPU, the chunks of all tensors one after the other.
        """
        keys, values = [], []
        per_slab = max(1, _SELECTED // self.area)
        for start in range(0, len(self._first_C), per_slab):
            part = slice(start, start + per_slab)
            index_CK = self._largest(part, k)
            line_CK = self._lines(part, index_CK // self.columns)
            place_CK = line_CK * self.columns + index_CK % self.columns
            keys.append((self._key_C[part, None] + index_CK).cpu())
            values.append(self.flat[place_CK].cpu())
            self.flat[place_CK] = 0.0
        return torch.cat(keys), torch.cat(values)

    def _lines(self, part: slice, row_CK: Tensor) -> Tensor:
        """The lines of rows of the chunks of `part`."""
        return self._first_C[part, None] + row_CK * self._stride_C[part, None]

    def _whole(self, part: slice) -> Tensor:
        """All coefficients of the chunks of `part`, ``[C, A]``."""
        line_Cr = self._lines(part, torch.arange(self.rows, device=self.flat.device))
        return self.flat.view(-1, self.columns)[line_Cr].flatten(1)

    def _largest(self, part: slice, k: int) -> Tensor:
        if 4 * k > self.rows or self.columns == 1:
            return largest(self._whole(part), k)
        # The k largest of a chunk lie in the k rows with the largest peaks: each of these rows alone holds a
        # value above all others of the remaining rows, if the next peak is strictly smaller.
        line_Cr = self._lines(part, torch.arange(self.rows, device=self.flat.device))
        lines = self.flat.view(-1, self.columns)
        top = self._peaks[line_Cr].topk(k + 1, dim=1)
        row_CK = top.indices[:, :k].sort(dim=1).values
        found_CK = largest(lines[line_Cr.gather(1, row_CK)].flatten(1), k)
        index_CK = row_CK.gather(1, found_CK // self.columns) * self.columns + found_CK % self.columns
        tied = (top.values[:, k - 1] == top.values[:, k]) & (top.values[:, k] > 0)
        if bool(tied.any()):
            index_CK[tied] = largest(lines[line_Cr[tied]].flatten(1), k)
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


@dataclass(frozen=True, slots=True)
class _Piece:
    """Some rows of chunks of one tensor, and where they lie in the pool."""

    grid: Grid
    rows: slice
    start: int
    end: int


def _batches(grids: Sequence[Grid], size: int) -> list[list[_Piece]]:
    """Everything cut into pieces of at most `size` elements (or one row of chunks), small ones put together."""
    batches: list[list[_Piece]] = [[]]
    start = 0
    for grid in grids:
        row = grid.columns * grid.area
        for first in range(0, grid.rows, max(1, size // row)):
            rows = slice(first, min(grid.rows, first + max(1, size // row)))
            piece = _Piece(grid, rows, start, start + (rows.stop - rows.start) * row)
            if batches[-1] and piece.end - batches[-1][0].start > size:
                batches.append([])
            batches[-1].append(piece)
            start = piece.end
    return batches
