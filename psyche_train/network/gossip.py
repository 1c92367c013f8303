"""Gossip of one run: "I hold these blobs", "I am dialled here now". Nothing depends on it arriving.

A message is `version u8 | kind u8 | content`, under 1 KB: kind 1 holds blob ids of 32 bytes each, kind 2
addresses separated by newlines. Pubsub signs every message and the sender must be in the member table.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11, GossipSub
from libp2p.pubsub.pubsub import Pubsub
from libp2p.tools.anyio_service import background_trio_service

from psyche_train.network.node import Node
from psyche_train.network.streams import describe
from psyche_train.network.types import MAX_ADDRS

logger = logging.getLogger(__name__)

VERSION = 1
HOLD, ADDRESSES = 1, 2
MAX_BYTES = 1000
IDS_PER_MESSAGE = 24
MAX_BLOBS = 16_384
"""Blobs whose holders are remembered; the oldest go first."""
MAX_PER_MEMBER = 4096
BATCH_S = 0.25
"""Blobs announced within this time share a message: at most four messages a second."""
MESSAGES_S = 20
"""Messages of all members together, in a second: reading one and passing it on costs a member some 17 ms."""


class GossipError(ValueError):
    """A gossip message that is not one."""


def encode_hold(blobs: Sequence[bytes]) -> bytes:
    """Announce up to `IDS_PER_MESSAGE` blobs."""
    return bytes((VERSION, HOLD)) + b"".join(blobs[:IDS_PER_MESSAGE])


def encode_addresses(addresses: Sequence[str]) -> bytes:
    """Announce where this member can be dialled."""
    return bytes((VERSION, ADDRESSES)) + "\n".join(addresses[:MAX_ADDRS]).encode()


def decode(data: bytes) -> list[bytes] | list[str]:
    """Blob ids or addresses of a message; GossipError for anything else."""
    if not 2 < len(data) <= MAX_BYTES or data[0] != VERSION:
        raise GossipError(f"message of {len(data)} bytes is not version {VERSION}")
    content = data[2:]
    if data[1] == HOLD:
        if len(content) % 32 or len(content) > 32 * IDS_PER_MESSAGE:
            raise GossipError(f"{len(content)} bytes are not ids")
        return [content[i : i + 32] for i in range(0, len(content), 32)]
    if data[1] == ADDRESSES:
        try:
            addresses = content.decode("ascii").split("\n")
        except UnicodeDecodeError as exc:
            raise GossipError("addresses are not ASCII") from exc
        if len(addresses) > MAX_ADDRS or not all(a.isprintable() for a in addresses):
            raise GossipError("addresses are not printable")
        return addresses
    raise GossipError(f"unknown kind {data[1]}")


def batch_s(members: int) -> float:
    """Seconds in which a member's announcements share a message: with more members, each speaks less often."""
    return max(BATCH_S, members / MESSAGES_S)


class GuardedPubsub(Pubsub):  # type: ignore[misc, unused-ignore]
    """Pubsub in which a message that cannot be processed is dropped instead of ending the host."""

    async def push_msg(self, msg_forwarder: ID, msg: Any) -> None:
        try:
            await super().push_msg(msg_forwarder, msg)
        except Exception as exc:
            logger.info("event=gossip_dropped peer=%s why=%s", msg_forwarder, describe(exc))


class Holders:
    """Which member said that it holds which blob; bounded in all directions."""

    def __init__(self) -> None:
        self._holders: OrderedDict[bytes, set[bytes]] = OrderedDict()
        self._by_member: dict[bytes, deque[bytes]] = {}

    def add(self, member: bytes, blob: bytes) -> None:
        """Remember one announcement."""
        said = self._by_member.setdefault(member, deque())
        if member in self._holders.get(blob, ()):
            return
        if len(said) >= MAX_PER_MEMBER:
            self._holders.get(said.popleft(), set()).discard(member)
        said.append(blob)
        self._holders.setdefault(blob, set()).add(member)
        if len(self._holders) > MAX_BLOBS:
            self._holders.popitem(last=False)

    def of(self, blob: bytes) -> list[bytes]:
        """Members that announced the blob."""
        return sorted(self._holders.get(blob, ()))


class Gossip:
    """Announcements over one topic."""

    def __init__(self, node: Node, topic: str) -> None:
        self.holders = Holders()
        self._node = node
        self._topic = topic
        self._router = GossipSub(
            protocols=[PROTOCOL_ID_V11],
            degree=6,
            degree_low=4,
            degree_high=12,
            heartbeat_interval=1,
            spam_protection_enabled=False,  # it silently drops beyond 10 messages/s, our own included
        )
        self._pubsub = GuardedPubsub(
            node.host, self._router, allowed_topics={topic}, max_inbound_rpc_size=1 << 18
        )
        self._queue: deque[bytes] = deque(maxlen=MAX_PER_MEMBER)

    def hold(self, blob: bytes) -> None:
        """Announce, soon, that this member serves a blob."""
        self._queue.append(blob)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Take part in the topic while the context is open; the host has to run."""
        async with background_trio_service(self._pubsub), background_trio_service(self._router):
            await self._pubsub.wait_until_ready()
            subscription = await self._pubsub.subscribe(self._topic)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen, subscription)
                nursery.start_soon(self._speak)
                yield
                nursery.cancel_scope.cancel()

    async def _listen(self, subscription: Any) -> None:
        while True:
            message = await subscription.get()
            sender = self._node.member_of(message.from_id)
            if sender is None:
                continue
            try:
                for item in (items := decode(message.data)):
                    if isinstance(item, bytes):
                        self.holders.add(sender.peer.key, item)
                if isinstance(items[0], str):
                    self._node.learn_addresses(sender, [str(item) for item in items])
            except GossipError as exc:
                logger.info("event=gossip_refused key=%s why=%s", sender.peer.key.hex(), exc)

    async def _speak(self) -> None:
        """Publish what is queued, in batches; say where this member is dialled whenever that changed."""
        said: list[str] = []
        while True:
            await trio.sleep(batch_s(len(self._node.members) + 1))
            addresses = self._node.addresses()
            if addresses != said and any(map(self._node.connected, self._node.members)):
                said = addresses
                await trio.sleep(1)  # the mesh forms at the first heartbeat
                await self._publish(encode_addresses(addresses))
            if self._queue:
                batch = [self._queue.popleft() for _ in range(min(len(self._queue), IDS_PER_MESSAGE))]
                await self._publish(encode_hold(batch))

    async def _publish(self, data: bytes) -> None:
        try:
            await self._pubsub.publish(self._topic, data)
        except Exception as exc:  # nothing depends on gossip
            logger.info("event=gossip_not_sent why=%s", describe(exc))
