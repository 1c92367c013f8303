"""Streams over one secured connection: the receiving loop, the sending loop and who may send next.

Nothing a peer sends costs more than its connection. What it can make us keep is bounded: `MAX_STREAMS` streams
that it opened, per stream what the window lets it send (`window.py`), and `MAX_CONTROL` answers to frames of
its own when it reads none of them.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import Any, Protocol
from weakref import WeakSet

import trio
from libp2p.abc import IMuxedConn
from libp2p.peer.id import ID
from libp2p.stream_muxer.exceptions import MuxedConnUnavailable, MuxedStreamError

from psyche_train.network.mux.frames import (
    ACK,
    DATA,
    FIN,
    HEADER_BYTES,
    MAX_STREAM_ID,
    PING,
    RST,
    SYN,
    WINDOW,
    Frame,
    FrameParser,
    MuxProtocolError,
    pack,
)
from psyche_train.network.mux.stream import MuxStream
from psyche_train.network.mux.window import POOL_PER_CONNECTION, ReceiveWindow, WindowPool
from psyche_train.network.streams import describe

logger = logging.getLogger(__name__)

BATCH_BYTES = 4 * 65_519
"""Sent at once: four full Noise messages, 20 ms of a 100 Mbit/s line."""
MIN_ROOM = 4096
"""A batch with less room than this goes: no frame is cut that small."""
URGENT_BYTES = 4096
"""Writes up to this size (requests, gossip, pings) go before the next piece of any larger one."""
MAX_STREAMS = 128
"""Open streams, for each side."""
MAX_CONTROL = 1024
OPENER_WINDOW = 256 * 1024
"""Granted at once to a stream that we open: whoever opens a stream is about to ask for something."""
PING_EVERY_S = 10.0
DEAD_S = 30.0
"""A connection on which nothing comes for this long, answers to pings included, is closed."""
LINGER_S = 30.0
"""A stream that was closed here, is not read here, and is not ended by the peer, is forgotten after this long."""


class Channel(Protocol):
    """What is needed of a secured connection (`session.NoiseSession`)."""

    is_initiator: bool

    async def receive(self) -> list[memoryview]:
        """The next plaintext, valid until the next call; empty at the end of the connection."""

    async def send(self, parts: list[bytes | memoryview]) -> None:
        """Send plaintext, all of it."""

    def abort(self) -> None:
        """Close the socket at once."""


class Muxer(IMuxedConn):  # type: ignore[misc, unused-ignore]
    """One connection. `start` owns its tasks and never raises: py-libp2p runs it bare in the host's nursery.

    Attributes:
        secured_conn: the `NoiseSession` beneath.
        rtt_s: the least of the last round trips, in seconds.
        why_closed: empty while open.
    """

    writes_at_once = 1 << 20
    """Bytes to give to one `write`, which itself fails when nothing moves."""

    def __init__(self, conn: Any, peer_id: ID, pool: WindowPool | None = None) -> None:
        self.secured_conn = conn
        self.peer_id = peer_id
        self.event_started = trio.Event()
        self.on_close: Any = None
        self.why_closed = ""
        self._channel: Channel = conn
        self._pool = WindowPool(POOL_PER_CONNECTION, pool)
        self._streams: dict[int, MuxStream] = {}
        self._theirs: WeakSet[MuxStream] = WeakSet()
        """Streams of the peer that are on the wire or still in somebody's hands here."""
        self._next_id = 1 if conn.is_initiator else 2
        self._last_of_peer = 0
        self._accepted: deque[MuxStream] = deque()
        self._acceptable = trio.Event()
        self._control: deque[bytes] = deque()
        self._urgent: deque[MuxStream] = deque()
        self._bulk: deque[MuxStream] = deque()
        self._work = trio.Event()
        self._rtts: deque[float] = deque(maxlen=6)
        self._ping = 0
        self._pinged_at = 0.0
        self._heard_at = trio.current_time()
        self._scope: trio.CancelScope | None = None

    # -- what py-libp2p calls

    @property
    def is_initiator(self) -> bool:
        """Whether we dialled."""
        return self._channel.is_initiator

    @property
    def is_closed(self) -> bool:
        """Whether the connection is over."""
        return bool(self.why_closed)

    @property
    def is_established(self) -> bool:
        """Whether streams can be opened."""
        return self.event_started.is_set() and not self.why_closed

    async def start(self) -> None:
        """Run the connection until it ends."""
        try:
            async with trio.open_nursery() as nursery:
                self._scope = nursery.cancel_scope
                nursery.start_soon(self._send_loop)
                nursery.start_soon(self._keep_alive)
                self.event_started.set()
                await self._receive_loop()
                self._end("the peer closed the connection")
        except* MuxProtocolError as group:
            why = f"the peer broke the protocol: {describe(group)}"
            logger.warning("event=connection_refused peer=%s why=%s", self.peer_id, why)
            self._end(why)
        except* Exception as group:  # whatever it is, it must not end the host
            self._end(f"the connection broke ({describe(group)})")
        finally:
            self.event_started.set()
            self._end("the connection was given up")

    async def close(self) -> None:
        """End the connection and everything on it, without waiting for the peer."""
        self._end("the connection was closed here")
        await trio.lowlevel.checkpoint()

    async def open_stream(self) -> MuxStream:
        """A new stream.

        Raises:
            MuxedConnUnavailable: the connection is over.
            MuxedStreamError: `MAX_STREAMS` of ours are open, or the peer reads nothing.
        """
        await trio.lowlevel.checkpoint()
        if self.why_closed:
            raise MuxedConnUnavailable(self.why_closed)
        parity = self._next_id % 2
        if sum(stream_id % 2 == parity for stream_id in self._streams) >= MAX_STREAMS:
            raise MuxedStreamError(f"{MAX_STREAMS} streams are open on the connection")
        if len(self._control) >= MAX_CONTROL:
            raise MuxedStreamError("the peer reads nothing")
        if self._next_id > MAX_STREAM_ID:
            self._end("the connection has no stream numbers left")
            raise MuxedConnUnavailable(self.why_closed)
        stream = self._new_stream(self._next_id)
        self._next_id += 2
        self._send_control(pack(WINDOW, SYN, stream.stream_id, stream.window.widen(OPENER_WINDOW)))
        return stream

    async def accept_stream(self) -> MuxStream:
        """The next stream that the peer opened.

        Raises:
            MuxedConnUnavailable: the connection is over.
        """
        await trio.lowlevel.checkpoint()
        while not self.why_closed:
            while self._accepted:
                stream = self._accepted.popleft()
                if stream.on_wire:
                    return stream
            self._acceptable = trio.Event()
            await self._acceptable.wait()
        raise MuxedConnUnavailable(self.why_closed)

    def get_remote_address(self) -> tuple[str, int] | None:
        """Address of the peer's socket."""
        address: tuple[str, int] | None = self.secured_conn.get_remote_address()
        return address

    def get_transport_addresses(self) -> list[Any]:
        """Multiaddress of the peer's socket."""
        addresses: list[Any] = self.secured_conn.get_transport_addresses()
        return addresses

    def get_connection_type(self) -> Any:
        """Direct or relayed."""
        return self.secured_conn.get_connection_type()

    # -- what streams call

    @property
    def rtt_s(self) -> float:
        return min(self._rtts, default=0.001)

    def wants_to_send(self, stream: MuxStream) -> None:
        """Give a stream its turn."""
        if not stream.queued and stream.can_send:
            stream.queued = True
            (self._urgent if stream.pending <= URGENT_BYTES else self._bulk).append(stream)
            self._work.set()

    def send_credit(self, stream: MuxStream, count: int) -> None:
        self._send_control(pack(WINDOW, 0, stream.stream_id, count))

    def send_end(self, stream: MuxStream) -> None:
        self._send_control(pack(DATA, FIN, stream.stream_id))

    def send_reset(self, stream: MuxStream) -> None:
        self._send_control(pack(WINDOW, RST, stream.stream_id))

    def forget_if_done(self, stream: MuxStream) -> None:
        """Drop a stream that is over on the wire; it counts until its user has left it too."""
        if not stream.on_wire:
            if self._streams.pop(stream.stream_id, None) is not None:
                stream.window.release()
            if stream.left:
                self._theirs.discard(stream)

    # -- the inside

    def _new_stream(self, stream_id: int) -> MuxStream:
        stream = MuxStream(self, stream_id, ReceiveWindow(self._pool, trio.current_time()))
        self._streams[stream_id] = stream
        return stream

    def _send_control(self, frame: bytes) -> None:
        self._control.append(frame)
        self._work.set()

    def _answer(self, frame: bytes) -> None:
        """Answer a frame of the peer's; one that makes us answer and reads no answers is cut off."""
        if len(self._control) >= MAX_CONTROL:
            raise MuxProtocolError(f"{MAX_CONTROL} answers wait to be read")
        self._send_control(frame)

    async def _send_loop(self) -> None:
        while True:
            parts = self._next_batch()
            if parts:
                await self._channel.send(parts)
            else:
                self._work = trio.Event()
                await self._work.wait()

    def _next_batch(self) -> list[bytes | memoryview]:
        """Control frames, then urgent streams, then the others, one frame each in turns."""
        parts: list[bytes | memoryview] = []
        room = BATCH_BYTES
        while self._control and room >= HEADER_BYTES:
            parts.append(self._control.popleft())
            room -= HEADER_BYTES
        for queue in (self._urgent, self._bulk):
            while queue and room >= MIN_ROOM:
                stream = queue.popleft()
                stream.queued = False
                body = stream.take(room - HEADER_BYTES)
                if len(body):
                    parts += (pack(DATA, 0, stream.stream_id, len(body)), body)
                    room -= HEADER_BYTES + len(body)
                if stream.can_send:
                    stream.queued = True
                    self._bulk.append(stream)
        return parts

    async def _receive_loop(self) -> None:
        parser = FrameParser()
        while pieces := await self._channel.receive():
            self._heard_at = trio.current_time()
            for piece in pieces:
                for frame in parser.feed(piece):
                    self._on_frame(frame)

    def _on_frame(self, frame: Frame) -> None:
        kind, flags, stream_id, value, body = frame
        if kind == PING:
            return self._on_ping(flags, value)
        stream = self._opened_by_peer(stream_id) if flags & SYN else self._streams.get(stream_id)
        if stream is None:  # we have reset it, or refused it, and the peer did not know yet
            return self._check_was_open(stream_id)
        if kind == DATA:
            if value:
                stream.received(body)
        elif value:
            stream.granted(value)
        if flags & RST:
            stream.break_off("the peer reset the stream")
            self.forget_if_done(stream)
        elif flags & FIN:
            stream.ended_by_peer()
        return None

    def _opened_by_peer(self, stream_id: int) -> MuxStream | None:
        if stream_id % 2 == self._next_id % 2 or stream_id <= self._last_of_peer:
            raise MuxProtocolError(f"opens stream {stream_id} after {self._last_of_peer}")
        self._last_of_peer = stream_id
        if len(self._theirs) >= MAX_STREAMS:
            self._answer(pack(WINDOW, RST, stream_id))
            return None
        stream = self._new_stream(stream_id)
        self._theirs.add(stream)
        self._accepted.append(stream)
        self._acceptable.set()
        return stream

    def _check_was_open(self, stream_id: int) -> None:
        ours = stream_id % 2 == self._next_id % 2
        if stream_id >= self._next_id if ours else stream_id > self._last_of_peer:
            raise MuxProtocolError(f"a frame for stream {stream_id}, which was never opened")

    def _on_ping(self, flags: int, value: int) -> None:
        if flags & SYN:
            self._answer(pack(PING, ACK, 0, value))
        elif value == self._ping and self._pinged_at:
            self._rtts.append(trio.current_time() - self._pinged_at)
            self._pinged_at = 0.0

    async def _keep_alive(self) -> None:
        """Ping for round trips and signs of life; end streams that nobody wants to end."""
        while True:
            self._ping = (self._ping + 1) & 0xFFFF_FFFF
            self._pinged_at = trio.current_time()
            self._send_control(pack(PING, SYN, 0, self._ping))
            await trio.sleep(PING_EVERY_S)
            now = trio.current_time()
            if now - self._heard_at > DEAD_S:
                return self._end(f"nothing came for {DEAD_S:.0f} s")
            for stream in list(self._streams.values()):
                if stream.left and now - stream.idle_since > LINGER_S:
                    # no RST: the peer may still be reading what we sent before our end of the stream
                    stream.break_off("closed here, and never by the peer")
                    self.forget_if_done(stream)

    def _end(self, why: str) -> None:
        if self.why_closed:
            return
        self.why_closed = why
        logger.debug("event=connection_ended peer=%s why=%s", self.peer_id, why)
        self._channel.abort()
        for stream in list(self._streams.values()):
            stream.break_off(why)
            self.forget_if_done(stream)
        self._accepted.clear()
        self._control.clear()
        self._acceptable.set()
        if self._scope is not None:
            self._scope.cancel()
