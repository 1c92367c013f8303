"""Fetching a blob from whoever has it: verified piece by piece, resumed, never trusting a peer twice.

One `_Job` a blob. Workers, one a peer, take ranges of missing pieces; a second worker starts when the first
has not finished after `HEDGE_S`, or at once for a blob of several ranges. Ranges that another worker holds
are taken again when nothing else is left, so that one slow peer cannot keep the last range. A peer that
serves a corrupted piece or manifest is not asked again.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio

from psyche_train.blobs import (
    MAX_MANIFEST_BYTES,
    PIECE,
    BlobCorrupt,
    BlobStore,
    BlobStoreError,
    Manifest,
    PartialBlob,
)
from psyche_train.network.gossip import Holders
from psyche_train.network.node import Node
from psyche_train.network.streams import StreamBroken, close_quietly, read_exactly, write_all
from psyche_train.network.wire import (
    BLOB_PROTOCOL,
    MAX_RANGE_BYTES,
    REPLY_BYTES,
    BlobRequest,
    Reply,
    Status,
    WireError,
)

logger = logging.getLogger(__name__)

PIECES_PER_RANGE = MAX_RANGE_BYTES // PIECE
MAX_WORKERS = 4
HEDGE_S = 1.5
MAX_PER_PEER = 4
MAX_LARGE_PER_PEER = 2
"""Of those, streams for blobs of more than one range: a checkpoint does not hold up the updates."""
RETRY_FIRST_S = 0.25
RETRY_CAP_S = 2.0


class FetchFailed(Exception):
    """A fetch ended without the blob; `peers` says who was asked and why each did not deliver."""

    def __init__(self, why: str, peers: dict[bytes, str]) -> None:
        super().__init__(why)
        self.peers = peers


class Fetcher:
    """Fetches blobs into a store."""

    def __init__(self, node: Node, store: BlobStore, holders: Holders) -> None:
        self.node = node
        self.store = store
        self.holders = holders
        self._running: dict[bytes, trio.Event] = {}
        self._streams: dict[bytes, trio.CapacityLimiter] = {}
        self._large_streams: dict[bytes, trio.CapacityLimiter] = {}

    async def fetch(
        self, blob: bytes, *, deadline_s: float, max_bytes: int, holders: Sequence[bytes]
    ) -> None:
        """Get the blob into the store; another fetch of the same blob is waited for.

        Raises:
            FetchFailed: not within `deadline_s`, or larger than `max_bytes`, or the disk refuses it.
        """
        job = _Job(self, blob, max_bytes, holders)
        with trio.move_on_after(deadline_s):
            while not self.store.has(blob):
                running = self._running.get(blob)
                if running is not None:
                    await running.wait()
                    continue
                done = self._running[blob] = trio.Event()
                try:
                    await job.run()
                finally:
                    del self._running[blob]
                    done.set()
            return
        raise FetchFailed(f"not within {deadline_s:.1f} s", job.reasons)

    @asynccontextmanager
    async def slot(self, key: bytes, large: bool) -> AsyncIterator[None]:
        """Wait for one of the few streams that run to a peer at once."""
        every = self._streams.setdefault(key, trio.CapacityLimiter(MAX_PER_PEER))
        if not large:
            async with every:
                yield
            return
        async with self._large_streams.setdefault(key, trio.CapacityLimiter(MAX_LARGE_PER_PEER)), every:
            yield


class _Job:
    """One blob on its way."""

    def __init__(self, fetcher: Fetcher, blob: bytes, max_bytes: int, holders: Sequence[bytes]) -> None:
        self.reasons: dict[bytes, str] = {}
        self._fetcher = fetcher
        self._blob = blob
        self._max_bytes = max_bytes
        self._named = list(holders)
        self._partial: PartialBlob | None = None
        self._claims: Counter[int] = Counter()
        self._working: set[bytes] = set()
        self._banned: set[bytes] = set()
        self._failures: Counter[bytes] = Counter()
        self._retry_at: dict[bytes, float] = {}
        self._done = trio.Event()
        self._fatal: FetchFailed | None = None

    async def run(self) -> None:
        """Work until the blob is whole; cancelled from outside at the deadline."""
        try:
            manifest = self._fetcher.store.partial_manifest(self._blob)
            if manifest is not None:
                await self._open(manifest)
            async with trio.open_nursery() as nursery:
                if not self._finished():
                    nursery.start_soon(self._dispatch, nursery)
                    await self._done.wait()
                nursery.cancel_scope.cancel()
            if self._fatal is not None:
                raise self._fatal
            assert self._partial is not None
            try:
                await trio.to_thread.run_sync(self._partial.finish)
            except BlobStoreError as exc:
                raise FetchFailed(str(exc), self.reasons) from exc
        finally:
            if self._partial is not None:
                self._partial.close()
                self._partial = None

    async def _dispatch(self, nursery: trio.Nursery) -> None:
        """Start workers: the best peer first, more of them as time passes."""
        started = trio.current_time()
        while True:
            now = trio.current_time()
            allowed = 1 + int((now - started) / HEDGE_S)
            if self._large():
                allowed = MAX_WORKERS
            for key in self._candidates():
                if len(self._working) >= min(allowed, MAX_WORKERS):
                    break
                if key in self._working or key in self._banned or self._retry_at.get(key, 0) > now:
                    continue
                if not self._fetcher.node.connected(key):
                    member = self._fetcher.node.members.get(key)
                    why = f"no connection ({member.error})" if member else "is not a member"
                    self.reasons.setdefault(key, why)
                    continue
                self._working.add(key)
                self.reasons.setdefault(key, "did not deliver it in time")
                nursery.start_soon(self._work, key)
            await trio.sleep(0.05)

    def _candidates(self) -> list[bytes]:
        """Named holders, then those that announced the blob, then everybody."""
        node, announced = self._fetcher.node, self._fetcher.holders.of(self._blob)
        order = dict.fromkeys((*self._named, *announced, *node.members))
        order.pop(node.key, None)
        return list(order)

    async def _work(self, key: bytes) -> None:
        """Take ranges from one peer until none is left or it fails."""
        stream = None
        clean = False
        try:
            async with self._fetcher.slot(key, self._large()):
                stream = await self._fetcher.node.open_stream(key, BLOB_PROTOCOL)
                while (pieces := self._claim()) is not None:
                    try:
                        await self._take(stream, pieces)
                    finally:
                        self._claims.subtract(pieces)
                    if self._finished():
                        break
                clean = True
        except (BlobCorrupt, WireError) as exc:
            self._banned.add(key)
            self.reasons[key] = f"sent corrupt data ({exc})"
            logger.warning("event=corrupt_blob blob=%s peer=%s why=%s", self._blob.hex(), key.hex(), exc)
        except BlobStoreError as exc:
            self._give_up(str(exc))
        except (StreamBroken, _Refused) as exc:
            self._failures[key] += 1
            delay_s = RETRY_FIRST_S  # a peer that hides the blob will show it any moment
            if not (isinstance(exc, _Refused) and exc.status is Status.HIDDEN):
                delay_s = min(RETRY_CAP_S, RETRY_FIRST_S * 1.3 ** self._failures[key])
            self._retry_at[key] = trio.current_time() + delay_s
            self.reasons[key] = str(exc)
        finally:
            self._working.discard(key)
            if stream is not None:
                await close_quietly(stream, reset=not clean)

    async def _take(self, stream: Any, pieces: list[int]) -> None:
        """Ask for a range of pieces and verify each as it arrives."""
        want_manifest = self._partial is None
        length = len(pieces) * PIECE
        request = BlobRequest(self._blob, pieces[0] * PIECE, length, want_manifest)
        await write_all(stream, request.to_bytes())
        reply = Reply.from_bytes(await read_exactly(stream, REPLY_BYTES))
        if reply.status is not Status.OK:
            raise _Refused(reply.status)
        if want_manifest != bool(reply.first) or reply.second > length:
            raise WireError(f"answered {reply.first}+{reply.second} bytes to a request for {length}")
        if want_manifest:
            manifest = await self._read_manifest(stream, reply.first)
            if self._partial is None:
                await self._open(manifest)
        if self._partial is None:
            return
        sizes = self._partial.manifest
        expected = [i for i in pieces if i < len(sizes.digests)]
        if reply.second != sum(map(sizes.piece_bytes, expected)):
            raise WireError(f"announced {reply.second} bytes for pieces {pieces[0]}..{pieces[-1]}")
        for index in expected:
            data = await read_exactly(stream, sizes.piece_bytes(index))
            if self._done.is_set():
                return
            self._partial.write_piece(index, data)
            self._finished()

    async def _read_manifest(self, stream: Any, size: int) -> Manifest:
        if size > MAX_MANIFEST_BYTES:
            raise WireError(f"announced a manifest of {size} bytes, allowed {MAX_MANIFEST_BYTES}")
        manifest = Manifest.from_bytes(await read_exactly(stream, size))
        if manifest.id != self._blob:
            raise BlobCorrupt("a manifest that does not match the id")
        return manifest

    async def _open(self, manifest: Manifest) -> None:
        """Make room for the blob, once its length is proven and allowed."""
        if manifest.length > self._max_bytes:
            return self._give_up(f"it has {manifest.length} bytes, allowed {self._max_bytes}")
        try:
            partial = await trio.to_thread.run_sync(self._fetcher.store.partial, manifest)
        except BlobStoreError as exc:
            return self._give_up(str(exc))
        if self._partial is None:
            self._partial = partial
            self._finished()
        else:
            partial.close()
        return None

    def _claim(self) -> list[int] | None:
        """The next range of missing pieces, the least claimed first; None when none is left."""
        if self._partial is None:
            pieces = list(range(PIECES_PER_RANGE))
        else:
            missing = self._partial.missing
            if not missing or self._done.is_set():
                return None
            fewest = min(self._claims[i] for i in missing)
            first = min(i for i in missing if self._claims[i] == fewest)
            pieces = [first]
            while len(pieces) < PIECES_PER_RANGE and pieces[-1] + 1 in missing:
                if self._claims[pieces[-1] + 1] != fewest:
                    break
                pieces.append(pieces[-1] + 1)
        self._claims.update(pieces)
        return pieces

    def _large(self) -> bool:
        return self._partial is not None and self._partial.manifest.length > MAX_RANGE_BYTES

    def _finished(self) -> bool:
        if self._partial is not None and not self._partial.missing:
            self._done.set()
        return self._done.is_set()

    def _give_up(self, why: str) -> None:
        self._fatal = FetchFailed(why, self.reasons)
        self._done.set()


class _Refused(Exception):
    """A peer answered, but not with the blob."""

    def __init__(self, status: Status) -> None:
        super().__init__(status.reason)
        self.status = status
