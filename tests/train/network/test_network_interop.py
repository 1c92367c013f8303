"""A stock py-libp2p host and ours, each dialling the other; and two of ours, which use their own muxer."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.peer.peerinfo import PeerInfo
from multiaddr import Multiaddr

from psyche_train.network.links import Links
from psyche_train.network.mux import MUX_PROTOCOL, Muxer
from psyche_train.network.node import Node
from psyche_train.network.streams import read_exactly, write_all
from psyche_train.network.types import Peer
from tests.train.network.network_support import seed_of, until

LOOPBACK = "/ip4/127.0.0.1/tcp/0"
ECHO = "/psyche/echo/1"
BYTES = 3_000_000


async def echo(stream: Any, _key: bytes = b"") -> None:
    """Send back what comes, after its length, while it comes."""
    size = int.from_bytes(await read_exactly(stream, 4), "big")
    while size:
        part = await read_exactly(stream, min(size, 100_000))
        size -= len(part)
        await write_all(stream, part)


async def exchange(stream: Any) -> None:
    """Send many bytes and read them back at the same time."""
    content = os.urandom(BYTES)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(write_all, stream, len(content).to_bytes(4, "big") + content)
        back = await read_exactly(stream, len(content))
    await stream.close()
    assert hashlib.sha256(back).digest() == hashlib.sha256(content).digest()


@asynccontextmanager
async def our_node(name: str) -> AsyncIterator[Node]:
    node = Node(seed_of(name), LOOPBACK)
    node.handle(ECHO, echo)
    async with trio.open_nursery() as nursery:
        await nursery.start(node.run)
        nursery.start_soon(Links(node).run)
        yield node
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def stock_host(name: str) -> AsyncIterator[tuple[Any, bytes]]:
    pair = create_new_key_pair(seed_of(name))
    host: Any = new_host(key_pair=pair)
    host.set_stream_handler(ECHO, echo)
    async with host.run(listen_addrs=[Multiaddr(LOOPBACK)]):
        yield host, bytes(pair.public_key.to_bytes())
        await host.close()


@pytest.mark.parametrize("stock_dials", [True, False])
async def test_stock_host_exchanges_with_ours_both_ways(stock_dials: bool) -> None:
    with trio.fail_after(60):
        async with our_node("ours") as node, stock_host("stock") as (host, key):
            address = [] if stock_dials else [str(a) for a in host.get_transport_addrs()]
            node.set_members([Peer(key, tuple(a.split("/p2p/")[0] for a in address), 0)])
            if stock_dials:
                addrs = [Multiaddr(a) for a in node.addresses()]
                await host.connect(PeerInfo(node.id, addrs))
            await until(lambda: node.connected(key))
            (connection,) = node.swarm.get_connections(host.get_id())
            assert type(connection.muxed_conn).__name__ == "Yamux"
            assert connection.muxed_conn.is_initiator is not stock_dials
            async with trio.open_nursery() as nursery:
                for opened in (
                    await node.open_stream(key, ECHO),
                    await node.open_stream(key, ECHO),
                    await host.new_stream(node.id, [ECHO]),
                ):
                    nursery.start_soon(exchange, opened)
            assert node.connected(key)


async def test_two_of_ours_use_their_own_muxer() -> None:
    with trio.fail_after(60):
        async with our_node("one") as one, our_node("two") as two:
            for node, other in ((one, two), (two, one)):
                node.set_members([Peer(other.key, tuple(other.addresses()), 0)])
            await until(lambda: one.connected(two.key) and two.connected(one.key))
            for node, other in ((one, two), (two, one)):
                (connection, *_) = node.swarm.get_connections(other.id)
                assert isinstance(connection.muxed_conn, Muxer)
                assert connection.get_negotiated_muxer_protocol() == MUX_PROTOCOL
                async with trio.open_nursery() as nursery:
                    for _ in range(3):
                        nursery.start_soon(exchange, await node.open_stream(other.key, ECHO))
            assert one.traffic.bytes_out > 6 * BYTES
            # what is left: the long-lived streams of the library, if any; none of ours
            await until(lambda: len(connection.muxed_conn._streams) <= 1)
