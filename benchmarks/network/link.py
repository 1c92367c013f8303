"""A line with a delay and a rate: a proxy in a process of its own.

Each direction delivers bytes `delay_s` after they came, and lets `rate` bytes a second through; it holds no
more than `QUEUE_BYTES` that are waiting for the rate, as a router would, so that a sender notices.
"""

from __future__ import annotations

import json
import socket
import sys

import trio

from benchmarks.network.processes import until_stdin_ends

QUEUE_BYTES = 256 * 1024
_READ_BYTES = 32 * 1024


async def carry(source: trio.SocketStream, sink: trio.SocketStream, delay_s: float, rate: float) -> None:
    """One direction, until it ends."""
    send, receive = trio.open_memory_channel[tuple[float, bytes]](1_000_000)

    async def take() -> None:
        free_at = trio.current_time()
        with send:
            while True:
                try:
                    data = bytes(await source.receive_some(_READ_BYTES))
                except trio.BrokenResourceError:
                    data = b""
                if rate and data:
                    free_at = max(free_at, trio.current_time()) + len(data) / rate
                    await trio.sleep_until(free_at)
                await send.send((trio.current_time() + delay_s, data))
                if not data:
                    return

    async def deliver() -> None:
        async for at, data in receive:
            if at > trio.current_time():
                await trio.sleep_until(at)
            try:
                if not data:
                    return await sink.send_eof()
                await sink.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return None
        return None

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        nursery.start_soon(deliver)


async def main(port: int, delay_s: float, rate: float) -> None:
    """Print the port that leads to `port`, and carry until standard input ends."""

    async def serve(near: trio.SocketStream) -> None:
        near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, QUEUE_BYTES // 2)  # the kernel doubles it
        async with await trio.open_tcp_stream("127.0.0.1", port) as far:
            far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, QUEUE_BYTES // 2)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(carry, near, far, delay_s, rate)
                nursery.start_soon(carry, far, near, delay_s, rate)

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, listeners)
        print(json.dumps({"port": listeners[0].socket.getsockname()[1]}), flush=True)
        await until_stdin_ends()
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main, int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]))
