"""Members that nobody can dial: their blobs go to members that somebody can, which verify, limit and hide them."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from psyche_train.blobs import PIECE, BlobStore, Manifest
from psyche_train.network import FetchError, NetworkClient, NetworkConfig, Peer, PushLimits
from psyche_train.network.pushed import Note, drop_note, pushed_bytes, pushed_lately, read_note, write_note
from psyche_train.network.streams import read_exactly, write_all
from psyche_train.network.types import NOWHERE
from psyche_train.network.wire import (
    PUSH_PROTOCOL,
    REACH_PROTOCOL,
    REPLY_BYTES,
    Offer,
    Reply,
    Status,
    WireError,
    pack_reach,
)
from tests.train.network.network_support import (
    config_of,
    connected,
    introduce,
    peer_in_this_process,
    running,
    running_as,
    until,
)

MB = 1 << 20


def silent(name: str, root: Path) -> NetworkConfig:
    """Listens on nothing and announces nothing."""
    return replace(config_of(name, root), listen=NOWHERE)


async def status_is(client: NetworkClient, dialable: bool) -> None:
    async def check() -> bool:
        return (await client.status()).dialable is dialable

    await until(check)


async def test_one_reachable_member_is_enough(tmp_path: Path) -> None:
    configs = [config_of("hub", tmp_path), *(silent(name, tmp_path) for name in "abc")]
    async with running_as(*configs) as (hub, *hidden):
        assert [await member.addresses() for member in hidden] == [[], [], []]
        await introduce([hub, *hidden])
        for member in hidden:
            await connected(member, hub.peer_key)
            await status_is(member, False)
        await status_is(hub, True)
        update, secret, long = os.urandom(70_000), os.urandom(5 * MB), os.urandom(9 * PIECE + 1)
        open_blob = await hidden[0].publish(update)
        long_blob = await hidden[1].publish(long)
        round_blob = await hidden[2].publish(secret, hidden_until=4)

        async def pushed() -> bool:
            return all([(await member.status()).unpushed == 0 for member in hidden])

        # what may be seen is held by the one that can be dialled, without anybody asking
        await until(lambda: all(map(hub.store.has, (open_blob, long_blob))))
        await until(pushed)
        assert not hub.store.has(round_blob), "an update does not leave its member while its round is open"
        with pytest.raises(FetchError):
            await hidden[0].fetch(round_blob, deadline_s=1, max_bytes=6 * MB)
        for blob, data, reader in ((open_blob, update, hidden[1]), (long_blob, long, hidden[0])):
            assert await reader.fetch(blob, deadline_s=20, max_bytes=6 * MB) == data

        # the owner sees the commits closed before its replica does: the replica keeps it hidden
        await hub.reveal(3)
        await hidden[2].reveal(4)
        await until(lambda: hub.store.has(round_blob))
        with pytest.raises(FetchError, match="before its round is revealed"):
            await hidden[0].fetch(round_blob, deadline_s=1.5, max_bytes=6 * MB)
        await hub.reveal(4)
        assert await hidden[0].fetch(round_blob, deadline_s=20, max_bytes=6 * MB, urgent=True) == secret

        await hub.prune([])
        assert hub.store.has(long_blob), "what was pushed lately stays"


async def test_forwarded_port_that_is_not_open_is_noticed_by_asking(tmp_path: Path) -> None:
    """It listens, but where it says that it does there is nobody."""
    behind = replace(config_of("behind", tmp_path), announce=("/ip4/127.0.0.1/tcp/1",))
    async with running_as(config_of("hub", tmp_path), behind) as (hub, member):
        await introduce([hub, member])
        await connected(member, hub.peer_key)
        await status_is(member, False)
        blob = await member.publish(b"pushed")
        await until(lambda: hub.store.has(blob))
        assert "nobody_can_dial_us" in (tmp_path / "behind" / "network.log").read_text()


@pytest.mark.slow
async def test_killed_replica_and_killed_pusher_cost_a_retry(tmp_path: Path) -> None:
    configs = [config_of("hub", tmp_path), silent("a", tmp_path), silent("b", tmp_path)]
    async with running_as(*configs) as (hub, a, b):
        await introduce([hub, a, b])
        await connected(a, hub.peer_key)
        data = os.urandom(24 * MB)
        blob = await a.publish(data)
        partial = tmp_path / "hub" / "blobs" / f"{blob.hex()}.part"
        await until(partial.exists)
        for victim in (hub, a):
            assert victim.process_id is not None
            os.kill(victim.process_id, signal.SIGKILL)
            await until(lambda victim=victim: victim.process_id is not None)
        await until(lambda: hub.store.has(blob), 60)
        assert await b.fetch(blob, deadline_s=60, max_bytes=32 * MB) == data


async def test_replica_refuses_before_it_takes_anything(tmp_path: Path) -> None:
    limits = PushLimits(blob_bytes=2 * MB, member_bytes=3 * MB, reserve_bytes=0)
    limited = replace(config_of("hub", tmp_path), push_limits=limits)
    async with running_as(limited) as (hub,), peer_in_this_process("pusher") as pusher:
        await introduce([hub], [Peer(pusher.key, tuple(pusher.addresses()), 9)])
        pusher.set_members([Peer(hub.peer_key, tuple(await hub.addresses()), 0)])
        await until(lambda: pusher.connected(hub.peer_key))
        await hub.reveal(5)

        async def offer(offer: Offer, answers: int = 1) -> list[Status]:
            stream = await pusher.open_stream(hub.peer_key, PUSH_PROTOCOL)
            await write_all(stream, offer.to_bytes())
            found = [Reply.from_bytes(await read_exactly(stream, REPLY_BYTES)).status]
            if answers == 2:
                found.append(Reply.from_bytes(await read_exactly(stream, REPLY_BYTES, idle_s=90)).status)
            await stream.close()
            return found

        name = os.urandom(32)
        assert await offer(Offer(name, 2 * MB + 1, None, True)) == [Status.TOO_LARGE]
        assert await offer(Offer(name, 2**64 - 1, None, True)) == [Status.TOO_LARGE]
        assert await offer(Offer(name, 10, 7, True)) == [Status.HIDDEN]
        assert await offer(Offer(name, 10, 2**62, True)) == [Status.HIDDEN]
        assert list(hub.store.directory.iterdir()) == []

        # honest blobs up to the member's share of the disk, then no more
        store = BlobStore(tmp_path / "own")
        from psyche_train.network.serve import Server

        Server(pusher, store, tmp_path / "none.log")
        sizes = [2 * MB, MB]
        for size in sizes:
            blob = store.put(os.urandom(size))
            assert await offer(Offer(blob, size, None, True), 2) == [Status.OK, Status.OK]
            assert await offer(Offer(blob, size, None, True), 2) == [Status.OK, Status.OK], "held already"
        assert await offer(Offer(name, 1, None, True)) == [Status.FULL]

        # a blob that is longer than it was offered as, and one that does not come, leave nothing behind
        await hub.prune([])
        for path in list(hub.store.directory.iterdir()):
            path.unlink()
        long = store.put(os.urandom(PIECE))
        assert await offer(Offer(long, PIECE - 1, None, True), 2) == [Status.OK, Status.FAILED]
        assert [path.name for path in hub.store.directory.iterdir()] == []

        # many at once
        async with trio.open_nursery() as nursery:
            answers: list[Status] = []

            async def flood() -> None:
                answers.extend(await offer(Offer(os.urandom(32), 10, None, False)))

            for _ in range(10):
                nursery.start_soon(flood)
        assert answers.count(Status.BUSY) >= 10 - 4
        assert (await hub.status()).restarts == 0


async def test_a_push_cannot_hide_a_blob_that_the_replica_wants_itself(tmp_path: Path) -> None:
    async with running(tmp_path, "a", "b") as (a, b):
        await introduce([a, b])
        blob = await a.publish(b"x" * 1000)
        write_note(b.store, blob, Note(a.peer_key, 9))
        assert b.store.put(b"x" * 1000) == blob
        await connected(a, b.peer_key)
        b.store.delete(blob)
        write_note(b.store, blob, Note(a.peer_key, 9))
        await b.fetch(blob, deadline_s=20, max_bytes=MB)
        assert read_note(b.store, blob) is None


async def test_nobody_is_made_to_dial_others(tmp_path: Path) -> None:
    knocks: list[int] = []
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.2")
    port = listener.socket.getsockname()[1]

    async def answer(stream: trio.SocketStream) -> None:
        knocks.append(1)
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, answer, [listener])
        async with running(tmp_path, "a") as (a,), peer_in_this_process("curious") as curious:
            await introduce([a], [Peer(curious.key, tuple(curious.addresses()), 9)])
            curious.set_members([Peer(a.peer_key, tuple(await a.addresses()), 0)])
            await until(lambda: curious.connected(a.peer_key))

            async def ask(addresses: list[str]) -> tuple[Reply, list[str]]:
                stream = await curious.open_stream(a.peer_key, REACH_PROTOCOL)
                await write_all(stream, pack_reach(addresses))
                reply = Reply.from_bytes(await read_exactly(stream, REPLY_BYTES))
                body = await read_exactly(stream, reply.second) if reply.second else b""
                await stream.close()
                return reply, body.decode().split("\n")

            own = curious.addresses()[0]
            reply, lines = await ask([f"/ip4/127.0.0.2/tcp/{port}", own, "rubbish", "/ip4/127.0.0.1/tcp/1"])
            assert reply.first == 4
            assert lines[0] == "not an address of this member on chain, nor where it connects from"
            assert lines[1] == ""
            assert "is not a multiaddr" in lines[2]
            assert lines[3]
            reply, _ = await ask([own])
            assert reply.status is Status.BUSY, "not again at once"
            assert not knocks
        nursery.cancel_scope.cancel()


def test_notes_of_pushed_blobs_survive_and_fail_safe(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    data = os.urandom(1000)
    blob = Manifest.of_bytes(data).id
    write_note(store, blob, Note(b"k" * 32, 3))
    assert read_note(store, blob) == Note(b"k" * 32, 3)
    assert pushed_bytes(store, b"k" * 32) == 0
    store.put(data)
    assert pushed_bytes(store, b"k" * 32) == 1000
    assert pushed_bytes(store, b"j" * 32) == 0
    assert pushed_lately(store, 60) == {blob}
    assert pushed_lately(store, -60) == set()
    for torn in ("", "zz", "k" * 500, f"{'6b' * 32}", f"{'6b' * 32} x"):
        (tmp_path / f"{blob.hex()}.pushed").write_text(torn)
        note = read_note(store, blob)
        assert note is not None
        assert note.hidden_until == 2**63
    store.delete(blob)
    assert read_note(store, blob) is None
    drop_note(store, blob)


def test_offers_are_total() -> None:
    offer = Offer(os.urandom(32), 5, None, True)
    assert Offer.from_bytes(offer.to_bytes()) == offer
    for raw in (
        b"",
        offer.to_bytes()[:-1],
        b"\x02" + offer.to_bytes()[1:],
        offer.to_bytes()[:-8] + b"\xfe" + b"\xff" * 7,
    ):
        with pytest.raises(WireError):
            Offer.from_bytes(raw)
