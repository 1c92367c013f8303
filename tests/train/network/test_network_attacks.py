"""Attacks on a real network process, and what each leaves behind: memory, descriptors, and an honest member served."""

from __future__ import annotations

import os
import random
import signal
import struct
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import trio
from multiaddr import Multiaddr

from psyche_train.blobs import PIECE, Manifest
from psyche_train.network import NetworkClient, Peer
from psyche_train.network.gossip import IDS_PER_MESSAGE, MAX_BLOBS, MAX_PER_MEMBER, Holders
from psyche_train.network.node import Node
from psyche_train.network.streams import StreamBroken, read_exactly, write_all
from psyche_train.network.transport import MAX_PENDING_PER_HOST, MAX_SESSIONS_PER_MEMBER
from psyche_train.network.wire import (
    BLOB_PROTOCOL,
    REPLY_BYTES,
    BlobRequest,
    Reply,
    Status,
)
from tests.train.network.network_support import (
    connected,
    introduce,
    peer_in_this_process,
    running,
    until,
)

MB = 1 << 20
MAX_GROWTH_BYTES = 96 * MB
"""Of the process under attack, everything included."""
MAX_DESCRIPTORS_LEFT = 12
ELSEWHERE = "127.0.0.2"
"""Attackers come from another address of this machine than the honest members."""


class Victim:
    """The network process of a member, and what it used before the attack."""

    def __init__(self, client: NetworkClient) -> None:
        assert client.process_id is not None
        self.client = client
        self._process = psutil.Process(client.process_id)
        self._rss = self._process.memory_info().rss
        self._descriptors = self._process.num_fds()

    def connections(self) -> int:
        return sum(c.status == psutil.CONN_ESTABLISHED for c in self._process.net_connections("tcp"))

    async def port(self) -> int:
        return int((await self.client.addresses())[0].rpartition("/")[2])

    async def unharmed(self, reader: NetworkClient, seconds: float = 30) -> None:
        """It is the same process, bounded, and serves an honest member."""
        data = os.urandom(100_000)
        name = await self.client.publish(data)
        assert await reader.fetch(name, deadline_s=30, max_bytes=MB) == data
        assert self._process.is_running()
        assert (await self.client.status()).restarts == 0
        await until(lambda: self._process.num_fds() <= self._descriptors + MAX_DESCRIPTORS_LEFT, seconds)
        assert self._process.memory_info().rss <= self._rss + MAX_GROWTH_BYTES


async def raw(port: int, host: str = ELSEWHERE) -> trio.SocketStream:
    """A TCP connection from elsewhere."""
    sock = trio.socket.socket()
    await sock.bind((host, 0))
    await sock.connect(("127.0.0.1", port))
    return trio.SocketStream(sock)


async def meet(node: Node, a: NetworkClient, b: NetworkClient) -> None:
    members = await introduce([a, b], [Peer(node.key, tuple(node.addresses()), 9)])
    node.set_members(members)
    await until(lambda: node.connected(a.peer_key))
    await connected(b, a.peer_key)


@pytest.mark.slow
async def test_sockets_of_strangers(tmp_path: Path) -> None:
    """Garbage, HTTP, half-open, a byte at a time, 500 idle at once: an honest member gets in meanwhile."""
    garbage = [
        os.urandom(MB), b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\xff" * 64, b"",
        b"\x13/multistream/1.0.0\n" + os.urandom(5000),
        b"\x13/multistream/1.0.0\n\x07/noise\n" + os.urandom(70_000),
    ]  # fmt: skip
    async with running(tmp_path, "a", "late") as (a, late):
        victim, port = Victim(a), int((await a.addresses())[0].rpartition("/")[2])
        open_sockets: list[trio.SocketStream] = []

        async def throw(data: bytes) -> None:
            stream = await raw(port)
            open_sockets.append(stream)
            try:
                await stream.send_all(data)
            except trio.BrokenResourceError:
                return

        async def drip() -> None:
            stream = await raw(port)
            open_sockets.append(stream)
            for byte in b"\x13/multistream/1.0.0\n\x07/noise\n" * 5:
                try:
                    await stream.send_all(bytes((byte,)))
                except trio.BrokenResourceError:
                    return
                await trio.sleep(0.3)

        async with trio.open_nursery() as nursery:
            for data in garbage:
                nursery.start_soon(throw, data)
            nursery.start_soon(drip)
            for _ in range(500):
                open_sockets.append(await raw(port))
            await introduce([a, late])
            await connected(late, a.peer_key)
            nursery.cancel_scope.cancel()
        await victim.unharmed(late)
        for stream in open_sockets:
            await trio.aclose_forcefully(stream)
        await victim.unharmed(late)


@pytest.mark.slow
@pytest.mark.parametrize("word", [b"", b"\x13/multistream/1.0.0\n"], ids=["silent", "greeting"])
async def test_idle_sockets_from_a_members_own_address_do_not_keep_it_out(
    tmp_path: Path, word: bytes
) -> None:
    """Members behind one router share its address with whoever else is there; the oldest who waits makes room."""
    async with running(tmp_path, "a", "late") as (a, late):
        victim = Victim(a)
        port = await victim.port()
        async with AsyncExitStack() as stack:
            for _ in range(500):
                stream = await stack.enter_async_context(await raw(port, "127.0.0.1"))
                with suppress(trio.BrokenResourceError):
                    await stream.send_all(word)

            async def more() -> None:  # idle ones time out: that alone must not let anybody in
                while True:
                    await stack.enter_async_context(await raw(port, "127.0.0.1"))
                    await trio.sleep(0.05)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(more)
                await introduce([a, late])
                await connected(late, a.peer_key)
                nursery.cancel_scope.cancel()
            assert victim.connections() <= MAX_PENDING_PER_HOST + 8
            await victim.unharmed(late)


async def test_a_member_has_a_few_sessions_and_gets_them_back(tmp_path: Path) -> None:
    """Each costs its buffers, half a megabyte, whether or not a muxer follows."""
    async with running(tmp_path, "a") as (a,), peer_in_this_process("greedy") as greedy:
        greedy.set_members([Peer(a.peer_key, (), 0)])
        await introduce([a], [Peer(greedy.key, (), 9)])
        process, address = psutil.Process(a.process_id), Multiaddr((await a.addresses())[0])
        listening = len(process.net_connections("tcp"))
        sessions = []
        for _ in range(3 * MAX_SESSIONS_PER_MEMBER):
            raw_connection = await greedy.transport.dial(address)
            sessions.append(
                await greedy.swarm.upgrader.upgrade_security(
                    raw_connection, True, greedy.members[a.peer_key].id
                )
            )

        def held() -> int:
            return sum(c.status == psutil.CONN_ESTABLISHED for c in process.net_connections("tcp"))

        assert listening == 1
        await until(lambda: held() == MAX_SESSIONS_PER_MEMBER)
        for session in sessions:
            await session.close()
        await until(lambda: held() == 0)
        greedy.set_members([Peer(a.peer_key, tuple(await a.addresses()), 0)])
        await connected(a, greedy.key)


@pytest.mark.slow
async def test_two_hundred_and_fifty_connections_of_one_member(tmp_path: Path) -> None:
    async with running(tmp_path, "a", "b") as (a, b), peer_in_this_process("greedy") as greedy:
        await meet(greedy, a, b)
        victim, address = Victim(a), Multiaddr((await a.addresses())[0])
        identity = greedy.members[a.peer_key].id
        held: list[Any] = []

        async def another() -> None:
            try:
                with trio.fail_after(20):
                    connection = await greedy.transport.dial(address)
                    held.append(connection)
                    held.append(await greedy.swarm.upgrader.upgrade_security(connection, True, identity))
            except Exception:
                return

        for _ in range(10):
            async with trio.open_nursery() as nursery:
                for _ in range(25):
                    nursery.start_soon(another)
        await victim.client.publish(b"x")
        async with running(tmp_path, "newcomer") as (newcomer,):
            await introduce([a, b, newcomer], [Peer(greedy.key, (), 9)])
            await connected(newcomer, a.peer_key)
        for connection in held:
            with trio.move_on_after(1):
                await connection.close()
        await victim.unharmed(b, 40)


async def requests_by_the_thousand(node: Node, victim: NetworkClient) -> None:
    """Of what is not there, on as many streams as it lets us have."""
    request = BlobRequest(os.urandom(32), 0, MB, True).to_bytes()

    async def ask() -> None:
        try:
            stream = await node.open_stream(victim.peer_key, BLOB_PROTOCOL)
            for _ in range(100):
                await write_all(stream, request)
                status = Reply.from_bytes(await read_exactly(stream, REPLY_BYTES)).status
                assert status in (Status.NOT_FOUND, Status.BUSY)
            await stream.close()
        except StreamBroken:
            return

    async with trio.open_nursery() as nursery:
        for _ in range(30):
            nursery.start_soon(ask)


async def stalled_readers(node: Node, victim: NetworkClient) -> None:
    """Ask for much on many streams and read nothing of it."""
    name = await victim.publish(os.urandom(8 * MB))
    streams = []
    for _ in range(20):
        try:
            stream = await node.open_stream(victim.peer_key, BLOB_PROTOCOL)
            streams.append(stream)
            for _ in range(8):
                await write_all(stream, BlobRequest(name, 0, 4 * MB, True).to_bytes())
        except StreamBroken:
            break
    await trio.sleep(2)
    for stream in streams:
        with trio.move_on_after(1):
            await stream.reset()


async def cancelled_writes_and_requests(node: Node, victim: NetworkClient) -> None:
    name = await victim.publish(os.urandom(6 * MB))
    for attempt in range(20):
        try:
            stream = await node.open_stream(victim.peer_key, BLOB_PROTOCOL)
            with trio.move_on_after(0.002 * attempt):
                await write_all(stream, BlobRequest(name, 0, 4 * MB, True).to_bytes())
                await read_exactly(stream, 4 * MB)
            await stream.reset()
        except StreamBroken:
            await trio.sleep(0.2)


async def muxer_rubbish(node: Node, victim: NetworkClient) -> None:
    """Frames of no known kind, of 4 GB, random bytes, and 3000 streams opened without a word."""
    syn = b"".join(struct.pack("!BBHII", 0, 1, 1, 100_001 + 2 * i, 0) for i in range(3000))
    rubbish = [
        struct.pack("!BBHII", 9, 7, 0, 5, 3), struct.pack("!BBHII", 0, 0, 0, 1, 2**32 - 1),
        struct.pack("!BBHII", 0, 0, 0, 999, 15 << 20), os.urandom(60_000), syn, b"\xff" * 4096, bytes(4096),
        struct.pack("!BBHII", 0, 3, 0, 0, 1),
    ]  # fmt: skip
    for data in rubbish:
        await until(lambda: node.connected(victim.peer_key), 40)
        for connection in list(node.swarm.get_connections(node.members[victim.peer_key].id)):
            with trio.move_on_after(3):
                try:
                    await connection.muxed_conn.secured_conn.write(data)
                except Exception:
                    continue
        await trio.sleep(0.3)


ATTACKS: dict[str, Callable[[Node, NetworkClient], Awaitable[None]]] = {
    "requests": requests_by_the_thousand,
    "stalled": stalled_readers,
    "cancelled": cancelled_writes_and_requests,
    "muxer": muxer_rubbish,
}


@pytest.mark.slow
@pytest.mark.parametrize("attack", ATTACKS)
async def test_hostile_member(tmp_path: Path, attack: str) -> None:
    async with running(tmp_path, "a", "b") as (a, b), peer_in_this_process("hostile") as hostile:
        await meet(hostile, a, b)
        victim = Victim(a)
        with trio.fail_after(90):
            await ATTACKS[attack](hostile, a)
        await victim.unharmed(b)


async def test_refusal_to_serve_and_commits_without_blobs_cost_only_that_member(tmp_path: Path) -> None:
    """A holder that everybody names answers "busy", nothing, or that it has it not; the blob comes from another."""
    data = os.urandom(3 * PIECE)
    blob = Manifest.of_bytes(data).id
    async with running(tmp_path, "a", "b") as (a, b), peer_in_this_process("miser") as miser:
        asked: list[int] = []

        async def refuse(stream: Any, _key: bytes) -> None:
            asked.append(1)
            await read_exactly(stream, len(BlobRequest(blob, 0, 1, True).to_bytes()))
            if len(asked) % 3 == 0:
                await trio.sleep_forever()
            await write_all(stream, Reply((Status.BUSY, Status.NOT_FOUND)[len(asked) % 2]).to_bytes())

        miser.handle(BLOB_PROTOCOL, refuse)
        await meet(miser, a, b)
        await a.publish(data)
        assert await b.fetch(blob, deadline_s=20, max_bytes=MB, holders=[miser.key]) == data
        assert asked


def test_equivocating_announcements_are_bounded() -> None:
    """Members that announce everything fill neither memory nor the others' places."""
    holders = Holders()
    honest, wanted = b"h" * 32, b"w" * 32
    holders.add(honest, wanted)
    for number in range(3 * MAX_PER_MEMBER):
        holders.add(b"liar" * 8, number.to_bytes(32, "big"))
    assert sum(len(holders.of(n.to_bytes(32, "big"))) for n in range(3 * MAX_PER_MEMBER)) <= MAX_PER_MEMBER
    assert holders.of(wanted) == [honest]
    assert len(holders._holders) <= MAX_BLOBS
    assert IDS_PER_MESSAGE * 32 + 2 < 1000


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
async def test_network_processes_killed_at_random_cost_a_retry(tmp_path: Path, seed: int) -> None:
    """While blobs are fetched and served in all directions, processes die; every blob arrives."""
    dice = random.Random(seed)
    names = ["a", "b", "c"]
    async with running(tmp_path, *names) as members:
        await introduce(members)
        blobs = [os.urandom(dice.choice([1000, 300_000, 6 * MB])) for _ in range(9)]
        ids = [await members[i % 3].publish(blob) for i, blob in enumerate(blobs)]
        done: list[int] = []

        async def fetch(reader: NetworkClient, number: int) -> None:
            await trio.sleep(number * 0.4)
            assert await reader.fetch(ids[number], deadline_s=90, max_bytes=8 * MB) == blobs[number]
            done.append(number)

        async with trio.open_nursery() as nursery:
            for number in range(len(blobs)):
                for reader in members:
                    nursery.start_soon(fetch, reader, number)
            for _ in range(4):
                await trio.sleep(dice.uniform(0.2, 2.0))
                pid = dice.choice(members).process_id
                if pid is not None:
                    os.kill(pid, signal.SIGKILL)
        assert len(done) == 3 * len(blobs)
        for member in members:
            assert not list(member.store.directory.glob("*.part")), "nothing half-fetched is left"


async def test_strangers_get_neither_muxer_nor_stream(tmp_path: Path) -> None:
    """A key that is in nobody's table is turned away right after the handshake."""
    async with running(tmp_path, "a") as (a,), peer_in_this_process("stranger") as stranger:
        await introduce([a])
        victim = Victim(a)
        stranger.set_members([Peer(a.peer_key, tuple(await a.addresses()), 0)])
        tried = stranger.members[a.peer_key]
        await until(
            lambda: tried.failures >= 2 or (tried.failures > 0 and not stranger.connected(a.peer_key)), 30
        )
        assert (await a.status()).connected == ()
        process = psutil.Process(a.process_id)
        assert process.memory_info().rss <= victim._rss + MAX_GROWTH_BYTES
