"""Frames of `/psyche/mux/1`; a pure, total parser for untrusted bytes, however they are cut.

Twelve bytes, big-endian: version u8 (0) | kind u8 | flags u16 | stream u32 | value u32. They are those of
Yamux (https://github.com/hashicorp/yamux/blob/master/spec.md) with fewer cases: no frame acknowledges a
stream, a connection ends with its socket, windows start at `BASE_WINDOW`, and a data frame carries
`MAX_PAYLOAD` bytes at most.

    DATA     value: length of the bytes that follow     flags: SYN opens, FIN ends, RST breaks the stream
    WINDOW   value: bytes that the other may send more  flags: as above
    PING     value: any number; stream 0                flags: SYN asks, ACK answers with the same number

The side that dialled opens odd streams, the other one even ones, each in ascending order.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

MUX_PROTOCOL = "/psyche/mux/1"
HEADER = struct.Struct("!BBHII")
HEADER_BYTES = HEADER.size
MAX_PAYLOAD = 65_507
"""With its header such a frame fills one Noise message exactly."""
BASE_WINDOW = 64 * 1024
"""Bytes that may be sent on a new stream before the other side says more."""
MAX_STREAM_ID = 2**32 - 1

DATA, WINDOW, PING = range(3)
SYN, ACK, FIN, RST = 1, 2, 4, 8
_FLAGS = {DATA: SYN | FIN | RST, WINDOW: SYN | FIN | RST, PING: SYN | ACK}


class MuxProtocolError(ValueError):
    """A peer sent what `/psyche/mux/1` does not allow; its connection is closed."""


class Frame(NamedTuple):
    """A frame, or a part of a data frame: SYN comes with its first part, FIN and RST with the last."""

    kind: int
    flags: int
    stream: int
    value: int
    body: memoryview


_NOTHING = memoryview(b"")


def pack(kind: int, flags: int, stream: int, value: int = 0) -> bytes:
    """The header of a frame."""
    return HEADER.pack(0, kind, flags, stream, value)


class FrameParser:
    """Cuts a stream of bytes into frames; bodies are views of what was fed, never copies."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._stream = 0
        self._flags = 0
        self._missing = 0
        """Bytes of the current data frame that have not come yet."""

    def feed(self, data: memoryview) -> Iterator[Frame]:
        """Frames that end, begin or go on in `data`.

        Raises:
            MuxProtocolError: at the first header that is not allowed; nothing may be fed after that.
        """
        at, end = 0, len(data)
        while at < end:
            if self._missing:
                body = data[at : at + self._missing]
                at += len(body)
                self._missing -= len(body)
                flags = self._flags & SYN if self._missing else self._flags
                self._flags &= ~SYN
                yield Frame(DATA, flags, self._stream, len(body), body)
                continue
            if not self._head and end - at >= HEADER_BYTES:
                fields = HEADER.unpack_from(data, at)
                at += HEADER_BYTES
            else:
                part = data[at : at + HEADER_BYTES - len(self._head)]
                self._head += part
                at += len(part)
                if len(self._head) < HEADER_BYTES:
                    return
                fields = HEADER.unpack(self._head)
                self._head.clear()
            version, kind, flags, stream, value = fields
            _check(version, kind, flags, stream, value)
            if kind == DATA and value:
                self._stream, self._flags, self._missing = stream, flags, value
            else:
                yield Frame(kind, flags, stream, value, _NOTHING)


def _check(version: int, kind: int, flags: int, stream: int, value: int) -> None:
    if version != 0 or kind not in _FLAGS:
        raise MuxProtocolError(f"frame of version {version} and kind {kind}, known: version 0, kinds 0..2")
    if flags & ~_FLAGS[kind]:
        raise MuxProtocolError(f"frame of kind {kind} with flags {flags:#x}, allowed {_FLAGS[kind]:#x}")
    if (kind in (DATA, WINDOW)) != bool(stream):
        raise MuxProtocolError(f"frame of kind {kind} for stream {stream}")
    if kind == DATA and value > MAX_PAYLOAD:
        raise MuxProtocolError(f"data frame of {value} bytes, allowed {MAX_PAYLOAD}")
    if kind == PING and flags not in (SYN, ACK):
        raise MuxProtocolError(f"ping with flags {flags:#x}")
