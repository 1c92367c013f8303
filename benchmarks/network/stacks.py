"""What is compared: raw TCP, py-libp2p as it comes, and our two steps over it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.stream_muxer.yamux.yamux import Yamux
from multiaddr import Multiaddr

from psyche_train.network.mux import MUX_PROTOCOL, Muxer, WindowPool
from psyche_train.network.mux.window import POOL_PER_HOST
from psyche_train.network.transport import MemberNoise, MemberTCP, Traffic

STACKS = ("tcp", "stock", "step1", "step2")
NAMES = {
    "tcp": "raw trio TCP",
    "stock": "py-libp2p as it comes (Noise, Yamux)",
    "step1": "ours over Yamux",
    "step2": "ours",
}
PROTOCOL = "/psyche/benchmark/1"
FRAME = 65_507

Opened = Any
"""Something with `read(n)`, `write(data)` and `close()`."""
Serve = Callable[[Opened], Awaitable[None]]


def write_bytes(stack: str) -> int:
    """The size of writes that suits a stack best."""
    return FRAME if stack in ("stock", "step1") else 1 << 20


def _host(stack: str) -> Any:
    pair = create_new_key_pair()
    if stack == "stock":
        noise: Any = NoiseTransport(pair, noise_privkey=create_noise_key_pair().private_key)
        return new_host(key_pair=pair, sec_opt={NOISE: noise}, muxer_opt={YAMUX: Yamux})
    muxers: dict[str, Any] = {YAMUX: Yamux}
    if stack == "step2":
        muxers = {MUX_PROTOCOL: partial(Muxer, pool=WindowPool(POOL_PER_HOST)), **muxers}
    return new_host(
        key_pair=pair,
        sec_opt={NOISE: MemberNoise(pair, lambda _: True, lambda _: None)},
        muxer_opt=muxers,
        transports=[MemberTCP(Traffic())],
    )


class _Plain:
    """A TCP connection with the methods of a libp2p stream."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.read = stream.receive_some
        self.write = stream.send_all

    async def close(self) -> None:
        """It serves many requests."""


@asynccontextmanager
async def serving(stack: str, serve: Serve) -> AsyncIterator[tuple[int, str]]:
    """Serve streams; yields port and libp2p identity."""
    if stack == "tcp":
        async with trio.open_nursery() as nursery:
            listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, lambda stream: serve(_Plain(stream)), listeners)
            yield listeners[0].socket.getsockname()[1], ""
            nursery.cancel_scope.cancel()
        return
    host = _host(stack)
    host.set_stream_handler(PROTOCOL, serve)
    async with host.run(listen_addrs=[Multiaddr("/ip4/127.0.0.1/tcp/0")]):
        (address,) = host.get_transport_addrs()
        yield int(address.value_for_protocol("tcp")), str(host.get_id())
        await host.close()


@asynccontextmanager
async def connected(stack: str, port: int, identity: str) -> AsyncIterator[Callable[[], Awaitable[Opened]]]:
    """Connect; yields what opens a stream."""
    if stack == "tcp":
        plain = _Plain(await trio.open_tcp_stream("127.0.0.1", port))

        async def same() -> Opened:
            return plain

        yield same
        return
    host = _host(stack)
    async with host.run(listen_addrs=[Multiaddr("/ip4/127.0.0.1/tcp/0")]):
        peer = info_from_p2p_addr(Multiaddr(f"/ip4/127.0.0.1/tcp/{port}/p2p/{identity}"))
        await host.connect(peer)

        async def new() -> Opened:
            return await host.new_stream(peer.peer_id, [PROTOCOL])

        yield new
        await host.close()
