"""One stream of a `Muxer`."""

from __future__ import annotations

from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING

import trio
from libp2p.abc import IMuxedStream
from libp2p.stream_muxer.exceptions import (
    MuxedStreamClosed,
    MuxedStreamEOF,
    MuxedStreamError,
    MuxedStreamReset,
)

from psyche_train.network.mux.frames import BASE_WINDOW, MAX_PAYLOAD, MuxProtocolError
from psyche_train.network.mux.window import ReceiveWindow

if TYPE_CHECKING:
    from psyche_train.network.mux.muxer import Muxer

STALL_S = 15.0
"""A write of which the peer takes nothing for this long fails."""
MAX_READ = 1 << 20
MAX_SEND_WINDOW = 1 << 30
SMALL_BYTES = 2048
_NOTHING = memoryview(b"")


class MuxStream(IMuxedStream):  # type: ignore[misc, unused-ignore]
    """Bytes in order in both directions, each of which ends on its own.

    `write` returns when the connection has taken everything, and may be cancelled at any moment: the peer then
    has got a prefix, and the connection is whole. One write runs at a time, others wait for it. Reading does
    not slow other streams down: the peer may only send what the window has room for.
    """

    muxed_conn: Muxer

    def __init__(self, conn: Muxer, stream_id: int, window: ReceiveWindow) -> None:
        self.muxed_conn = conn
        self.stream_id = stream_id
        self.window = window
        self.queued = False
        """Whether it waits for its turn to send."""
        self.idle_since = trio.current_time()
        self._chunks: deque[bytes | bytearray] = deque()
        self._first_at = 0
        """Bytes of the first chunk that were read."""
        self._readable = trio.Event()
        self._writing = trio.Lock()
        self._pending = _NOTHING
        self._progress = trio.Event()
        self._taken_at = 0.0
        self._send_window = BASE_WINDOW
        self._fin_wanted = False
        self._fin_sent = False
        self._fin_received = False
        self._broken: str | None = None
        self._left = False

    # -- for whoever uses the stream

    async def read(self, n: int | None = None) -> bytes:
        """Up to `n` bytes (1 MiB at most), as soon as there are any.

        Raises:
            MuxedStreamEOF: the peer ended its direction and everything was read.
            MuxedStreamReset: either side reset it, or the connection ended.
        """
        limit = MAX_READ if n is None or n < 0 else min(n, MAX_READ)
        if not limit:
            return b""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._chunks:
            if self._broken is not None:
                raise MuxedStreamReset(self._broken)
            if self._fin_received:
                raise MuxedStreamEOF("the peer ended the stream")
            if self._readable.is_set():
                self._readable = trio.Event()
            await self._readable.wait()
        data = self._dequeue(limit)
        now = self.idle_since = trio.current_time()
        if not self._fin_received and self._broken is None:
            credit = self.window.read(len(data), now, self.muxed_conn.rtt_s)
            if credit:
                self.muxed_conn.send_credit(self, credit)
        return data

    async def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send everything; `data` must not change until this returns.

        Raises:
            MuxedStreamClosed: this direction was ended before.
            MuxedStreamReset: either side reset it, or the connection ended.
            MuxedStreamError: the peer took nothing for `STALL_S`; reset the stream then.
        """
        view = memoryview(data).cast("B")
        async with self._writing:
            self._check_writable()
            if not len(view):
                return
            self._pending = view
            self._taken_at = trio.current_time()
            self.muxed_conn.wants_to_send(self)
            try:
                while len(self._pending):
                    with trio.CancelScope(deadline=self._taken_at + STALL_S):
                        self._progress = trio.Event()
                        await self._progress.wait()
                    if self._broken is not None:
                        raise MuxedStreamReset(self._broken)
                    if len(self._pending) and trio.current_time() >= self._taken_at + STALL_S:
                        raise MuxedStreamError(f"the peer took no bytes for {STALL_S:.0f} s")
            finally:
                self._pending = _NOTHING
                if self._fin_wanted:
                    self._end_sending()

    async def close_write(self) -> None:
        """End this direction; the other one goes on."""
        await trio.lowlevel.checkpoint()
        self._fin_wanted = True
        if not len(self._pending):
            self._end_sending()

    async def close(self) -> None:
        """As `close_write`, and soon after it ends altogether if nobody reads it any more."""
        self._left = True
        self.idle_since = trio.current_time()
        await self.close_write()
        self.muxed_conn.forget_if_done(self)

    async def reset(self) -> None:
        """Break both directions at once; what was not read is gone."""
        self._left = True
        if self.on_wire:
            self.muxed_conn.send_reset(self)
        self.break_off("the stream was reset here")
        self._chunks.clear()
        self.muxed_conn.forget_if_done(self)
        await trio.lowlevel.checkpoint()

    def set_deadline(self, ttl: int) -> None:
        """Not offered: use trio's scopes."""
        raise NotImplementedError("streams have no deadlines: use trio.fail_after")

    def get_remote_address(self) -> tuple[str, int] | None:
        """Address of the peer's socket."""
        return self.muxed_conn.get_remote_address()

    @property
    def is_closed(self) -> bool:
        """Whether neither direction can carry anything any more."""
        return not self.on_wire

    async def __aenter__(self) -> MuxStream:
        return self

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        await self.close()

    # -- for the muxer

    @property
    def on_wire(self) -> bool:
        """Whether frames of it may still come or go."""
        return self._broken is None and not (self._fin_sent and self._fin_received)

    @property
    def left(self) -> bool:
        """Whether its user here has closed or reset it."""
        return self._left

    @property
    def pending(self) -> int:
        """Bytes of the running write that were not taken yet."""
        return len(self._pending)

    @property
    def can_send(self) -> bool:
        """Whether `take` would return anything."""
        return self._send_window > 0 and len(self._pending) > 0

    def take(self, limit: int) -> memoryview:
        """The next bytes to send, at most `limit`; empty if there are none or the peer's window is full."""
        count = min(limit, self._send_window, MAX_PAYLOAD)
        piece = self._pending[:count]
        if len(piece):
            self._pending = self._pending[count:]
            self._send_window -= len(piece)
            self._taken_at = trio.current_time()
            if not len(self._pending):
                self._progress.set()
        return piece

    def granted(self, count: int) -> None:
        """The peer lets us send more."""
        self._send_window += count
        if self._send_window > MAX_SEND_WINDOW:
            raise MuxProtocolError(f"a send window of {self._send_window} bytes")
        if self.can_send:
            self.muxed_conn.wants_to_send(self)

    def received(self, body: memoryview) -> None:
        """The peer sent bytes."""
        if self._fin_received:
            raise MuxProtocolError("bytes after the end of a stream")
        self.window.received(len(body))
        last = self._chunks[-1] if self._chunks else None
        if len(body) >= SMALL_BYTES:
            self._chunks.append(bytes(body))
        elif isinstance(last, bytearray) and len(last) < MAX_PAYLOAD:
            last += body  # an object for each of many tiny frames would take more memory than the window
        else:
            self._chunks.append(bytearray(body))
        self._readable.set()

    def ended_by_peer(self) -> None:
        """The peer ended its direction."""
        if self._fin_received:
            raise MuxProtocolError("a stream ended twice")
        self._fin_received = True
        self._readable.set()
        self.muxed_conn.forget_if_done(self)

    def break_off(self, why: str) -> None:
        """Both directions are over; writers are told why at once, readers after what came before."""
        if self._broken is None:
            self._broken = why
        self._pending = _NOTHING
        self._readable.set()
        self._progress.set()

    def _end_sending(self) -> None:
        if not self._fin_sent and self._broken is None:
            self._fin_sent = True
            self.muxed_conn.send_end(self)
            self.muxed_conn.forget_if_done(self)

    def _check_writable(self) -> None:
        if self._broken is not None:
            raise MuxedStreamReset(self._broken)
        if self._fin_wanted:
            raise MuxedStreamClosed("the stream was closed for writing")

    def _dequeue(self, limit: int) -> bytes:
        parts: list[bytes | bytearray | memoryview] = []
        size = 0
        while self._chunks and size < limit:
            chunk = self._chunks[0]
            count = min(len(chunk) - self._first_at, limit - size)
            size += count
            if count == len(chunk):
                parts.append(self._chunks.popleft())
                continue
            parts.append(memoryview(chunk)[self._first_at : self._first_at + count])
            self._first_at += count
            if self._first_at == len(chunk):
                self._chunks.popleft()
                self._first_at = 0
        if len(parts) == 1 and isinstance(parts[0], bytes):
            return parts[0]
        return b"".join(parts)
