"""The fault proxy with real sockets."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio

from localnet.faults.links import Fabric, Link
from localnet.faults.owners import owner_of, socket_inode
from localnet.faults.proxy import FaultProxy


async def echo(stream: trio.SocketStream) -> None:
    with suppress(trio.BrokenResourceError):  # the proxy resets connections on purpose
        async for data in stream:
            await stream.send_all(data)
        await stream.send_eof()


@asynccontextmanager
async def echo_behind(fabric: Fabric) -> AsyncIterator[FaultProxy]:
    """An echo server as member 1, with its proxy; whoever dials is member 0."""
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, echo, listeners)
            port = listeners[0].socket.getsockname()[1]
            proxy = FaultProxy(fabric, 1, ("127.0.0.1", port), lambda _theirs, _ours: 0)
            await nursery.start(proxy.run)
            yield proxy
            nursery.cancel_scope.cancel()


async def exchange(proxy: FaultProxy, data: bytes) -> bytes:
    """Send all, end, read all."""
    async with await trio.open_tcp_stream("127.0.0.1", proxy.port) as stream, trio.open_nursery() as nursery:

        async def send() -> None:
            await stream.send_all(data)
            await stream.send_eof()

        nursery.start_soon(send)
        return b"".join([bytes(part) async for part in stream])


async def connection_through(proxy: FaultProxy) -> trio.SocketStream:
    """A connection that has carried a byte there and back."""
    stream = await trio.open_tcp_stream("127.0.0.1", proxy.port)
    await stream.send_all(b"x")
    assert await stream.receive_some() == b"x"
    return stream


async def test_bytes_arrive_whole_and_in_order_through_loss_and_jitter() -> None:
    data = bytes(range(256)) * 2000
    link = Link.half_of(loss=0.02, jitter_s=0.005)
    async with echo_behind(Fabric({0: link, 1: link}, 4)) as proxy:
        assert await exchange(proxy, data) == data
        assert proxy.bytes_carried == 2 * len(data)


async def test_latency_is_paid_in_each_direction() -> None:
    link = Link.half_of(latency_s=0.15)
    async with echo_behind(Fabric({0: link, 1: link})) as proxy:
        started = time.monotonic()
        assert await exchange(proxy, b"x") == b"x"
        assert time.monotonic() - started >= 0.3


async def test_bandwidth_is_each_directions_own() -> None:
    # 100 kB up at 1 MB/s and back at 200 kB/s: 0.1 s and 0.5 s.
    async with echo_behind(Fabric({0: Link(up_bytes_s=1e6, down_bytes_s=2e5)})) as proxy:
        started = time.monotonic()
        assert len(await exchange(proxy, bytes(100_000))) == 100_000
        assert time.monotonic() - started >= 0.5


async def test_in_a_partition_connections_stay_open_and_nothing_flows_until_it_heals() -> None:
    fabric = Fabric({})
    async with echo_behind(fabric) as proxy:
        stream = await trio.open_tcp_stream("127.0.0.1", proxy.port)
        await stream.send_all(b"before")
        assert await stream.receive_some() == b"before"
        fabric.partition([0])
        await stream.send_all(b"during")
        late = await trio.open_tcp_stream("127.0.0.1", proxy.port)
        await late.send_all(b"new")
        with trio.move_on_after(0.3) as waited:
            await stream.receive_some()
        assert waited.cancelled_caught
        with trio.move_on_after(0.1) as waited:
            await late.receive_some()
        assert waited.cancelled_caught
        fabric.heal()
        assert await stream.receive_some() == b"during"
        assert await late.receive_some() == b"new"


async def test_reset_ends_connections_and_takes_new_ones() -> None:
    async with echo_behind(Fabric({})) as proxy:
        stream = await connection_through(proxy)
        proxy.reset()
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        assert await exchange(proxy, b"again") == b"again"


async def test_kill_resets_connections_and_refuses_new_ones() -> None:
    async with echo_behind(Fabric({})) as proxy:
        stream = await connection_through(proxy)
        proxy.kill()
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        with pytest.raises(OSError, match="connect"):
            await trio.open_tcp_stream("127.0.0.1", proxy.port)


async def test_a_member_that_is_not_there_resets_who_dials_it() -> None:
    fabric = Fabric({})
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        async with trio.open_nursery() as nursery:
            proxy = FaultProxy(fabric, 1, ("127.0.0.1", unused.getsockname()[1]))
            await nursery.start(proxy.run)
            stream = await trio.open_tcp_stream("127.0.0.1", proxy.port)
            with pytest.raises(trio.BrokenResourceError), trio.fail_after(5):
                await stream.receive_some()
            nursery.cancel_scope.cancel()


async def test_the_member_that_dialled_is_found(tmp_path: Path) -> None:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    own = stream.socket.getsockname()[1]
    if socket_inode(own, port) is None:
        pytest.skip("there is no /proc/net/tcp here")
    mine, other, torn = tmp_path / "0", tmp_path / "1", tmp_path / "2"
    other.write_text("1")
    torn.write_text("")
    mine.write_text(str(os.getpid()))
    known = [(1, other), (2, torn), (3, tmp_path / "none"), (7, mine)]
    assert owner_of(own, port, known) == 7
    assert owner_of(own, port, known[:3]) is None
    await stream.aclose()
    for listener in listeners:
        await listener.aclose()
