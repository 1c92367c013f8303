"""A TCP proxy in front of a member's port, with a bad network in it.

Loss needs a model here, for a proxy sees a stream and no packets: each segment that would have been lost delays
the rest of its stream by TCP's retransmission timeout. `localnet.faults.packets` loses real packets instead,
where it may.
"""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import trio

from localnet.faults.links import Fabric

CHUNK_BYTES = 16 * 1024
MIN_WINDOW_BYTES = 64 * 1024
MAX_WINDOW_BYTES = 4 * 1024 * 1024
CONNECT_S = 10.0
BROKEN = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)

Who = Callable[[int, int], int | None]
"""Member that dialled, from the ports of its connection (its own, ours); None where it is not known."""


class FaultProxy:
    """Carries connections to one member over the fabric.

    Resource handling: `run` closes every socket when it is cancelled or `kill` was called. Error handling: what
    happens to one connection ends that one only.

    Args:
        member: who is behind it.
        target: host and port of the member.
    """

    def __init__(self, fabric: Fabric, member: int, target: tuple[str, int], who: Who | None = None) -> None:
        self._fabric = fabric
        self._member = member
        self.target = target
        self._who = who or (lambda _theirs, _ours: None)
        self._open: set[_Connection] = set()
        self._scope = trio.CancelScope()
        self.port = 0
        """Where it listens on 127.0.0.1, once `run` has started."""
        self.bytes_carried = 0
        self.connections = 0

    async def run(self, port: int = 0, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """Listen until cancelled; tells its port when it does."""
        with self._scope:
            listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
            self.port = listeners[0].socket.getsockname()[1]
            task_status.started(self.port)
            await trio.serve_listeners(self._carry, listeners)

    def reset(self) -> None:
        """End every connection with a reset; new ones are taken."""
        for connection in list(self._open):
            connection.reset()

    def kill(self) -> None:
        """End every connection with a reset, and listen no more."""
        self.reset()
        self._scope.cancel()

    async def _carry(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        connection = _Connection(stream)
        self._open.add(connection)
        try:
            with connection.scope:
                dialler = self._who(stream.socket.getpeername()[1], self.port)
                await self._fabric.passable(dialler, self._member)
                with trio.fail_after(CONNECT_S):
                    connection.behind = await trio.open_tcp_stream(*self.target)
                await self._both_ways(connection, dialler)
        except* (*BROKEN, trio.TooSlowError):
            connection.reset()
        finally:
            self._open.discard(connection)
            connection.close()

    async def _both_ways(self, connection: _Connection, dialler: int | None) -> None:
        assert connection.behind is not None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._pump, connection.front, connection.behind, dialler, self._member)
            nursery.start_soon(self._pump, connection.behind, connection.front, self._member, dialler)

    async def _pump(
        self, source: trio.SocketStream, target: trio.SocketStream, sender: int | None, receiver: int | None
    ) -> None:
        """Carry one direction until its end, which travels as slowly as the bytes do."""
        under_way, arriving = trio.open_memory_channel[tuple[float, bytes]](self._window(sender, receiver))
        rng = self._fabric.stream(sender, receiver)
        async with trio.open_nursery() as nursery, under_way:
            nursery.start_soon(self._deliver, arriving, target, sender, receiver)
            last = 0.0
            while True:
                data = bytes(await source.receive_some(CHUNK_BYTES))
                last = max(last, self._arrival(sender, receiver, len(data), rng))
                await under_way.send((last, data))
                if not data:
                    return

    def _window(self, sender: int | None, receiver: int | None) -> int:
        """Chunks that may be under way: enough to fill the line, as a tuned TCP window is."""
        up, down = self._fabric.link(sender), self._fabric.link(receiver)
        narrowest = min(up.up_bytes_s, down.down_bytes_s, 1e9)
        in_flight = narrowest * 2 * (up.latency_s + down.latency_s)
        return int(min(MAX_WINDOW_BYTES, max(MIN_WINDOW_BYTES, in_flight))) // CHUNK_BYTES

    def _arrival(self, sender: int | None, receiver: int | None, size: int, rng: random.Random) -> float:
        fabric = self._fabric
        passed = fabric.passed_at(sender, receiver, size, trio.current_time())
        again_s = fabric.retransmission_s(sender, receiver, size, rng)
        return passed + fabric.delay_s(sender, receiver, rng) + again_s

    async def _deliver(
        self,
        arriving: trio.MemoryReceiveChannel[tuple[float, bytes]],
        target: trio.SocketStream,
        sender: int | None,
        receiver: int | None,
    ) -> None:
        async with arriving:
            async for at, data in arriving:
                await trio.sleep_until(at)
                await self._fabric.passable(sender, receiver)
                if not data:
                    await target.send_eof()
                    return
                await target.send_all(data)
                self.bytes_carried += len(data)


class _Connection:
    """The two sockets of a carried connection."""

    def __init__(self, front: trio.SocketStream) -> None:
        self.front = front
        self.behind: trio.SocketStream | None = None
        self.scope = trio.CancelScope()

    def reset(self) -> None:
        """Close both with a reset instead of an end."""
        for stream in (self.front, self.behind):
            if stream is not None:
                with suppress(OSError):
                    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.scope.cancel()

    def close(self) -> None:
        for stream in (self.front, self.behind):
            if stream is not None:
                stream.socket.close()


def free_port() -> int:
    """A port of this machine that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
