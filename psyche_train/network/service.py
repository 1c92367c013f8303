"""The network process: a libp2p node that does what its client says over the socket.

It keeps nothing that matters in memory: blobs are on disk, members and the revealed round are sent again
after a restart. It ends when its client does (the socket closes), so that no orphan keeps a port.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import trio

from psyche_train.blobs import BlobStore
from psyche_train.network.fetch import Fetcher, FetchFailed
from psyche_train.network.gossip import Gossip
from psyche_train.network.links import Links
from psyche_train.network.logs import fetch_chains
from psyche_train.network.node import Node
from psyche_train.network.protocol import (
    AnyMessage,
    Ask,
    Cancel,
    Channel,
    Done,
    Failed,
    Fetch,
    FetchLog,
    Hello,
    Members,
    Message,
    ProtocolError,
    Published,
    Ready,
    Records,
    Reveal,
    State,
    Stop,
)
from psyche_train.network.push import Pusher, Replica
from psyche_train.network.pushed import drop_note
from psyche_train.network.reach import Reach
from psyche_train.network.serve import Server
from psyche_train.network.streams import describe
from psyche_train.network.types import Peer, PushLimits

logger = logging.getLogger(__name__)

MAX_PENDING_ANNOUNCEMENTS = 4096


async def serve_client(channel: Channel) -> None:
    """Run a node for the client at the other end until it says stop or goes away.

    Raises:
        ProtocolError: the client does not speak the protocol.
        OSError, BlobStoreError: the listening address or the blob directory cannot be used.
    """
    first = await channel.receive()
    if first is None:
        return
    hello, seed = first
    if not isinstance(hello, Hello) or len(seed) != 32:
        raise ProtocolError("the first frame has to be hello with a seed of 32 bytes")
    node = Node(seed, hello.listen, hello.announce)
    store = BlobStore(Path(hello.blob_dir))
    links = Links(node)
    server = Server(node, store, Path(hello.log_path))
    gossip = Gossip(node, hello.topic)
    fetcher = Fetcher(node, store, gossip.holders)
    reach = Reach(node)
    pusher = Pusher(node, store, server, lambda: reach.needs_push, hello.replicas)
    limits = PushLimits(hello.push_blob_bytes, hello.push_member_bytes, hello.push_reserve_bytes)
    async with trio.open_nursery() as nursery:
        await nursery.start(node.run)
        nursery.start_soon(links.run)
        nursery.start_soon(reach.run)
        nursery.start_soon(pusher.run)
        async with gossip.running():
            service = _Service(channel, node, server, gossip, fetcher, reach, pusher)
            Replica(node, store, fetcher, server, limits, service.taken)
            logger.info("event=listening key=%s addresses=%s", node.key.hex(), ",".join(node.addresses()))
            await channel.send(Ready(addresses=node.addresses()))
            await service.run()
        nursery.cancel_scope.cancel()


class _Service:
    def __init__(
        self,
        channel: Channel,
        node: Node,
        server: Server,
        gossip: Gossip,
        fetcher: Fetcher,
        reach: Reach,
        pusher: Pusher,
    ) -> None:
        self._channel = channel
        self._node = node
        self._server = server
        self._gossip = gossip
        self._fetcher = fetcher
        self._reach = reach
        self._pusher = pusher
        self._scopes: dict[int, trio.CancelScope] = {}
        self._unannounced: dict[bytes, None] = {}
        self._own: dict[bytes, None] = {}
        """Of those, the blobs that this member published."""

    def taken(self, blob: bytes) -> None:
        """A blob is in the store: tell the others once it may be served."""
        self._unannounced[blob] = None
        while len(self._unannounced) > MAX_PENDING_ANNOUNCEMENTS:
            oldest = next(iter(self._unannounced))
            del self._unannounced[oldest]
            self._own.pop(oldest, None)
        self._announce()

    async def run(self) -> None:
        """Handle messages until stop or the end of the socket."""
        async with trio.open_nursery() as nursery:
            while (frame := await self._channel.receive()) is not None:
                message = frame[0]
                if isinstance(message, Stop):
                    break
                await self._handle(message, nursery)
            nursery.cancel_scope.cancel()

    async def _handle(self, message: AnyMessage, nursery: trio.Nursery) -> None:
        match message:
            case Members(members=entries):
                peers = [Peer(bytes.fromhex(m.key), tuple(m.addrs), m.slot) for m in entries]
                self._node.set_members(peers)
            case Reveal(round=number):
                self._server.revealed = max(self._server.revealed, number)
                self._announce()
            case Published(blob=blob):
                self._own[bytes.fromhex(blob)] = None
                self.taken(bytes.fromhex(blob))
            case Ask(request=number):
                await self._channel.send(self._state(number))
            case Cancel(request=number):
                if number in self._scopes:
                    self._scopes[number].cancel()
            case Fetch():
                nursery.start_soon(self._answer, message.request, partial(self._fetch, message))
            case FetchLog():
                nursery.start_soon(self._answer, message.request, partial(self._fetch_log, message))
            case _:
                raise ProtocolError(f"a client does not send {type(message).__name__}")

    async def _answer(self, number: int, work: Callable[[], Awaitable[tuple[Message, bytes]]]) -> None:
        if number in self._scopes:
            return  # sent twice around a restart
        with trio.CancelScope() as scope:
            self._scopes[number] = scope
            try:
                answer, body = await work()
            except FetchFailed as exc:
                peers = {key.hex(): reason for key, reason in exc.peers.items()}
                answer, body = Failed(request=number, why=str(exc), peers=peers), b""
            except Exception as exc:  # a request that ends the process would end the next one, too
                logger.exception("event=request_failed request=%d", number)
                answer, body = Failed(request=number, why=f"internal error, {describe(exc)}"), b""
            finally:
                del self._scopes[number]
            await self._channel.send(answer, body)

    async def _fetch(self, message: Fetch) -> tuple[Message, bytes]:
        blob = bytes.fromhex(message.blob)
        await self._fetcher.fetch(
            blob,
            deadline_s=message.deadline_s,
            max_bytes=message.max_bytes,
            holders=[bytes.fromhex(key) for key in message.holders],
            urgent=message.urgent,
        )
        drop_note(self._fetcher.store, blob)  # ours now: whoever pushed it cannot keep us from serving it
        if message.urgent:
            self._server.note_update(blob)
        if self._server.may_serve(blob):
            self._gossip.hold(blob)
        return Done(request=message.request), b""

    async def _fetch_log(self, message: FetchLog) -> tuple[Message, bytes]:
        chains = await fetch_chains(
            self._node,
            bytes.fromhex(message.after),
            deadline_s=message.deadline_s,
            peers=[bytes.fromhex(key) for key in message.peers],
        )
        encoded = [[record.to_bytes() for record in chain] for chain in chains]
        lengths = [[len(record) for record in chain] for chain in encoded]
        body = b"".join(record for chain in encoded for record in chain)
        return Records(request=message.request, chains=lengths), body

    def _announce(self) -> None:
        for blob in [blob for blob in self._unannounced if self._server.may_serve(blob)]:
            del self._unannounced[blob]
            self._gossip.hold(blob)
            if blob in self._own:
                del self._own[blob]
                self._pusher.push(blob)

    def _state(self, number: int) -> State:
        node = self._node
        return State(
            request=number,
            connected=[key.hex() for key in node.members if node.connected(key)],
            bytes_in=node.traffic.bytes_in,
            bytes_out=node.traffic.bytes_out,
            unreachable={
                key.hex(): member.error for key, member in node.members.items() if not node.connected(key)
            },
            dialable=self._reach.dialable,
            unpushed=self._pusher.pending if self._reach.needs_push else 0,
        )
