"""Peers that lie, garble, stall, flood or have no business here; nothing they do ends a member's process."""

from __future__ import annotations

import os
import signal
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.pubsub.pb import rpc_pb2
from libp2p.security.insecure.transport import PLAINTEXT_PROTOCOL_ID, InsecureTransport
from multiaddr import Multiaddr

from psyche_train.blobs import PIECE, BlobStore, Manifest
from psyche_train.network import FetchError, NetworkClient, Peer
from psyche_train.network import links as links_module
from psyche_train.network.gossip import Gossip
from psyche_train.network.node import Node
from psyche_train.network.serve import Server
from psyche_train.network.streams import StreamBroken, read_exactly, write_all
from psyche_train.network.wire import (
    BLOB_PROTOCOL,
    BLOB_REQUEST_BYTES,
    LOG_PROTOCOL,
    PING_PROTOCOL,
    BlobRequest,
    Reply,
    Status,
)
from tests.train.network.network_support import (
    LOOPBACK,
    TOPIC,
    connected,
    introduce,
    peer_in_this_process,
    read_log,
    running,
    seed_of,
    until,
)

MB = 1 << 20
GOSSIP = "/meshsub/1.1.0"


async def meet(node: Node, *clients: NetworkClient, name: str) -> Peer:
    """Put a peer of this process into everybody's table, at slot 9, and wait for its connections."""
    peer = Peer(node.key, tuple(node.addresses()), 9)
    members = await introduce(clients, [peer])
    node.set_members(members)
    await until(lambda: all(node.connected(client.peer_key) for client in clients))
    for client in clients:
        await connected(client, node.key)
    return peer


def serve_with(node: Node, answer: Any) -> list[BlobRequest]:
    """Answer blob requests by `answer(stream, request)`; returns the requests seen."""
    seen: list[BlobRequest] = []

    async def handler(stream: Any, _key: bytes) -> None:
        while True:
            request = BlobRequest.from_bytes(await read_exactly(stream, BLOB_REQUEST_BYTES))
            seen.append(request)
            await answer(stream, request)

    node.handle(BLOB_PROTOCOL, handler)
    return seen


async def send_range(stream: Any, request: BlobRequest, data: bytes, true: bytes, pause_s: float = 0) -> None:
    """Answer as an honest peer would, but with `data` in place of the `true` blob."""
    manifest = Manifest.of_bytes(true).to_bytes() if request.want_manifest else b""
    part = data[request.offset : request.offset + request.length]
    await write_all(stream, Reply(Status.OK, len(manifest), len(part)).to_bytes() + manifest)
    for start in range(0, len(part), PIECE):
        await write_all(stream, part[start : start + PIECE])
        await trio.sleep(pause_s)


async def test_flipped_byte_is_refused_and_the_blob_comes_from_another_holder(tmp_path: Path) -> None:
    data = os.urandom(3 * PIECE + 5)
    flipped = bytearray(data)
    flipped[2 * PIECE + 77] ^= 1
    blob = Manifest.of_bytes(data).id
    async with running(tmp_path, "a", "b") as (a, b), peer_in_this_process("liar") as liar:

        async def lie(stream: Any, request: BlobRequest) -> None:
            await send_range(stream, request, bytes(flipped), data)

        seen = serve_with(liar, lie)
        await meet(liar, a, b, name="liar")
        with pytest.raises(FetchError) as caught:
            await b.fetch(blob, deadline_s=2, max_bytes=MB, holders=[liar.key])
        assert len(seen) == 1, "a peer that lied about a blob is not asked for it again"
        expected = f"sent corrupt data (piece 2 of blob {blob.hex()} does not match its hash)"
        assert caught.value.peers[liar.key] == expected
        assert f"peer {liar.key.hex()[:16]}: {expected}" in str(caught.value)

        await a.publish(data)
        assert await b.fetch(blob, deadline_s=20, max_bytes=MB, holders=[liar.key]) == data
        assert f"event=corrupt_blob blob={blob.hex()} peer={liar.key.hex()}" in read_log(tmp_path, "b")


async def test_wrong_manifests_lengths_and_silence_do_not_stop_a_fetch(tmp_path: Path) -> None:
    wrong = Manifest.of_bytes(os.urandom(10)).to_bytes()
    lies = [
        (Reply(Status.OK, len(wrong), 10).to_bytes() + wrong + bytes(10), "does not match the id"),
        (Reply(Status.OK, 2**32 - 1, 10).to_bytes(), "a manifest of 4294967295 bytes, allowed"),
        (Reply(Status.OK, 0, 10).to_bytes(), "answered 0+10 bytes"),
        (Reply(Status.OK, len(wrong), 2**32 - 1).to_bytes(), "4294967295 bytes to a request for"),
        (b"\xff" * 9, "status 255 is unknown"),
        (b"\x00" * 4, "ended 5 bytes early"),
        (b"", "ended 9 bytes early"),
    ]
    blobs = [os.urandom(PIECE + 1) for _ in lies]
    told = {Manifest.of_bytes(blob).id: lie for blob, (lie, _) in zip(blobs, lies, strict=True)}
    async with running(tmp_path, "a", "b") as (a, b), peer_in_this_process("liar") as liar:

        async def lie(stream: Any, request: BlobRequest) -> None:
            await write_all(stream, told[request.blob])
            await stream.close()
            raise StreamBroken("that is all")

        serve_with(liar, lie)
        await meet(liar, a, b, name="liar")

        async def fetch(blob: bytes, why: str) -> None:
            name = Manifest.of_bytes(blob).id
            with pytest.raises(FetchError) as caught:
                await b.fetch(name, deadline_s=4, max_bytes=MB, holders=[liar.key])
            assert why in caught.value.peers[liar.key]
            await a.publish(blob)
            assert await b.fetch(name, deadline_s=20, max_bytes=MB, holders=[liar.key]) == blob

        async with trio.open_nursery() as nursery:
            for blob, (_, why) in zip(blobs, lies, strict=True):
                nursery.start_soon(fetch, blob, why)
        assert (await b.status()).restarts == 0


async def test_fetch_survives_the_death_of_its_own_process_and_resumes(tmp_path: Path) -> None:
    data = os.urandom(24 * PIECE)
    blob = Manifest.of_bytes(data).id
    async with running(tmp_path, "a") as (a,), peer_in_this_process("slow") as slow:

        async def slowly(stream: Any, request: BlobRequest) -> None:
            await send_range(stream, request, data, data, pause_s=0.1)

        seen = serve_with(slow, slowly)
        await meet(slow, a, name="slow")
        async with trio.open_nursery() as nursery:
            got: list[bytes] = []

            async def fetch() -> None:
                got.append(await a.fetch(blob, deadline_s=60, max_bytes=16 * MB))

            nursery.start_soon(fetch)
            await until(lambda: bool(seen))
            await trio.sleep(0.6)
            assert not got
            assert a.process_id is not None
            os.kill(a.process_id, signal.SIGKILL)
            before = len(seen)
        assert got == [data]
        assert len(seen) > before
        assert all(not r.want_manifest for r in seen[before:]), "the manifest was kept"
        assert min(r.offset for r in seen[before:]) >= 2 * PIECE, "verified pieces were kept"
        assert (await a.status()).restarts == 1


async def test_garbage_on_every_protocol_leaves_the_member_serving(tmp_path: Path) -> None:
    """The measured crashes of py-libp2p among them: bad gossip frames, undecodable keys, odd requests."""

    def framed(rpc: rpc_pb2.RPC) -> bytes:
        raw = rpc.SerializeToString()
        size, prefix = len(raw), bytearray()
        while size > 127:
            prefix.append(size & 127 | 128)
            size >>= 7
        return bytes(prefix) + bytes((size,)) + raw

    def message(key: bytes, sender: bytes = b"\x12\x20" + os.urandom(32)) -> bytes:
        return framed(
            rpc_pb2.RPC(
                publish=[
                    rpc_pb2.Message(
                        from_id=sender, seqno=bytes(8), data=b"x", topicIDs=["psyche/test"],
                        signature=b"z" * 64, key=key,
                    )
                ]
            )
        )  # fmt: skip

    control = rpc_pb2.RPC(
        control=rpc_pb2.ControlMessage(
            iwant=[rpc_pb2.ControlIWant(messageIDs=[b"zz", b"[1]"])],
            ihave=[rpc_pb2.ControlIHave(topicID="psyche/test", messageIDs=[b"zz", b"(1,2)"])],
            graft=[rpc_pb2.ControlGraft(topicID="unknown")],
            prune=[rpc_pb2.ControlPrune(topicID="unknown")],
        )
    )
    attacks = [
        (GOSSIP, b"\xc8\x01" + b"\xff" * 200),
        (GOSSIP, b"\x80\x80\x80\x01" + b"a" * 1000),
        (GOSSIP, b"\xff" * 12),
        (GOSSIP, b"\xe8\x07a"),
        (GOSSIP, message(b"garbage")),
        (GOSSIP, message(b"\x08\x01\x12\x03abc")),
        (GOSSIP, message(b"\x08\x01\x12\x20" + os.urandom(32), sender=b"")),
        (GOSSIP, framed(control)),
        (BLOB_PROTOCOL, b"\x00"),
        (BLOB_PROTOCOL, os.urandom(BLOB_REQUEST_BYTES)),
        (BLOB_PROTOCOL, struct.pack("<BB32sQI", 1, 1, bytes(32), 2**64 - 1, 2**32 - 1)),
        (BLOB_PROTOCOL, os.urandom(100_000)),
        (LOG_PROTOCOL, os.urandom(41)),
        (LOG_PROTOCOL, struct.pack("<B32sII", 1, bytes(32), 2**32 - 1, 2**32 - 1)),
        (PING_PROTOCOL, b"short"),
        ("/psyche/none/1", b"?"),
    ]
    async with running(tmp_path, "a", "b") as (a, b), peer_in_this_process("vandal") as vandal:
        await meet(vandal, a, b, name="vandal")
        for protocol, data in attacks:
            with trio.move_on_after(5):
                try:
                    stream = await vandal.open_stream(a.peer_key, protocol)
                    await write_all(stream, data)
                    await trio.sleep(0.05)
                    await stream.reset()
                except StreamBroken:
                    await trio.sleep(0.3)  # refused, or the connection was closed: dial again
        for raw in (struct.pack("!BBHII", 9, 7, 0, 5, 3), struct.pack("!BBHII", 0, 0, 0, 1, 2**32 - 1)):
            await until(lambda: vandal.connected(a.peer_key))
            (item, *_) = vandal.swarm.get_connections(vandal.members[a.peer_key].id)
            with suppress(ConnectionClosedError):
                await item.muxed_conn.secured_conn.write(raw)
            await until(lambda item=item: item.is_closed)
        name = await a.publish(b"still here")
        assert await b.fetch(name, deadline_s=20, max_bytes=MB, holders=[a.peer_key]) == b"still here"
        status = await a.status()
        assert status.running
        assert status.restarts == 0
        assert "gossip_dropped" in read_log(tmp_path, "a")


async def test_strangers_are_refused_and_a_stock_host_with_a_members_key_is_served(tmp_path: Path) -> None:
    async def visit(host: Any, address: str, protocol: str) -> bytes:
        """Dial and ping as a plain py-libp2p host."""
        async with host.run(listen_addrs=[Multiaddr(LOOPBACK)]):
            try:
                with trio.fail_after(8):
                    await host.connect(info_from_p2p_addr(Multiaddr(address)))
                    stream = await host.new_stream(info_from_p2p_addr(Multiaddr(address)).peer_id, [protocol])
                    await stream.write(b"0123456789abcdef")
                    return await read_exactly(stream, 16, idle_s=5)
            finally:
                with trio.move_on_after(3):
                    await host.close()

    async with running(tmp_path, "a") as (a,):
        pair = create_new_key_pair(seed_of("stock"))
        stock = Peer(bytes(pair.public_key.to_bytes()), (), 5)
        await introduce([a], [stock])
        address = f"{(await a.addresses())[0]}/p2p/{Node(seed_of('a'), LOOPBACK).id}"

        with pytest.raises(Exception):  # noqa: B017, PT011 (the library has a dozen kinds for it)
            await visit(new_host(listen_addrs=[Multiaddr(LOOPBACK)]), address, PING_PROTOCOL)
        stranger = create_new_key_pair(seed_of("stranger"))
        plain = {PLAINTEXT_PROTOCOL_ID: InsecureTransport(pair)}
        with pytest.raises(Exception):  # noqa: B017, PT011
            await visit(
                new_host(key_pair=pair, sec_opt=plain, listen_addrs=[Multiaddr(LOOPBACK)]),
                address,
                PING_PROTOCOL,
            )
        assert (await a.status()).connected == ()
        answer = await visit(
            new_host(key_pair=pair, listen_addrs=[Multiaddr(LOOPBACK)]), address, PING_PROTOCOL
        )
        assert answer == b"0123456789abcdef"
        assert "event=stranger_refused" in read_log(tmp_path, "a")
        assert str(ID.from_pubkey(stranger.public_key)) not in read_log(tmp_path, "a")


async def test_announcements_arrive_signed_and_only_when_the_blob_may_be_seen(tmp_path: Path) -> None:
    async with running(tmp_path, "a") as (a,), peer_in_this_process("listener") as listener:
        gossip = Gossip(listener, TOPIC)
        async with gossip.running():
            await meet(listener, a, name="listener")
            hidden = await a.publish(b"hidden", hidden_until=2)
            shown = await a.publish(b"shown")
            await until(lambda: gossip.holders.of(shown) == [a.peer_key])
            assert gossip.holders.of(hidden) == []
            await a.reveal(2)
            await until(lambda: gossip.holders.of(hidden) == [a.peer_key])


async def test_frozen_peer_is_noticed_and_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links_module, "PING_EVERY_S", 0.2)
    monkeypatch.setattr(links_module, "PING_S", 1.0)
    async with running(tmp_path, "a") as (a,), peer_in_this_process("watcher") as watcher:
        await meet(watcher, a, name="watcher")
        process = a.process_id
        assert process is not None
        os.kill(process, signal.SIGSTOP)
        try:
            await until(lambda: not watcher.connected(a.peer_key), 10)
        finally:
            os.kill(process, signal.SIGCONT)
        await until(lambda: watcher.connected(a.peer_key))


async def test_cancelled_transfers_leave_the_connection_usable(tmp_path: Path) -> None:
    """Stock py-libp2p corrupts the connection in half of the cases when a write is cancelled."""
    async with peer_in_this_process("one") as one, peer_in_this_process("two") as two:
        for node, other in ((one, two), (two, one)):
            node.set_members([Peer(other.key, tuple(other.addresses()), 0)])
        await until(lambda: one.connected(two.key) and two.connected(one.key))
        store = BlobStore(tmp_path / "blobs")
        name = store.put(os.urandom(8 * MB))
        Server(two, store, tmp_path / "records.log")

        async def sink(stream: Any, _key: bytes) -> None:
            while await stream.read(1 << 16):
                pass

        two.handle("/test/sink/1", sink)
        connections = list(one.swarm.get_connections(two.id))
        for attempt in range(20):
            stream = await one.open_stream(two.key, "/test/sink/1")
            with trio.move_on_after(0.003 + 0.001 * attempt):
                while True:
                    await write_all(stream, bytes(200_000))
            await stream.reset()
            stream = await one.open_stream(two.key, BLOB_PROTOCOL)
            with trio.move_on_after(0.003 + 0.002 * attempt):
                await write_all(stream, BlobRequest(name, 0, 4 * MB, True).to_bytes())
                await read_exactly(stream, 4 * MB)
            await stream.reset()
        with trio.fail_after(5):
            stream = await one.open_stream(two.key, PING_PROTOCOL)
            await write_all(stream, b"0123456789abcdef")
            assert await read_exactly(stream, 16) == b"0123456789abcdef"
        assert list(one.swarm.get_connections(two.id)) == connections


async def test_reconnections_do_not_use_up_inbound_slots(tmp_path: Path) -> None:
    async with peer_in_this_process("one") as one, peer_in_this_process("two") as two:
        caller, called = (one, two) if one.key < two.key else (two, one)
        called.set_members([Peer(caller.key, (), 0)])
        caller.set_members([Peer(called.key, tuple(called.addresses()), 0)])

        async def meeting() -> bool:
            return caller.connected(called.key) and called.connected(caller.key)

        for _ in range(4):
            await until(meeting)
            await caller.drop(called.id, "test")
        await until(meeting)

        async def one_slot() -> bool:
            return called.swarm._inbound_limiter.borrowed_tokens == 1

        await until(one_slot)
