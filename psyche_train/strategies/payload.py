"""The bytes of an update: what a member's commitment on chain hashes.

    magic "PSYU", version u16, strategy u8, tier u8, run 32 B, epoch u64, round u64, step u64, slot u16,
    schema hash 32 B, loss f32, tokens u32, number of intervals u8, then per interval: start u64, length u32
    one bit per tensor in schema order: 1 where some chunk is not full, padded to a byte
    per tensor: where that bit is set, the count of every chunk, then for every coefficient sent, chunk by
    chunk and ascending, its index in the chunk and its sign (1 = minus)

All integers are little-endian, bit fields begin at the lowest bit. A count has the bits of k, an index those
of ``area - 1``; counts and coefficients are each padded to a byte with zeros. An update has exactly one
encoding, and decoding is total: any byte string gives an update or an `UpdateError` with a code.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from psyche_train.fold.chunks import Grid, Int64s
from psyche_train.fold.exact import Signs

MAGIC = b"PSYU"
VERSION = 1
DISTRO = 1
MAX_INTERVALS = 64
_HEAD = struct.Struct("<4sHBB32sQQQH32sfIB")
_INTERVAL = struct.Struct("<QI")


class UpdateError(ValueError):
    """An update that is not what it must be.

    `code` names the reason: length, magic, version, strategy, tier, run, epoch, round, step, slot, schema,
    intervals, number, counts, index, padding.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateHeader:
    """Who made the update, for which round, from which samples."""

    run: bytes
    epoch: int
    round: int
    step: int
    slot: int
    tier: int
    schema: bytes
    loss: float
    tokens: int
    intervals: tuple[range, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedUpdate:
    """What the chain says about an update; `intervals` is None where they are not known (a replay)."""

    run: bytes
    epoch: int
    round: int
    step: int
    slot: int
    tier: int
    intervals: Sequence[range] | None = None


@dataclass(frozen=True, slots=True)
class Update:
    """A decoded update: one `Signs` per tensor in schema order."""

    header: UpdateHeader
    tensors: tuple[Signs, ...]


@dataclass(frozen=True)
class PayloadLayout:
    """Sizes that a tier's payload follows from: chunks per tensor and coefficients kept per chunk."""

    tier: int
    schema: bytes
    grids: tuple[Grid, ...]
    topk: int
    max_bytes: int = field(init=False)
    """Length of the longest valid payload."""

    def __post_init__(self) -> None:
        size = _HEAD.size + MAX_INTERVALS * _INTERVAL.size + _bytes_of(len(self.grids))
        for grid in self.grids:
            kept = self.kept(grid)
            size += _bytes_of(grid.num_chunks * kept.bit_length())
            size += _bytes_of(grid.num_chunks * kept * (_index_bits(grid) + 1))
        object.__setattr__(self, "max_bytes", size)

    def kept(self, grid: Grid) -> int:
        """Coefficients that a full chunk of this tensor sends."""
        return min(self.topk, grid.area)


def encode_update(layout: PayloadLayout, update: Update) -> bytes:
    """Return the one encoding of an update.

    Raises:
        UpdateError: a number of the header does not fit its field.
    """
    header = update.header
    if not 1 <= len(header.intervals) <= MAX_INTERVALS:
        raise UpdateError("intervals", f"{len(header.intervals)} intervals, allowed 1..{MAX_INTERVALS}")
    try:
        parts = [
            _HEAD.pack(
                MAGIC,
                VERSION,
                DISTRO,
                header.tier,
                header.run,
                header.epoch,
                header.round,
                header.step,
                header.slot,
                header.schema,
                header.loss,
                header.tokens,
                len(header.intervals),
            )
        ]
        parts += [_INTERVAL.pack(interval.start, len(interval)) for interval in header.intervals]
    except (struct.error, OverflowError) as error:
        raise UpdateError("number", f"the header does not fit its fields: {error}") from error
    flags, body = np.zeros(len(layout.grids), dtype=np.uint8), []
    for i, (grid, signs) in enumerate(zip(layout.grids, update.tensors, strict=True)):
        kept = layout.kept(grid)
        chunk, index = np.divmod(signs.keys, grid.area)
        counts = np.bincount(chunk, minlength=grid.num_chunks)
        if bool((counts < kept).any()):
            flags[i] = 1
            body.append(_pack(counts, kept.bit_length()))
        codes = index | (signs.signs < 0).astype(np.int64) << _index_bits(grid)
        body.append(_pack(codes, _index_bits(grid) + 1))
    return b"".join([*parts, np.packbits(flags, bitorder="little").tobytes(), *body])


def decode_header(data: bytes) -> UpdateHeader:
    """Read the header alone; total."""
    return _read_header(data)[0]


def decode_update(layout: PayloadLayout, data: bytes) -> Update:
    """Read an update of the layout's tier; every other byte string is an `UpdateError`.

    Nothing is allocated before the length was checked against it.
    """
    if len(data) > layout.max_bytes:
        raise UpdateError("length", f"{len(data)} bytes, at most {layout.max_bytes} for tier {layout.tier}")
    header, at = _read_header(data)
    if header.tier != layout.tier:
        raise UpdateError("tier", f"the update says tier {header.tier}, the member's is {layout.tier}")
    if header.schema != layout.schema:
        raise UpdateError("schema", f"the update is for schema {header.schema.hex()[:16]}, not this model's")
    flags, at = _unpack(data, at, len(layout.grids), 1)
    tensors = []
    for grid, flag in zip(layout.grids, flags.tolist(), strict=True):
        kept = layout.kept(grid)
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
    return Update(header, tuple(tensors))


def check_header(header: UpdateHeader, expected: ExpectedUpdate) -> None:
    """Compare a header with what the chain says.

    Raises:
        UpdateError: its code is the first field that differs.
    """
    for name in ("run", "epoch", "round", "step", "slot", "tier"):
        found, wanted = getattr(header, name), getattr(expected, name)
        if found != wanted:
            shown = found.hex()[:16] if isinstance(found, bytes) else found
            raise UpdateError(name, f"the update says {shown}, the chain says otherwise ({wanted!r:.40})")
    if expected.intervals is not None and list(header.intervals) != list(expected.intervals):
        raise UpdateError("intervals", f"trained on {list(header.intervals)}, not {list(expected.intervals)}")


def _read_header(data: bytes) -> tuple[UpdateHeader, int]:
    if len(data) < _HEAD.size:
        raise UpdateError("length", f"{len(data)} bytes are shorter than a header")
    magic, version, strategy, tier, run, epoch, number, step, slot, schema, loss, tokens, count = (
        _HEAD.unpack_from(data)
    )
    if magic != MAGIC:
        raise UpdateError("magic", f"begins with {magic.hex()}, not {MAGIC.hex()}")
    if version != VERSION:
        raise UpdateError("version", f"format {version}, this client reads {VERSION}")
    if strategy != DISTRO:
        raise UpdateError("strategy", f"strategy {strategy}, this run uses {DISTRO}")
    if not math.isfinite(loss):
        raise UpdateError("number", f"the loss is {loss}")
    if not 1 <= count <= MAX_INTERVALS:
        raise UpdateError("intervals", f"{count} intervals, allowed 1..{MAX_INTERVALS}")
    at = _HEAD.size + count * _INTERVAL.size
    if len(data) < at:
        raise UpdateError("length", f"{len(data)} bytes do not hold {count} intervals")
    intervals = []
    for start, length in _INTERVAL.iter_unpack(data[_HEAD.size : at]):
        if length == 0 or start + length >= 1 << 64:
            raise UpdateError("intervals", f"interval of {length} samples from {start}")
        intervals.append(range(start, start + length))
    header = UpdateHeader(
        run=run,
        epoch=epoch,
        round=number,
        step=step,
        slot=slot,
        tier=tier,
        schema=schema,
        loss=loss,
        tokens=tokens,
        intervals=tuple(intervals),
    )
    return header, at


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
