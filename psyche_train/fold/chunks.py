"""The chunk grid: how a tensor is cut into DCT chunks, the same way at every width.

Each of the last two dimensions is cut by the largest divisor, not above `compression_chunk`, of the
*smallest* tier's size of that dimension. Leading dimensions are merged into the rows; a one-dimensional
tensor is one column. So a slice's grid consists of whole rows and whole columns of the full grid: the first
ones, and for a member in helper mode some of those behind them too (`psyche_train.matformer.helper`).
"""

# Shape letters: C = chunks, R / S = chunk rows / columns in the grid, r / s = rows / columns of a chunk.

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from psyche_train.models.schema import Schema, TensorSpec

Int64s = npt.NDArray[np.int64]
Numbers = tuple[int, ...] | None
"""Which rows or columns of the full grid a grid consists of, ascending; None: the first ones."""


@dataclass(frozen=True, slots=True)
class Grid:
    """One tensor's chunks at one width."""

    name: str
    shape: tuple[int, ...]
    rows: int
    """Chunks down."""
    columns: int
    """Chunks across."""
    chunk_rows: int
    chunk_columns: int
    row_numbers: Numbers = None
    column_numbers: Numbers = None

    @property
    def num_chunks(self) -> int:
        """Chunks of the tensor."""
        return self.rows * self.columns

    @property
    def area(self) -> int:
        """Coefficients of a chunk."""
        return self.chunk_rows * self.chunk_columns

    def split(self, tensor: Tensor) -> Tensor:
        """``[*shape]`` to ``[C, r, s]``, chunks row by row."""
        grid = tensor.reshape(self.rows, self.chunk_rows, self.columns, self.chunk_columns)
        return grid.transpose(1, 2).reshape(self.num_chunks, self.chunk_rows, self.chunk_columns)

    def join(self, chunks_Crs: Tensor) -> Tensor:
        """The inverse of `split`."""
        grid = chunks_Crs.reshape(self.rows, self.columns, self.chunk_rows, self.chunk_columns)
        return grid.transpose(1, 2).reshape(self.shape)

    def places(self, keys: Tensor) -> Tensor:
        """Where in the flat tensor each coefficient's own place in its chunk is.

        Args:
            keys: int64, ``chunk * area + coefficient``.

        Returns:
            int64, as many.
        """
        chunk, coefficient = keys // self.area, keys % self.area
        row = chunk // self.columns * self.chunk_rows + coefficient // self.chunk_columns
        column = chunk % self.columns * self.chunk_columns + coefficient % self.chunk_columns
        return row * (self.columns * self.chunk_columns) + column

    def adopt(self, keys: Int64s, sender: Grid) -> tuple[Int64s, npt.NDArray[np.bool_]]:
        """Translate another width's coefficient numbers into this grid's.

        Args:
            keys: int64, ``chunk * area + coefficient`` in `sender`'s grid.

        Returns:
            The same coefficients in this grid, and which of `keys` it has at all.
        """
        if self.is_cut_like(sender):
            return keys, np.ones(len(keys), dtype=np.bool_)
        chunk, coefficient = np.divmod(keys, self.area)
        sent_row, sent_column = np.divmod(chunk, sender.columns)
        row = _places(self._rows(), sender._rows())[sent_row]
        column = _places(self._columns(), sender._columns())[sent_column]
        held = (row >= 0) & (column >= 0)
        return ((row * self.columns + column) * self.area + coefficient)[held], held

    def held_by(self, sender: Grid) -> npt.NDArray[np.bool_]:
        """Which of this grid's chunks a member of `sender`'s width holds, bool ``[C]``."""
        row = _places(sender._rows(), self._rows()) >= 0
        column = _places(sender._columns(), self._columns()) >= 0
        held: npt.NDArray[np.bool_] = (row[:, None] & column[None, :]).reshape(-1)
        return held

    def is_cut_like(self, other: Grid) -> bool:
        """Whether both consist of the same rows and columns of the full grid."""
        return (self.rows, self.columns, self.row_numbers, self.column_numbers) == (
            other.rows,
            other.columns,
            other.row_numbers,
            other.column_numbers,
        )

    @property
    def is_prefix(self) -> bool:
        """Whether these are the first rows and columns of the full grid."""
        return self.row_numbers is None and self.column_numbers is None

    def take(self, wider: Tensor) -> Tensor:
        """This grid's part of a tensor of full width: ``[*shape]``; the tensor itself if it is whole."""
        if wider.shape == self.shape:
            return wider
        rows, columns = self._index(wider.device)
        return self._blocks(wider)[rows, :, columns].transpose(1, 2).reshape(self.shape)

    def put(self, wider: Tensor, part: Tensor) -> None:
        """Write this grid's part into a contiguous tensor of full width; the inverse of `take`."""
        if wider.shape == self.shape:
            wider.copy_(part)
            return
        rows, columns = self._index(wider.device)
        blocks = part.reshape(self.rows, self.chunk_rows, self.columns, self.chunk_columns)
        self._blocks(wider)[rows, :, columns] = blocks.transpose(1, 2)

    def _blocks(self, wider: Tensor) -> Tensor:
        """A view ``[R, r, S, s]`` of the full tensor."""
        height, width = as_matrix(tuple(wider.shape))
        return wider.view(
            height // self.chunk_rows, self.chunk_rows, width // self.chunk_columns, self.chunk_columns
        )

    def _index(self, device: torch.device) -> tuple[Tensor, Tensor]:
        rows, columns = torch.from_numpy(self._rows()), torch.from_numpy(self._columns())
        return rows.to(device)[:, None], columns.to(device)[None, :]

    def _rows(self) -> Int64s:
        return _numbers(self.rows, self.row_numbers)

    def _columns(self) -> Int64s:
        return _numbers(self.columns, self.column_numbers)


def grids(
    schema: Schema,
    tier: int,
    compression_chunk: int,
    held: Mapping[str, tuple[int, ...]] | None = None,
) -> tuple[Grid, ...]:
    """Return every tensor's grid at tier `tier`, in schema order.

    Args:
        held: per tensor that slices cut, the blocks of neurons that are held instead of the tier's first
            ones: numbers of whole chunk edges along the axis that is cut, ascending.
    """
    held = held or {}
    return tuple(
        _grid(tensor, schema.max_tier, tier, compression_chunk, held.get(tensor.name))
        for tensor in schema.tensors
    )


def largest_divisor(size: int, limit: int) -> int:
    """The largest divisor of `size` that is not above `limit`."""
    return next(divisor for divisor in range(min(size, limit), 0, -1) if size % divisor == 0)


def chunk_shape(tensor: TensorSpec, max_tier: int, compression_chunk: int) -> tuple[int, int]:
    """Rows and columns of a tensor's chunks, at every width."""
    smallest = list(tensor.shape_at(max_tier))
    if tensor.cut_axis is not None:
        smallest[tensor.cut_axis] //= tensor.groups  # no chunk reaches over the edge of a group
    rows = largest_divisor(smallest[-2] if len(smallest) > 1 else smallest[0], compression_chunk)
    return rows, largest_divisor(smallest[-1] if len(smallest) > 1 else 1, compression_chunk)


def edge_of(tensor: TensorSpec, max_tier: int, compression_chunk: int) -> int:
    """Neurons of a chunk, of a tensor that slices cut."""
    rows, columns = chunk_shape(tensor, max_tier, compression_chunk)
    return columns if _is_cut_across(tensor) else rows


def as_matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    """Height and width of a tensor whose leading dimensions are merged; one dimension is one column."""
    if len(shape) == 1:
        return shape[0], 1
    return math.prod(shape[:-1]), shape[-1]


def _grid(
    tensor: TensorSpec, max_tier: int, tier: int, compression_chunk: int, held: tuple[int, ...] | None
) -> Grid:
    chunk_rows, chunk_columns = chunk_shape(tensor, max_tier, compression_chunk)
    shape, axis = list(tensor.shape_at(tier)), tensor.cut_axis
    numbers: Numbers = None
    if axis is not None:
        across = _is_cut_across(tensor)
        edge = chunk_columns if across else chunk_rows
        numbers = _numbers_of_cut(tensor, shape[axis] // tensor.groups // edge, edge, held)
        if held is not None:
            shape[axis] = tensor.groups * len(held) * edge
    height, width = as_matrix(tuple(shape))
    return Grid(
        tensor.name,
        tuple(shape),
        height // chunk_rows,
        width // chunk_columns,
        chunk_rows,
        chunk_columns,
        row_numbers=None if axis is None or across else numbers,
        column_numbers=numbers if axis is not None and across else None,
    )


def _numbers_of_cut(tensor: TensorSpec, first: int, edge: int, held: tuple[int, ...] | None) -> Numbers:
    """Which chunks along the cut axis are held, every group and every merged row of it in turn.

    Args:
        first: blocks of a group at the tier's width, which are held unless `held` names others.
    """
    axis = tensor.cut_axis
    assert axis is not None
    if axis < len(tensor.shape) - 2:
        raise ValueError(f"{tensor.name} is cut along axis {axis} of {tensor.shape}, not one of the last two")
    blocks = tensor.shape[axis] // tensor.groups // edge
    repeats = tensor.groups * (1 if _is_cut_across(tensor) else math.prod(tensor.shape[:axis]))
    if held is None and (repeats == 1 or first == blocks):
        return None  # the first ones of the full grid
    kept = range(first) if held is None else held
    return tuple(repeat * blocks + block for repeat in range(repeats) for block in kept)


def _is_cut_across(tensor: TensorSpec) -> bool:
    return len(tensor.shape) > 1 and tensor.cut_axis == len(tensor.shape) - 1


def _numbers(count: int, numbers: Numbers) -> Int64s:
    return np.arange(count, dtype=np.int64) if numbers is None else np.array(numbers, dtype=np.int64)


def _places(mine: Int64s, theirs: Int64s) -> Int64s:
    """Where each of `theirs` is in `mine` (both ascending), -1 where it is not."""
    at = np.minimum(np.searchsorted(mine, theirs), len(mine) - 1)
    places: Int64s = np.where(mine[at] == theirs, at, -1)
    return places
