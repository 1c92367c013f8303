"""What this member serves to others: its blobs, once they may be seen, and its round records."""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import trio

from psyche_train.blobs import PIECE, BlobMissing, BlobStore, BlobStoreError, Manifest
from psyche_train.network.node import Node
from psyche_train.network.pushed import read_note
from psyche_train.network.sharing import FairShare
from psyche_train.network.streams import FRAME_BYTES, IDLE_S, StreamBroken, read_exactly, write_all
from psyche_train.network.wire import (
    BLOB_PROTOCOL,
    BLOB_REQUEST_BYTES,
    LOG_PROTOCOL,
    LOG_REQUEST_BYTES,
    MAX_RANGE_BYTES,
    BlobRequest,
    LogRequest,
    Reply,
    Status,
    WireError,
    pack_records,
)
from psyche_train.records import RecordLog

logger = logging.getLogger(__name__)

MAX_STREAMS_PER_PEER = 12
MANIFESTS_KEPT = 256
UPDATES_KEPT = 4096


class Server:
    """Handlers of `/psyche/blob/1` and `/psyche/log/1`.

    Attributes:
        revealed: highest round whose blobs may be served; -1 before the client says anything.
    """

    def __init__(self, node: Node, store: BlobStore, log_path: Path) -> None:
        self.revealed = -1
        self._store = store
        self._log_path = log_path
        self._log: RecordLog | None = None
        self._streams: Counter[bytes] = Counter()
        self._manifests: OrderedDict[bytes, bytes] = OrderedDict()
        self._updates: OrderedDict[bytes, None] = OrderedDict()
        self.share = FairShare()
        node.handle(BLOB_PROTOCOL, self._serve_blobs)
        node.handle(LOG_PROTOCOL, self._serve_log)

    def may_serve(self, blob: bytes) -> bool:
        """Whether the blob's round has been revealed (or it never was hidden)."""
        hidden_until = self._store.hidden_until(blob)
        pushed = read_note(self._store, blob)
        if pushed is not None and pushed.hidden_until is not None and pushed.hidden_until > self.revealed:
            return False
        return hidden_until is None or hidden_until <= self.revealed

    def note_update(self, blob: bytes) -> None:
        """Serve this blob before checkpoints and data, however long it is."""
        self._updates[blob] = None
        if len(self._updates) > UPDATES_KEPT:
            self._updates.popitem(last=False)

    def is_urgent(self, blob: bytes, length: int) -> bool:
        """Whether a blob goes before bulk: an update, or short anyway. No requester has a say in it."""
        return (
            length <= MAX_RANGE_BYTES or blob in self._updates or self._store.hidden_until(blob) is not None
        )

    async def _serve_blobs(self, stream: Any, key: bytes) -> None:
        self._streams[key] += 1
        try:
            if self._streams[key] > MAX_STREAMS_PER_PEER:
                await write_all(stream, Reply(Status.BUSY).to_bytes())
                return
            while (raw := await _next_request(stream, BLOB_REQUEST_BYTES)) is not None:
                try:
                    request = BlobRequest.from_bytes(raw)
                except WireError:
                    await write_all(stream, Reply(Status.BAD_REQUEST).to_bytes())
                    raise
                await self._answer_blob(stream, request)
        finally:
            self._streams[key] -= 1
            if not self._streams[key]:
                del self._streams[key]

    async def _answer_blob(self, stream: Any, request: BlobRequest) -> None:
        try:
            if not self._store.has(request.blob):
                return await write_all(stream, Reply(Status.NOT_FOUND).to_bytes())
            if not self.may_serve(request.blob):
                return await write_all(stream, Reply(Status.HIDDEN).to_bytes())
            manifest = await trio.to_thread.run_sync(self._manifest, request.blob)
            length = Manifest.from_bytes(manifest).length
            if request.offset > length:
                return await write_all(stream, Reply(Status.BAD_REQUEST).to_bytes())
            data = await trio.to_thread.run_sync(
                self._store.read, request.blob, request.offset, request.length
            )
        except BlobMissing:
            return await write_all(stream, Reply(Status.NOT_FOUND).to_bytes())
        except BlobStoreError as exc:
            logger.error("event=cannot_serve blob=%s why=%s", request.blob.hex(), exc)
            return await write_all(stream, Reply(Status.FAILED).to_bytes())
        head = manifest if request.want_manifest else b""
        await write_all(stream, Reply(Status.OK, len(head), len(data)).to_bytes() + head)
        return await self._write_shared(stream, data, self.is_urgent(request.blob, length))

    async def _write_shared(self, stream: Any, data: bytes, urgent: bool) -> None:
        """Write a range, bulk only as fast as updates leave room for."""
        view = memoryview(data)
        if urgent:
            with self.share.urgent():
                for start in range(0, len(view), FRAME_BYTES):
                    await write_all(stream, view[start : start + FRAME_BYTES])
                    self.share.moved(FRAME_BYTES)
            return
        at = 0
        while at < len(view):
            size = FRAME_BYTES if self.share.contended else PIECE
            await self.share.give_way(size)
            await write_all(stream, view[at : at + size])
            at += size

    def _manifest(self, blob: bytes) -> bytes:
        known = self._manifests.get(blob)
        if known is None:
            known = self._store.manifest(blob).to_bytes()
            self._manifests[blob] = known
            if len(self._manifests) > MANIFESTS_KEPT:
                self._manifests.popitem(last=False)
        return known

    async def _serve_log(self, stream: Any, _key: bytes) -> None:
        while (raw := await _next_request(stream, LOG_REQUEST_BYTES)) is not None:
            request = LogRequest.from_bytes(raw)
            count, body = await trio.to_thread.run_sync(self._records, request)
            await write_all(stream, Reply(Status.OK, count, len(body)).to_bytes())
            await write_all(stream, body)

    def _records(self, request: LogRequest) -> tuple[int, bytes]:
        try:
            if self._log is None:
                self._log = RecordLog(self._log_path, read_only=True)
            records = self._log.after(request.after)[: request.max_records]
        except OSError as exc:
            logger.error("event=cannot_read_log path=%s why=%s", self._log_path, exc)
            return 0, b""
        return pack_records([r.to_bytes() for r in records], request.max_records, request.max_bytes)


async def _next_request(stream: Any, count: int) -> bytes | None:
    """The next request on a stream, or None when the peer is done with it."""
    try:
        with trio.fail_after(2 * IDLE_S):
            first = await stream.read(1)
    except Exception:  # closed, reset or idle: all three end a stream without harm
        return None
    if not first:
        return None
    try:
        return bytes(first) + await read_exactly(stream, count - 1)
    except StreamBroken as exc:
        raise WireError(f"request {exc}") from exc
