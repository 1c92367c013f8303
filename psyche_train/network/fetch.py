"""Fetching a blob from whoever has it: verified piece by piece, resumed, never trusting a peer twice.

One `_Job` a blob. Workers take ranges of missing pieces from one peer each; a second worker starts when the
first has not finished after `HEDGE_S`. A blob of several ranges comes from several holders at once, by two
workers each, so that one asks while the other receives. A range is what its peer delivers in a second or so:
slow holders are given less. What another worker asked for is asked for again, from its end, when nothing else
is left, so that one slow peer cannot keep the last range. A peer that serves a corrupted piece or manifest is
not asked again. Who goes first among blobs: see `sharing`.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
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
from psyche_train.network.sharing import FairShare, Rates, Slots
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
FIRST_PIECES = 4
"""Of the first range from a peer whose speed is not known."""
RANGE_S = 1.0
"""What a peer delivers in this time is asked of it at once."""
RATE_BYTES = 64 * 1024
"""Fewer bytes than this say nothing about a peer's speed."""
MAX_WORKERS = 4
MAX_LARGE_WORKERS = 8
LARGE_WORKERS_PER_PEER = 2
HEDGE_S = 1.5
MAX_PER_PEER = 4
MAX_LARGE_PER_PEER = 2
"""Of those, streams for blobs of more than one range: a checkpoint does not hold up the updates."""
RETRY_FIRST_S = 0.25
RETRY_CAP_S = 2.0
MAX_PROBES = 4
"""Members asked at once for what they are not known to hold, by all fetches that have a holder, if a slow one."""
PROBE_PAUSE_S = 0.25  # after one of them refused


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
        self.slots = Slots(MAX_PER_PEER, MAX_LARGE_PER_PEER)
        self.share = FairShare()
        self.rates = Rates()
        self.probes = 0
        """Questions to members that are not known to hold what they were asked for, not answered yet."""
        self.probe_at = float("-inf")
        """When the next such question may be asked."""
        self._running: dict[bytes, trio.Event] = {}

    async def fetch(
        self,
        blob: bytes,
        *,
        deadline_s: float,
        max_bytes: int,
        holders: Sequence[bytes],
        urgent: bool | None = None,
        only_named: bool = False,
    ) -> None:
        """Get the blob into the store; another fetch of the same blob is waited for.

        Args:
            urgent: an update goes before bulk; None: what is longer than one range is bulk.
            only_named: ask nobody but `holders`.

        Raises:
            FetchFailed: not within `deadline_s`, or larger than `max_bytes`, or the disk refuses it.
        """
        job = _Job(self, blob, max_bytes, holders, urgent=urgent, only_named=only_named)
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


class _Job:
    """One blob on its way."""

    def __init__(
        self,
        fetcher: Fetcher,
        blob: bytes,
        max_bytes: int,
        holders: Sequence[bytes],
        *,
        urgent: bool | None,
        only_named: bool,
    ) -> None:
        self.reasons: dict[bytes, str] = {}
        self._fetcher = fetcher
        self._blob = blob
        self._max_bytes = max_bytes
        self._named = list(holders)
        self._urgent, self._only_named = urgent, only_named
        self._partial: PartialBlob | None = None
        self._claims: Counter[int] = Counter()
        self._working: Counter[bytes] = Counter()
        self._banned: set[bytes] = set()
        self._failures: Counter[bytes] = Counter()
        self._retry_at: dict[bytes, float] = {}
        self._probed: set[bytes] = set()
        """Members asked without knowing that they hold it, before their answer."""
        self._served: set[bytes] = set()
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
            allowed, each = min(MAX_WORKERS, 1 + int((now - started) / HEDGE_S)), 1
            if self._large():
                allowed, each = MAX_LARGE_WORKERS, LARGE_WORKERS_PER_PEER
            if (
                self._working.total() < allowed
            ):  # ranking hundreds of members for hundreds of blobs takes a core
                self._start_workers(nursery, allowed, each)
            await trio.sleep(0.05)

    def _start_workers(self, nursery: trio.Nursery, allowed: int, each: int) -> None:
        """Start workers up to `allowed`, at most `each` at one peer."""
        fetcher, now = self._fetcher, trio.current_time()
        known = {*self._named, *fetcher.holders.of(self._blob)}
        everybody = not self._working.total() or (fetcher.probes < MAX_PROBES and now >= fetcher.probe_at)
        for key in [key for key in self._candidates(everybody) for _ in range(each)]:
            if self._working.total() >= allowed:
                break
            if self._working[key] >= each or key in self._banned or self._retry_at.get(key, 0) > now:
                continue
            if not fetcher.node.connected(key):
                member = fetcher.node.members.get(key)
                why = f"no connection ({member.error})" if member else "is not a member"
                self.reasons.setdefault(key, why)
                continue
            if self._working.total() and key not in known and key not in self._served:
                if key in self._probed or now < fetcher.probe_at or fetcher.probes >= MAX_PROBES:
                    continue
                fetcher.probes += 1
                self._probed.add(key)
            self._working[key] += 1
            self.reasons.setdefault(key, "did not deliver it in time")
            nursery.start_soon(self._work, key)

    def _end_probe(self, key: bytes, *, refused: bool) -> None:
        """A member that was not known to hold the blob has answered, or the question is over."""
        if key in self._probed:
            self._probed.remove(key)
            self._fetcher.probes -= 1
            if refused:
                self._fetcher.probe_at = trio.current_time() + PROBE_PAUSE_S

    def _candidates(self, everybody: bool) -> list[bytes]:
        """Named holders, those that announced it or served some of it, then, if wanted, all; the least busy first.

        Among equals every member prefers another one, so that not all of them ask the same holder.
        """
        fetcher = self._fetcher
        node, announced = fetcher.node, [*fetcher.holders.of(self._blob), *self._served]

        def rank(key: bytes) -> tuple[int, float, bytes]:
            rate = fetcher.rates.of(key)
            taste = hashlib.sha256(node.key + self._blob + key).digest()
            return fetcher.slots.load(key), 0.0 if rate is None else -rate, taste

        groups = [self._named] if self._only_named else [self._named, announced]
        if everybody:
            groups.append(list(node.members))
        order = dict.fromkeys(key for group in groups for key in sorted(group, key=rank))
        order.pop(node.key, None)
        return list(order)

    async def _work(self, key: bytes) -> None:
        """Take ranges from one peer until none is left or it fails."""
        stream = None
        clean = False
        fetcher, bulk = self._fetcher, self._bulk()
        try:
            async with fetcher.slots.take(key, bulk=bulk, holders=self._known_holders):
                stream = await fetcher.node.open_stream(key, BLOB_PROTOCOL)
                while bulk == self._bulk():  # else: it turned out to be long, and needs a bulk stream
                    if bulk:
                        await fetcher.share.give_way(PIECE * self._pieces_of(key))
                    pieces = self._claim(self._pieces_of(key))
                    if pieces is None:
                        break
                    try:
                        await self._take(stream, key, pieces)
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
            self._working[key] -= 1
            self._end_probe(key, refused=True)
            if stream is not None:
                await close_quietly(stream, reset=not clean)

    async def _take(self, stream: Any, key: bytes, pieces: list[int]) -> None:
        """Ask for a range of pieces and verify each as it arrives."""
        want_manifest = self._partial is None
        length = len(pieces) * PIECE
        request = BlobRequest(self._blob, pieces[0] * PIECE, length, want_manifest)
        await write_all(stream, request.to_bytes())
        reply = Reply.from_bytes(await read_exactly(stream, REPLY_BYTES))
        if reply.status is not Status.OK:
            raise _Refused(reply.status)
        self._served.add(key)
        self._end_probe(key, refused=False)
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
        share, began = self._fetcher.share, trio.current_time()
        with nullcontext() if self._bulk() else share.urgent():
            for index in expected:
                data = await read_exactly(stream, sizes.piece_bytes(index))
                if self._done.is_set():
                    return
                self._partial.write_piece(index, data)
                if not self._bulk():
                    share.moved(len(data))
                self._finished()
        if reply.second >= RATE_BYTES:
            self._fetcher.rates.note(key, reply.second, trio.current_time() - began)

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

    def _pieces_of(self, key: bytes) -> int:
        """How many pieces to ask of a peer at once."""
        if self._bulk() and self._fetcher.share.contended:
            return 1
        rate = self._fetcher.rates.of(key)
        if rate is None:
            return PIECES_PER_RANGE if self._partial is None else FIRST_PIECES
        return max(1, min(PIECES_PER_RANGE, int(rate * RANGE_S / PIECE)))

    def _claim(self, most: int) -> list[int] | None:
        """The next range of missing pieces, the least claimed first; None when none is left."""
        if self._partial is None:
            pieces = list(range(most))
        else:
            missing = self._partial.missing
            if not missing or self._done.is_set():
                return None
            fewest = min(self._claims[i] for i in missing)
            free = [i for i in missing if self._claims[i] == fewest]
            # what others are at already is taken from its end: they come from its beginning
            pieces, step = ([max(free)], -1) if fewest else ([min(free)], 1)
            while len(pieces) < most and pieces[-1] + step in missing:
                if self._claims[pieces[-1] + step] != fewest:
                    break
                pieces.append(pieces[-1] + step)
            pieces.sort()
        self._claims.update(pieces)
        return pieces

    def _known_holders(self) -> int:
        return len({*self._named, *self._fetcher.holders.of(self._blob)})

    def _bulk(self) -> bool:
        return self._large() if self._urgent is None else not self._urgent

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
