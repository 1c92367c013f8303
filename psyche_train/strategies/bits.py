"""Numbers of a few bits each, one after the other, and back, without a loop over the numbers.

A field begins at the lowest bit of a byte; what is left of the last byte is zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from psyche_train.strategies.header import UpdateError

Int64s = npt.NDArray[np.int64]
MAX_WIDTH = 57
"""Bits of the widest number: shifted by up to 7 bits it still fits 64."""


def bytes_of(num_bits: int) -> int:
    """Bytes that so many bits take."""
    return (num_bits + 7) // 8


def pack(values: Int64s, width: int) -> bytes:
    """The lowest `width` bits of each value, one after the other, padded with zeros to a byte.

    Args:
        values: int64, each in ``0 .. 2**width - 1``.
        width: 0 to `MAX_WIDTH`.
    """
    return pack_fields(values, [len(values)], width)[0]


def pack_fields(values: Int64s, lengths: Sequence[int], width: int) -> list[bytes]:
    """`pack` of consecutive parts of `values`, each a field of its own; many small ones cost what one does.

    Args:
        values: int64, each in ``0 .. 2**width - 1``.
        lengths: numbers per field; together ``len(values)``.
        width: 0 to `MAX_WIDTH`.
    """
    rows = [-(-length // 8) for length in lengths]  # every field begins at a byte, as eight numbers do
    starts = list(accumulate(rows, initial=0))
    table = np.zeros((starts[-1], 8), dtype=np.uint64)
    flat, at = table.reshape(-1), 0
    for start, length in zip(starts, lengths, strict=False):
        flat[start * 8 : start * 8 + length] = values[at : at + length]
        at += length
    data = _packed(table, width)
    begins = [start * width for start in starts]
    return [
        data[begin : begin + bytes_of(length * width)].tobytes()
        for begin, length in zip(begins, lengths, strict=False)
    ]


def _packed(table: npt.NDArray[np.uint64], width: int) -> npt.NDArray[np.uint8]:
    """The bytes of rows of eight numbers, `width` bytes a row."""
    if width < 8:  # the words below would overlap one another
        bits = (table.astype(np.uint8)[:, :, None] >> np.arange(width, dtype=np.uint8)) & 1
        return np.packbits(bits.reshape(-1), bitorder="little")
    data = np.zeros(len(table) * width + 8, dtype=np.uint8)
    for lane, (words, shift) in enumerate(_lanes(data, len(table), width)):
        words |= table[:, lane] << shift
    return data


def unpack(data: bytes, at: int, count: int, width: int) -> tuple[Int64s, int]:
    """Read `count` numbers of `width` bits (0 to `MAX_WIDTH`) from byte `at`.

    Returns:
        The numbers, and the byte behind them.

    Raises:
        UpdateError: `data` ends before them (nothing was allocated then), or the padding is not zero.
    """
    end = at + bytes_of(count * width)
    if end > len(data):
        raise UpdateError("length", f"{len(data)} bytes, at least {end} are needed")
    used = count * width % 8
    if used and data[end - 1] >> used:
        raise UpdateError("padding", f"bits behind the last value at byte {end - 1} are not zero")
    rows = -(-count // 8)
    padded = np.zeros(rows * width + 8, dtype=np.uint8)
    padded[: end - at] = np.frombuffer(data, dtype=np.uint8, count=end - at, offset=at)
    values = np.empty((rows, 8), dtype=np.int64)
    for lane, (words, shift) in enumerate(_lanes(padded, rows, width)):
        values[:, lane] = (words >> shift) & np.uint64((1 << width) - 1)
    return values.reshape(-1)[:count], end


def _lanes(
    data: npt.NDArray[np.uint8], rows: int, width: int
) -> Iterator[tuple[npt.NDArray[np.uint64], int]]:
    """Eight numbers fill `width` bytes: for each of the eight, the words it lies in and by how far to shift."""
    for lane in range(8 if rows else 0):
        first, shift = divmod(lane * width, 8)
        words: npt.NDArray[np.uint64] = np.ndarray((rows,), "<u8", data, offset=first, strides=(width,))
        yield words, np.uint64(shift)  # type: ignore[misc]
