"""Blobs of a member that nobody can dial, held by members that somebody can.

Two members behind NAT cannot reach each other, but both reach a third. Such a member offers each blob that it
publishes to `replicas` members it is connected to (it dialled them, so others can, too). A member that takes
the offer fetches the blob over that same connection, verified as from anybody, and serves it to everyone.

The offer is made when the blob may be seen, after the commits of its round closed, so no replica can copy an
update in time to commit it as its own; it names the round all the same, and a replica whose own view of the
chain is behind keeps the blob hidden until it catches up.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any

import trio

from psyche_train.blobs import BlobStore, BlobStoreError
from psyche_train.network.fetch import Fetcher, FetchFailed
from psyche_train.network.node import Node
from psyche_train.network.pushed import Note, drop_note, pushed_bytes, write_note
from psyche_train.network.serve import Server
from psyche_train.network.streams import StreamBroken, close_quietly, read_exactly, write_all
from psyche_train.network.types import PushLimits
from psyche_train.network.wire import (
    OFFER_BYTES,
    PUSH_PROTOCOL,
    REPLY_BYTES,
    Offer,
    Reply,
    Status,
    WireError,
)

logger = logging.getLogger(__name__)

MAX_OFFERS_PER_PEER = 4
"""Offers of one member that are being fetched at once; more are answered "busy"."""
SLOWEST_BYTES_S = 64 * 1024
"""A replica that takes less of an offer than this gives it up."""
PATIENCE_S = 60.0
MAX_PENDING = 4096
"""Blobs of our own that wait for a replica; the oldest are forgotten first."""
RETRY_S = 1.0
RETRY_CAP_S = 30.0
AT_ONCE = 8


class Replica:
    """Takes blobs that members offer, within limits.

    Args:
        taken: called with every blob that is held now.
    """

    def __init__(
        self,
        node: Node,
        store: BlobStore,
        fetcher: Fetcher,
        server: Server,
        limits: PushLimits,
        taken: Callable[[bytes], None],
    ) -> None:
        self._node, self._store, self._fetcher, self._server = node, store, fetcher, server
        self._limits, self._taken = limits, taken
        self._offers: Counter[bytes] = Counter()
        self._coming: Counter[bytes] = Counter()
        """Bytes of each member that were promised and are on their way."""
        node.handle(PUSH_PROTOCOL, self._serve)

    async def _serve(self, stream: Any, key: bytes) -> None:
        offer = Offer.from_bytes(await read_exactly(stream, OFFER_BYTES))
        # counted before anything is awaited: offers made at once cannot pass a limit together
        self._offers[key] += 1
        self._coming[key] += offer.length
        try:
            status = await self._judge(offer, key)
            await write_all(stream, Reply(status).to_bytes())
            if status is not Status.OK:
                return
            if not self._store.has(offer.blob):
                status = await self._take(offer, key)
            await write_all(stream, Reply(status).to_bytes())
        finally:
            self._offers[key] -= 1
            self._coming[key] -= offer.length
            self._offers += Counter()
            self._coming += Counter()

    async def _judge(self, offer: Offer, key: bytes) -> Status:
        """Whether this member takes the offer; nothing has been fetched or stored yet."""
        if self._store.has(offer.blob):
            return Status.OK
        if self._offers[key] > MAX_OFFERS_PER_PEER:
            return Status.BUSY
        if offer.length > self._limits.blob_bytes:
            return Status.TOO_LARGE
        if offer.hidden_until is not None and offer.hidden_until > self._server.revealed + 1:
            return Status.HIDDEN  # it should not be shown to anybody yet, us included
        try:
            held = await trio.to_thread.run_sync(pushed_bytes, self._store, key)
            free = shutil.disk_usage(self._store.directory).free
        except (BlobStoreError, OSError):
            return Status.FAILED
        if held + self._coming[key] > self._limits.member_bytes:
            return Status.FULL
        if free - sum(self._coming.values()) < self._limits.reserve_bytes:
            return Status.FULL
        return Status.OK

    async def _take(self, offer: Offer, key: bytes) -> Status:
        """Fetch from the one who offered, and nobody else."""
        try:
            write_note(self._store, offer.blob, Note(key, offer.hidden_until))
            await self._fetcher.fetch(
                offer.blob,
                deadline_s=PATIENCE_S + offer.length / SLOWEST_BYTES_S,
                max_bytes=offer.length,
                holders=[key],
                urgent=offer.urgent,
                only_named=True,
            )
        except FetchFailed as exc:
            logger.info("event=push_failed peer=%s blob=%s why=%s", key.hex(), offer.blob.hex(), exc)
            return Status.FAILED
        except BlobStoreError as exc:
            logger.warning("event=push_not_stored blob=%s why=%s", offer.blob.hex(), exc)
            return Status.FAILED
        finally:
            if not self._store.has(offer.blob):
                drop_note(self._store, offer.blob)
        if offer.urgent:
            self._server.note_update(offer.blob)
        self._taken(offer.blob)
        return Status.OK


class Pusher:
    """Offers this member's blobs to others while nobody can dial it.

    Args:
        needed: whether nobody can dial this member, as far as is known now.
        replicas: how many members should hold each blob.
    """

    def __init__(
        self, node: Node, store: BlobStore, server: Server, needed: Callable[[], bool], replicas: int
    ) -> None:
        self._node, self._store, self._server = node, store, server
        self._needed, self._replicas = needed, replicas
        self._pending: OrderedDict[bytes, _Push] = OrderedDict()

    def push(self, blob: bytes) -> None:
        """See to it that others hold a blob, which may be seen now."""
        self._pending.setdefault(blob, _Push())
        if len(self._pending) > MAX_PENDING:
            self._pending.popitem(last=False)

    @property
    def pending(self) -> int:
        """Blobs that fewer than `replicas` members took so far."""
        return len(self._pending)

    async def run(self) -> None:
        """Push what is pending, updates first, until cancelled."""
        limit = trio.CapacityLimiter(AT_ONCE)
        async with trio.open_nursery() as nursery:
            while True:
                now = trio.current_time()
                if self._needed():
                    for blob, push in sorted(
                        self._pending.items(), key=lambda item: not self._urgent(item[0])
                    ):
                        if limit.available_tokens < 1:
                            break
                        if push.busy or push.next_try > now:
                            continue
                        push.busy = True
                        await limit.acquire_on_behalf_of(push)
                        nursery.start_soon(self._work, blob, push, limit)
                await trio.sleep(0.1)

    def _urgent(self, blob: bytes) -> bool:
        """An update, not a checkpoint or data."""
        return self._store.hidden_until(blob) is not None

    async def _work(self, blob: bytes, push: _Push, limit: trio.CapacityLimiter) -> None:
        try:
            await self._spread(blob, push)
        finally:
            push.busy = False
            limit.release_on_behalf_of(push)
        wanted = max(1, min(self._replicas, len(self._node.dialled())))
        if len(push.held_by) >= wanted or not self._store.has(blob):
            self._pending.pop(blob, None)
            return
        push.failures += 1
        delay_s = min(RETRY_CAP_S, RETRY_S * 1.5 ** min(push.failures, 12))
        push.next_try = trio.current_time() + delay_s

    async def _spread(self, blob: bytes, push: _Push) -> None:
        """Offer a blob to one member after another until enough hold it."""
        node = self._node
        push.held_by &= set(node.members)
        order = sorted(node.dialled(), key=lambda key: hashlib.sha256(blob + key).digest())
        for key in order:
            if len(push.held_by) >= self._replicas:
                return
            if key in push.held_by:
                continue
            try:
                manifest = await trio.to_thread.run_sync(self._store.manifest, blob)
                why = await self._offer(key, blob, manifest.length)
            except BlobStoreError:
                return
            if not why:
                push.held_by.add(key)
                logger.info("event=pushed blob=%s peer=%s", blob.hex(), key.hex())
            else:
                logger.info("event=not_pushed blob=%s peer=%s why=%s", blob.hex(), key.hex(), why)

    async def _offer(self, key: bytes, blob: bytes, length: int) -> str:
        """Why a member does not hold the blob now; empty if it does."""
        offer = Offer(blob, length, self._store.hidden_until(blob), self._urgent(blob))
        stream, clean = None, False
        try:
            stream = await self._node.open_stream(key, PUSH_PROTOCOL)
            await write_all(stream, offer.to_bytes())
            first = Reply.from_bytes(await read_exactly(stream, REPLY_BYTES))
            if first.status is not Status.OK:
                clean = True
                return first.status.reason
            patience_s = PATIENCE_S + length / SLOWEST_BYTES_S
            last = Reply.from_bytes(await read_exactly(stream, REPLY_BYTES, idle_s=patience_s))
            clean = True
            return "" if last.status is Status.OK else last.status.reason
        except (StreamBroken, WireError) as exc:
            return str(exc)
        finally:
            if stream is not None:
                await close_quietly(stream, reset=not clean)


class _Push:
    """One blob on its way to its replicas."""

    def __init__(self) -> None:
        self.held_by: set[bytes] = set()
        self.busy = False
        self.failures = 0
        self.next_try = 0.0
