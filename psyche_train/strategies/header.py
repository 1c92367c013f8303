"""The header that every update begins with, whatever the strategy of the run.

    magic "PSYU", version u16, strategy u8, tier u8, run 32 B, epoch u64, round u64, step u64, slot u16,
    schema hash 32 B, loss f32, tokens u32, number of intervals u8, then per interval: start u64, length u32

All integers are little-endian. Decoding is total: any byte string gives a header or an `UpdateError`.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

MAGIC = b"PSYU"
VERSION = 1
MAX_INTERVALS = 64
_HEAD = struct.Struct("<4sHBB32sQQQH32sfIB")
_INTERVAL = struct.Struct("<QI")
MAX_HEADER_BYTES = _HEAD.size + MAX_INTERVALS * _INTERVAL.size


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


def encode_header(header: UpdateHeader, strategy: int) -> bytes:
    """Return the one encoding of a header.

    Args:
        strategy: number of the strategy that made the body.

    Raises:
        UpdateError: a number does not fit its field.
    """
    if not 1 <= len(header.intervals) <= MAX_INTERVALS:
        raise UpdateError("intervals", f"{len(header.intervals)} intervals, allowed 1..{MAX_INTERVALS}")
    try:
        head = _HEAD.pack(
            MAGIC,
            VERSION,
            strategy,
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
        tail = [_INTERVAL.pack(interval.start, len(interval)) for interval in header.intervals]
    except (struct.error, OverflowError) as error:
        raise UpdateError("number", f"the header does not fit its fields: {error}") from error
    return b"".join([head, *tail])


def decode_header(data: bytes, strategy: int) -> tuple[UpdateHeader, int]:
    """Read the header that `data` begins with; returns it and where the body begins.

    Args:
        strategy: number of the run's strategy; an update of another one is refused.
    """
    if len(data) < _HEAD.size:
        raise UpdateError("length", f"{len(data)} bytes are shorter than a header")
    magic, version, found, tier, run, epoch, number, step, slot, schema, loss, tokens, count = (
        _HEAD.unpack_from(data)
    )
    if magic != MAGIC:
        raise UpdateError("magic", f"begins with {magic.hex()}, not {MAGIC.hex()}")
    if version != VERSION:
        raise UpdateError("version", f"format {version}, this client reads {VERSION}")
    if found != strategy:
        raise UpdateError("strategy", f"strategy {found}, this run uses {strategy}")
    if not math.isfinite(loss):
        raise UpdateError("number", f"the loss is {loss}")
    if not 1 <= count <= MAX_INTERVALS:
        raise UpdateError("intervals", f"{count} intervals, allowed 1..{MAX_INTERVALS}")
    end = _HEAD.size + count * _INTERVAL.size
    if len(data) < end:
        raise UpdateError("length", f"{len(data)} bytes do not hold {count} intervals")
    intervals = []
    for start, length in _INTERVAL.iter_unpack(data[_HEAD.size : end]):
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
    return header, end


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
