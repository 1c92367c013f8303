"""What this member serves to others: its blobs, once they may be seen, and its round records."""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import trio

from psyche_train.blobs import BlobMissing, BlobStore, BlobStoreError, Manifest
from psyche_train.network.node import Node
from psyche_train.network.streams import IDLE_S, StreamBroken, read_exactly, write_all
from psyche_train.network.wire import (
    BLOB_PROTOCOL,
    BLOB_REQUEST_BYTES,
    LOG_PROTOCOL,
    LOG_REQUEST_BYTES,
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
        node.handle(BLOB_PROTOCOL, self._serve_blobs)
        node.handle(LOG_PROTOCOL, self._serve_log)

    def may_serve(self, blob: bytes) -> bool:
        """Whether the blob's round has been revealed (or it never was hidden)."""
        hidden_until = self._store.hidden_until(blob)
        return hidden_until is None or hidden_until <= self.revealed

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
        return await write_all(stream, data)

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
