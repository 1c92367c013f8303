"""The body of a SparseLoCo update: per chunk its largest entries, two bits each, and two magnitudes.

    one bit per tensor in schema order: 1 where some chunk is not full, padded to a byte
    per tensor:
        where that bit is set, the count of every chunk, in the bits of k
        per chunk two magnitudes, smaller and larger, each the upper half of an fp32 (bfloat16)
        per entry, chunk by chunk and ascending, two bits: 1 = minus, 2 = the larger magnitude
        per entry the lowest L bits of its index in the chunk, L = floor(log2(area / k))
        per chunk count + H bits, H = (area - 1) >> L: entry number j, from 0, whose index has the upper
        part h sets bit h + j (Elias and Fano's code: 8 bits an index at 64 of 4096, where the plain index
        takes 12 and no code less than 7.4)

Every list is padded to a byte with zeros. A body has exactly one encoding, and decoding is total.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from psyche_train.fold.chunks import Grid, Int64s
from psyche_train.strategies.bits import bytes_of, pack, unpack
from psyche_train.strategies.header import UpdateError

MINUS, LARGE = 1, 2
MIN_SCALE = (127 - 100) << 7
"""bfloat16 of 2**-100: nothing near the subnormal numbers is sent."""
MAX_SCALE = (127 + 40) << 7
"""bfloat16 of 2**40: sums over all members, times their tokens, stay finite."""


@dataclass(frozen=True, slots=True)
class SparseValues:
    """One tensor of one update."""

    keys: Int64s
    """int64, ``chunk * area + entry`` in the sender's grid, strictly ascending."""
    codes: npt.NDArray[np.uint8]
    """`MINUS` and `LARGE`, added up."""
    scales: npt.NDArray[np.uint16]
    """bfloat16 patterns ``[C, 2]``: the smaller and the larger magnitude of each chunk, 0 in empty chunks."""

    def values(self, area: int) -> npt.NDArray[np.float32]:
        """What the entries stand for, fp32, beside `keys`."""
        patterns = self.scales[self.keys // area, (self.codes & LARGE) // LARGE].astype(np.uint32) << 16
        magnitudes = patterns.view(np.float32)
        signed: npt.NDArray[np.float32] = np.where(self.codes & MINUS, -magnitudes, magnitudes)
        return signed


@dataclass(frozen=True)
class SparseCodec:
    """One tier's codec; its sizes follow from the chunks per tensor and the entries kept per chunk."""

    grids: tuple[Grid, ...]
    topk: int
    max_bytes: int = field(init=False)
    """Length of the longest valid body."""

    def __post_init__(self) -> None:
        size = bytes_of(len(self.grids))
        for grid in self.grids:
            kept, chunks = self.kept(grid), grid.num_chunks
            low, high = self._split(grid)
            size += bytes_of(chunks * kept.bit_length()) + 4 * chunks
            size += (
                bytes_of(2 * chunks * kept) + bytes_of(chunks * kept * low) + bytes_of(chunks * (kept + high))
            )
        object.__setattr__(self, "max_bytes", size)

    def kept(self, grid: Grid) -> int:
        """Entries that a full chunk of this tensor sends."""
        return min(self.topk, grid.area)

    def encode(self, body: tuple[SparseValues, ...]) -> bytes:
        """Return the one encoding of a body: one `SparseValues` per tensor in schema order."""
        flags, parts = np.zeros(len(self.grids), dtype=np.int64), []
        for i, (grid, sparse) in enumerate(zip(self.grids, body, strict=True)):
            chunk, index = np.divmod(sparse.keys, grid.area)
            counts = np.bincount(chunk, minlength=grid.num_chunks)
            if bool((counts < self.kept(grid)).any()):
                flags[i] = 1
                parts.append(pack(counts, self.kept(grid).bit_length()))
            low, high = self._split(grid)
            upper = np.zeros(len(index) + grid.num_chunks * high, dtype=np.uint8)
            upper[chunk * high + np.arange(len(index)) + (index >> low)] = 1
            parts += [
                sparse.scales.astype("<u2").tobytes(),
                pack(sparse.codes.astype(np.int64), 2),
                pack(index, low),
                np.packbits(upper, bitorder="little").tobytes(),
            ]
        return b"".join([pack(flags, 1), *parts])

    def decode(self, data: bytes, at: int) -> tuple[SparseValues, ...]:
        """Read the body that begins at byte `at`; every other byte string is an `UpdateError`."""
        flags, at = unpack(data, at, len(self.grids), 1)
        tensors = []
        for grid, flag in zip(self.grids, flags.tolist(), strict=True):
            tensor, at = self._tensor(data, at, grid, full=not flag)
            tensors.append(tensor)
        if at != len(data):
            raise UpdateError("length", f"{len(data) - at} bytes too many")
        return tuple(tensors)

    def _tensor(self, data: bytes, at: int, grid: Grid, *, full: bool) -> tuple[SparseValues, int]:
        kept = self.kept(grid)
        counts = np.full(grid.num_chunks, kept, dtype=np.int64)
        if not full:
            counts, at = unpack(data, at, grid.num_chunks, kept.bit_length())
            if bool((counts > kept).any()) or bool((counts == kept).all()):
                raise UpdateError("counts", f"{grid.name}: counts above {kept}, or all of them {kept}")
        scales, at = _scales(data, at, grid, counts)
        number = int(counts.sum())
        codes, at = unpack(data, at, number, 2)
        low, high = self._split(grid)
        lower, at = unpack(data, at, number, low)
        upper, at = unpack(data, at, number + grid.num_chunks * high, 1)
        ones = np.flatnonzero(upper)
        if len(ones) != number:
            raise UpdateError("index", f"{grid.name}: {len(ones)} upper parts for {number} entries")
        chunk = np.repeat(np.arange(grid.num_chunks, dtype=np.int64), counts)
        above = ones - chunk * high - np.arange(number)
        index = (above << low) | lower
        if bool((above < 0).any()) or bool((above > high).any()) or bool((index >= grid.area).any()):
            raise UpdateError("index", f"{grid.name}: an index is outside 0..{grid.area - 1}")
        keys = chunk * grid.area + index
        if bool((np.diff(keys) <= 0).any()):
            raise UpdateError("index", f"{grid.name}: indices of a chunk are not strictly ascending")
        return SparseValues(keys, codes.astype(np.uint8), scales), at

    def _split(self, grid: Grid) -> tuple[int, int]:
        """Bits of an index that are stored plainly, and the largest value of the others."""
        low = (grid.area // self.kept(grid)).bit_length() - 1
        return low, (grid.area - 1) >> low


def _scales(data: bytes, at: int, grid: Grid, counts: Int64s) -> tuple[npt.NDArray[np.uint16], int]:
    end = at + 4 * grid.num_chunks
    if end > len(data):
        raise UpdateError("length", f"{len(data)} bytes, at least {end} are needed")
    scales = np.frombuffer(data, dtype="<u2", count=2 * grid.num_chunks, offset=at).astype(np.uint16)
    scales = scales.reshape(grid.num_chunks, 2)
    empty = counts == 0
    small, large = scales[~empty, 0], scales[~empty, 1]
    if (
        bool(scales[empty].any())
        or bool((small < MIN_SCALE).any())
        or bool((small > large).any())
        or bool((large > MAX_SCALE).any())
    ):
        raise UpdateError("number", f"{grid.name}: a magnitude is not finite, out of order or out of range")
    return scales, end
