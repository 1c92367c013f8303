"""What py-libp2p 0.8.1 gets from us below its streams: buffered TCP, and Noise that checks who is there.

Four measured traps are closed here, once for everything above:

- a cancelled write left half a frame, or a used-up nonce, on the connection: `NoiseSession.write` finishes
  what it began, whoever is cancelled. A write that cannot end (a frozen peer) ends when the watchdog of
  `links.py` aborts the socket;
- any key that completed the handshake was accepted: `MemberNoise` closes connections of strangers right
  after the handshake, before a muxer or a stream exists;
- one member could hold any number of sessions, at half a megabyte each: `MemberNoise` keeps to a few;
- each inbound connection kept a task and one of the swarm's inbound slots for the life of the process, so
  that a node refused everybody after a few hundred reconnections: `MemberTCP` ends the handler with its
  socket.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any
from weakref import WeakSet

import trio
from libp2p.crypto.keys import KeyPair
from libp2p.crypto.x25519 import create_new_key_pair
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.io.trio import TrioTCPStream
from libp2p.peer.id import ID
from libp2p.security.exceptions import HandshakeFailure
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.transport.tcp.tcp import TCP

from psyche_train.network.session import NoiseSession

READ_BYTES = 256 * 1024
"""Asked of a socket at once; stock reads two bytes, then one frame."""
CLOSE_GRACE_S = 1.0
"""How long a connection's handler may clean up after its socket closed."""
MAX_PENDING_PER_HOST = 64
"""Connections of one remote address that may be in the handshake at once; a further one ends an older one."""
MAX_SESSIONS_PER_MEMBER = 8
"""Sessions that one member may have opened to us; the swarm keeps three, the others are knocks and dying ones."""


class Traffic:
    """Bytes over all sockets of this process."""

    def __init__(self) -> None:
        self.bytes_in = 0
        self.bytes_out = 0


class BufferedStream(TrioTCPStream):  # type: ignore[misc, unused-ignore]
    """A TCP stream that reads ahead, counts, and knows when it was last heard and when it closed."""

    def __init__(self, stream: trio.SocketStream, traffic: Traffic) -> None:
        super().__init__(stream)
        self._traffic = traffic
        self._ahead = b""
        self._at = 0
        self.closed = trio.Event()
        self.on_settled: Callable[[], None] = lambda: None
        self.heard = False
        """Whether the peer ever sent a byte."""
        self.last_read = trio.current_time()

    async def read(self, n: int | None = None) -> bytes:
        async with self.read_lock:
            if n == 0:
                return b""
            if self._at >= len(self._ahead):
                try:
                    data = bytes(await self.stream.receive_some(READ_BYTES))
                except trio.ClosedResourceError:
                    return b""
                except trio.BrokenResourceError as exc:
                    raise ConnectionClosedError(f"TCP connection reset: {exc}", transport="tcp") from exc
                self.last_read, self.heard = trio.current_time(), bool(data) or self.heard
                self._traffic.bytes_in += len(data)
                if n is None or n >= len(data):
                    return data
                self._ahead, self._at = data, 0
            end = len(self._ahead) if n is None else self._at + n
            taken = self._ahead[self._at : end]
            self._at += len(taken)
            return taken

    async def receive_into(self, view: memoryview) -> int:
        """Read what there is into `view`; 0 at the end, also when it was closed here.

        Raises:
            ConnectionClosedError: the peer reset the connection.
        """
        ahead = self._ahead[self._at : self._at + len(view)]
        if ahead:
            view[: len(ahead)] = ahead
            self._at += len(ahead)
            return len(ahead)
        try:
            count: int = await self.stream.socket.recv_into(view)
        except trio.ClosedResourceError:
            return 0
        except OSError as exc:
            if self.closed.is_set():
                return 0
            raise ConnectionClosedError(f"TCP connection reset: {exc}", transport="tcp") from exc
        self.last_read = trio.current_time()
        self._traffic.bytes_in += count
        return count

    async def send(self, data: memoryview) -> None:
        """Write everything; one writer at a time.

        Raises:
            ConnectionClosedError: the socket broke or was closed.
        """
        try:
            await self.stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            raise ConnectionClosedError(f"TCP connection closed: {exc}", transport="tcp") from exc
        self._traffic.bytes_out += len(data)

    async def write(self, data: bytes) -> None:
        await super().write(data)
        self._traffic.bytes_out += len(data)

    async def close(self) -> None:
        try:
            await super().close()
        finally:
            self._ended()

    def abort(self) -> None:
        """Close the socket at once: every task that reads or writes it fails now."""
        self.stream.socket.close()
        self._ended()

    def settled(self) -> None:
        """The handshake has ended, one way or the other."""
        self.on_settled()

    def _ended(self) -> None:
        self.closed.set()
        self.settled()


class MemberTCP(TCP):  # type: ignore[misc, unused-ignore]
    """TCP with `BufferedStream`s whose handlers end with their sockets."""

    def __init__(self, traffic: Traffic) -> None:
        super().__init__()
        self._traffic = traffic
        self._pending: defaultdict[str, list[BufferedStream]] = defaultdict(list)

    async def _dial_resolved(self, maddr: Any, source: Any = None) -> Any:
        connection: Any = await super()._dial_resolved(maddr, source)
        connection.stream = BufferedStream(connection.stream.stream, self._traffic)
        return connection

    def create_listener(self, handler: Callable[[Any], Awaitable[None]]) -> Any:
        async def serve(stream: Any) -> None:
            buffered = BufferedStream(stream.stream, self._traffic)
            remote = (buffered.get_remote_address() or ("", 0))[0]
            pending = self._pending[remote]
            if len(pending) >= MAX_PENDING_PER_HOST:
                # who said nothing goes first, then who waits longest: a member may share the address
                min(pending, key=lambda other: other.heard).abort()
            pending.append(buffered)
            buffered.on_settled = partial(self._settle, remote, buffered)
            try:
                async with trio.open_nursery() as nursery:

                    async def watch() -> None:
                        await buffered.closed.wait()
                        await trio.sleep(CLOSE_GRACE_S)
                        nursery.cancel_scope.cancel()

                    nursery.start_soon(watch)
                    await handler(buffered)
                    nursery.cancel_scope.cancel()
            finally:
                self._settle(remote, buffered)

        return super().create_listener(serve)

    def _settle(self, remote: str, stream: BufferedStream) -> None:
        pending = self._pending.get(remote, [])
        if stream in pending:
            pending.remove(stream)
        if not pending:
            self._pending.pop(remote, None)


class MemberNoise(NoiseTransport):  # type: ignore[misc, unused-ignore]
    """Noise that ends a connection unless its key is a member's.

    Args:
        allowed: whether a peer is a member now; asked once, after the handshake proved the key.
        refused: told about every stranger.
    """

    def __init__(
        self, key_pair: KeyPair, allowed: Callable[[ID], bool], refused: Callable[[ID], None]
    ) -> None:
        super().__init__(key_pair, noise_privkey=create_new_key_pair().private_key)
        self._allowed = allowed
        self._refused = refused
        self._inbound: defaultdict[ID, WeakSet[BufferedStream]] = defaultdict(WeakSet)

    async def secure_inbound(self, conn: Any) -> NoiseSession:
        session = await super().secure_inbound(conn)
        admitted = await self._admit(session, conn)
        streams = self._inbound[admitted.remote_peer]
        if sum(not stream.closed.is_set() for stream in streams) >= MAX_SESSIONS_PER_MEMBER:
            await session.close()
            raise HandshakeFailure(
                f"{admitted.remote_peer} has {MAX_SESSIONS_PER_MEMBER} sessions with us already"
            )
        streams.add(conn.stream)
        return admitted

    async def secure_outbound(self, conn: Any, peer_id: ID) -> NoiseSession:
        return await self._admit(await super().secure_outbound(conn, peer_id), conn)

    async def _admit(self, session: Any, conn: Any) -> NoiseSession:
        remote = session.get_remote_peer()
        if not self._allowed(remote):
            self._refused(remote)
            await session.close()
            raise HandshakeFailure(f"{remote} is not a member")
        conn.stream.settled()
        return NoiseSession(session, conn, conn.stream)
