"""The body of a DisTrO update: for every coefficient that was sent, its index in the chunk and its sign.

    one bit per tensor in schema order: 1 where some chunk is not full, padded to a byte
    per tensor: where that bit is set, the count of every chunk, then for every coefficient sent, chunk by
    chunk and ascending, its index in the chunk and its sign (1 = minus)

Bit fields begin at the lowest bit. A count has the bits of k, an index those of ``area - 1``; counts and
coefficients are each padded to a byte with zeros. A body has exactly one encoding.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from psyche_train.fold.chunks import Grid, Int64s
from psyche_train.fold.exact import Signs
from psyche_train.strategies.header import UpdateError


@dataclass(frozen=True)
class PayloadLayout:
    """One tier's codec: its sizes follow from the chunks per tensor and the coefficients kept per chunk."""

    grids: tuple[Grid, ...]
    topk: int
    max_bytes: int = field(init=False)
    """Length of the longest valid body."""

    def __post_init__(self) -> None:
        size = _bytes_of(len(self.grids))
        for grid in self.grids:
            kept = self.kept(grid)
            size += _bytes_of(grid.num_chunks * kept.bit_length())
            size += _bytes_of(grid.num_chunks * kept * (_index_bits(grid) + 1))
        object.__setattr__(self, "max_bytes", size)

    def kept(self, grid: Grid) -> int:
        """Coefficients that a full chunk of this tensor sends."""
        return min(self.topk, grid.area)

    def encode(self, body: tuple[Signs, ...]) -> bytes:
        """Return the one encoding of a body: one `Signs` per tensor in schema order."""
        flags, parts = np.zeros(len(self.grids), dtype=np.uint8), []
        for i, (grid, signs) in enumerate(zip(self.grids, body, strict=True)):
            kept = self.kept(grid)
            chunk, index = np.divmod(signs.keys, grid.area)
            counts = np.bincount(chunk, minlength=grid.num_chunks)
            if bool((counts < kept).any()):
                flags[i] = 1
                parts.append(_pack(counts, kept.bit_length()))
            codes = index | (signs.signs < 0).astype(np.int64) << _index_bits(grid)
            parts.append(_pack(codes, _index_bits(grid) + 1))
        return b"".join([np.packbits(flags, bitorder="little").tobytes(), *parts])

    def decode(self, data: bytes, at: int) -> tuple[Signs, ...]:
        """Read the body that begins at byte `at`; every other byte string is an `UpdateError`."""
        flags, at = _unpack(data, at, len(self.grids), 1)
        tensors = []
        for grid, flag in zip(self.grids, flags.tolist(), strict=True):
            kept = self.kept(grid)
            if flag:
                counts, at = _unpack(data, at, grid.num_chunks, kept.bit_length())
                if bool((counts > kept).any()) or bool((counts == kept).all()):
                    raise UpdateError("counts", f"{grid.name}: counts above {kept}, or all of them {kept}")
            else:
                counts = np.full(grid.num_chunks, kept, dtype=np.int64)
            codes, at = _unpack(data, at, int(counts.sum()), _index_bits(grid) + 1)
            tensors.append(_signs(grid, counts, codes))
        if at != len(data):
            raise UpdateError("length", f"{len(data) - at} bytes too many")
        return tuple(tensors)


def _signs(grid: Grid, counts: Int64s, codes: Int64s) -> Signs:
    bits = _index_bits(grid)
    index = codes & ((1 << bits) - 1)
    if bool((index >= grid.area).any()):
        raise UpdateError("index", f"{grid.name}: an index is outside 0..{grid.area - 1}")
    keys = np.repeat(np.arange(grid.num_chunks, dtype=np.int64), counts) * grid.area + index
    if bool((np.diff(keys) <= 0).any()):
        raise UpdateError("index", f"{grid.name}: indices of a chunk are not strictly ascending")
    return Signs(keys, np.where(codes >> bits, -1, 1).astype(np.int8))


def _index_bits(grid: Grid) -> int:
    return (grid.area - 1).bit_length()


def _bytes_of(num_bits: int) -> int:
    return (num_bits + 7) // 8


def _pack(values: npt.NDArray[np.int64], width: int) -> bytes:
    """The lowest `width` bits of each value, one after the other, padded with zeros to a byte."""
    bits = (values[:, None] >> np.arange(width)) & 1
    return np.packbits(bits.astype(np.uint8).reshape(-1), bitorder="little").tobytes()


def _unpack(data: bytes, at: int, count: int, width: int) -> tuple[Int64s, int]:
    """Read `count` values of `width` bits from byte `at`; returns them and where they end."""
    num_bits = count * width
    end = at + _bytes_of(num_bits)
    if end > len(data):
        raise UpdateError("length", f"{len(data)} bytes, at least {end} are needed")
    bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8, count=end - at, offset=at), bitorder="little")
    if bool(bits[num_bits:].any()):
        raise UpdateError("padding", f"bits behind the last value at byte {end - 1} are not zero")
    table = bits[:num_bits].reshape(count, width).astype(np.int64)
    return (table << np.arange(width)).sum(axis=1, dtype=np.int64), end
