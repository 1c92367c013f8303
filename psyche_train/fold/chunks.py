"""The chunk grid: how a tensor is cut into DCT chunks, the same way at every width.

Each of the last two dimensions is cut by the largest divisor, not above `compression_chunk`, of the
*smallest* tier's size of that dimension. So a slice's grid is a two-dimensional prefix of the full one.
Leading dimensions are merged into the rows; a one-dimensional tensor is one column.
"""

# Shape letters: C = chunks, R / S = chunk rows / columns in the grid, r / s = rows / columns of a chunk.

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from psyche_train.models.schema import Schema, TensorSpec

Int64s = npt.NDArray[np.int64]


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
        if sender.columns == self.columns and sender.rows == self.rows:
            return keys, np.ones(len(keys), dtype=np.bool_)
        chunk, coefficient = np.divmod(keys, self.area)
        row, column = np.divmod(chunk, sender.columns)
        held = (row < self.rows) & (column < self.columns)
        return ((row * self.columns + column) * self.area + coefficient)[held], held

    def held_by(self, sender: Grid) -> npt.NDArray[np.bool_]:
        """Which of this grid's chunks a member of `sender`'s width holds, bool ``[C]``."""
        row, column = np.divmod(np.arange(self.num_chunks), self.columns)
        held: npt.NDArray[np.bool_] = (row < sender.rows) & (column < sender.columns)
        return held


def grids(schema: Schema, tier: int, compression_chunk: int) -> tuple[Grid, ...]:
    """Return every tensor's grid at tier `tier`, in schema order."""
    return tuple(_grid(tensor, schema.max_tier, tier, compression_chunk) for tensor in schema.tensors)


def largest_divisor(size: int, limit: int) -> int:
    """The largest divisor of `size` that is not above `limit`."""
    return next(divisor for divisor in range(min(size, limit), 0, -1) if size % divisor == 0)


def _grid(tensor: TensorSpec, max_tier: int, tier: int, compression_chunk: int) -> Grid:
    shape, smallest = tensor.shape_at(tier), tensor.shape_at(max_tier)
    chunk_rows = largest_divisor(smallest[-2] if len(smallest) > 1 else smallest[0], compression_chunk)
    chunk_columns = largest_divisor(smallest[-1] if len(smallest) > 1 else 1, compression_chunk)
    height, width = _as_matrix(shape)
    return Grid(tensor.name, shape, height // chunk_rows, width // chunk_columns, chunk_rows, chunk_columns)


def _as_matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    if len(shape) == 1:
        return shape[0], 1
    height = 1
    for size in shape[:-1]:
        height *= size
    return height, shape[-1]
