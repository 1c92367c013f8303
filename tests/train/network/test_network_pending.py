"""Connections that are not authenticated yet: few for each address, and the newest is never the one that goes."""

from __future__ import annotations

import pytest
import trio
from multiaddr import Multiaddr

from psyche_train.network.transport import MAX_PENDING_PER_HOST, BufferedStream, MemberTCP, Traffic


@pytest.mark.parametrize("attackers_speak", [False, True])
async def test_the_newest_connection_is_let_in_however_many_wait(attackers_speak: bool) -> None:
    started: list[BufferedStream] = []
    greeted = trio.Event()

    async def handler(stream: BufferedStream) -> None:
        started.append(stream)
        if await stream.read(5) == b"hello":
            greeted.set()
        await stream.closed.wait()

    listener = MemberTCP(Traffic()).create_listener(handler)
    sockets: list[trio.SocketStream] = []
    with trio.fail_after(30):
        await listener.listen(Multiaddr("/ip4/127.0.0.1/tcp/0"))
        port = int(listener.get_addrs()[0].value_for_protocol("tcp"))
        honest = await trio.open_tcp_stream("127.0.0.1", port)
        sockets.append(honest)
        while not started:
            await trio.sleep(0.01)
        for number in range(MAX_PENDING_PER_HOST * 2):
            sockets.append(await trio.open_tcp_stream("127.0.0.1", port))
            if attackers_speak:
                await sockets[-1].send_all(b"noise")
            while len(started) < number + 2:
                await trio.sleep(0.001)
        late = await trio.open_tcp_stream("127.0.0.1", port)
        sockets.append(late)
        await late.send_all(b"hello")
        await greeted.wait()
        waiting = [stream for stream in started if not stream.closed.is_set()]
        assert len(waiting) == MAX_PENDING_PER_HOST
        assert started[-1] in waiting
        assert started[0] not in waiting, "the oldest that said nothing went first"
        await listener.close()
    for stream in sockets:
        await trio.aclose_forcefully(stream)
