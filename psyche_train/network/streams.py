"""Reading and writing libp2p streams so that no peer can hang, truncate or crash us."""

from __future__ import annotations

from typing import Any

import trio

from psyche_train.network.scopes import shielded
from psyche_train.network.wire import WireError

FRAME_BYTES = 65_507
"""A write of this size fits one Yamux frame and one Noise message exactly; 65,536 is the worst choice."""
IDLE_S = 15.0
"""A stream without a byte for this long is reset."""
_READ_BYTES = 1 << 20


class StreamBroken(Exception):
    """The peer closed, reset or stalled the stream; the message says which."""


async def write_all(stream: Any, data: bytes | memoryview) -> None:
    """Write everything; over stock Yamux in frames, each written whole or not at all (see NoiseSession).

    Raises:
        StreamBroken: the peer reset it, or took nothing for `IDLE_S`.
    """
    view = memoryview(data)
    at_once = getattr(getattr(stream, "muxed_conn", None), "writes_at_once", None)
    try:
        if at_once is not None:  # our muxer has frames, a stall's end and cancellation of its own
            for start in range(0, len(view), at_once):
                await stream.write(view[start : start + at_once])
            return
        for start in range(0, len(view), FRAME_BYTES):
            await trio.lowlevel.checkpoint()
            with trio.fail_after(IDLE_S):
                await stream.write(bytes(view[start : start + FRAME_BYTES]))
    except trio.TooSlowError:
        raise StreamBroken(f"took no bytes for {IDLE_S:.0f} s") from None
    except Exception as exc:
        raise StreamBroken(f"broke the connection ({describe(exc)})") from exc


async def read_exactly(stream: Any, count: int, *, idle_s: float = IDLE_S) -> bytes:
    """Read exactly `count` bytes; an end of file before that is an error, never a result.

    Raises:
        StreamBroken: it ended, was reset, or sent nothing for `idle_s`.
    """
    parts: list[bytes] = []
    missing = count
    while missing:
        try:
            with trio.fail_after(idle_s):
                data = await stream.read(min(missing, _READ_BYTES))
        except trio.TooSlowError:
            raise StreamBroken(f"sent no bytes for {idle_s:.0f} s") from None
        except Exception as exc:
            raise StreamBroken(f"ended {missing} bytes early ({describe(exc)})") from exc
        if not data:
            raise StreamBroken(f"ended {missing} bytes early")
        if len(data) > missing:
            raise WireError("the muxer returned more bytes than were asked for")
        parts.append(data)
        missing -= len(data)
    return parts[0] if len(parts) == 1 else b"".join(parts)


async def close_quietly(stream: Any, *, reset: bool) -> None:
    """Close or reset a stream, even while being cancelled; never raises, never takes over 2 s."""
    with shielded(2):
        try:
            await (stream.reset() if reset else stream.close())
        except Exception:
            return  # the connection is gone, and the stream with it


def describe(exc: BaseException) -> str:
    """An exception in a few words, the innermost cause of a group or of a chain."""
    while True:
        if isinstance(exc, BaseExceptionGroup) and exc.exceptions:
            exc = exc.exceptions[0]
        elif exc.__cause__ is not None:
            exc = exc.__cause__
        else:
            text = str(exc).strip().splitlines()
            return f"{type(exc).__name__}: {text[0][:160]}" if text else type(exc).__name__
