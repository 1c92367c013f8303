"""`Http`: shards on a web server or in a bucket, fetched piece by piece into the cache as they are needed.

The cache holds one sparse file a shard. A piece that is not there, or not right, does not have its digest, and is
fetched: so a torn write, a full disk or several members that share the cache need no book-keeping. Where the
server has no `manifest.json`, or serves no ranges, whole files are fetched, and verified as a whole.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from psyche_train._manifest import manifest_of_file
from psyche_train.blobs import MAX_BLOB_BYTES, MAX_MANIFEST_BYTES, PIECE, BlobCorrupt, Manifest
from psyche_train.data.cache import cache_folder, temporary_beside, write_whole
from psyche_train.data.errors import DataError
from psyche_train.data.local import WIDTHS, open_local, read_manifest
from psyche_train.data.manifest import (
    FILE_NAME,
    MAX_BYTES,
    PIECES_SUFFIX,
    DataManifest,
    ShardEntry,
    shard_name,
)
from psyche_train.data.shards import Shard, ShardTokens
from psyche_train.data.transfer import NoRanges, NotThere, TransferError, small, transfer_for
from psyche_train.spec.data import HttpData

WORKERS = 8
TRIES = 3
"""How often a piece is fetched that arrives whole, but with other bytes than its digest says."""


def open_http(location: HttpData) -> ShardTokens:
    """Open the files, fetching no more than the manifest if there is one.

    Raises:
        DataError: the server has other data, or cannot be reached.
    """
    urls = location.location.urls
    folder = cache_folder("http", [location.location.folder, urls])
    manifest = _manifest(location, folder)
    if manifest is None:
        return _open_plain(location, urls, folder)
    if urls is None:
        urls = [location.location.folder + shard_name(i) for i in range(len(manifest.shards))]
    if len(urls) != len(manifest.shards):
        raise DataError(
            f"{location.location.folder}{FILE_NAME} names {len(manifest.shards)} shards, data_location names "
            f"{len(urls)} files: name them all, or use location.Folder"
        )
    shards = [
        HttpShard(url, folder / entry.blob.hex(), entry)
        for url, entry in zip(urls, manifest.shards, strict=True)
    ]
    return ShardTokens(manifest, shards, workers=WORKERS)


def _manifest(location: HttpData, folder: Path) -> DataManifest | None:
    """The manifest: from the cache if it is the wanted one, else from the server; None if that has none."""
    kept = folder / FILE_NAME
    if location.manifest and kept.is_file():
        try:
            return read_manifest(kept, location.manifest)
        except DataError:
            kept.unlink(missing_ok=True)
    url = location.location.folder + FILE_NAME
    try:
        data = small(url, MAX_BYTES)
    except NotThere:
        if location.location.Folder is not None:
            raise TransferError(
                f"{url} is not on the server: make the folder with psyche-train prepare-data, or name the files"
            ) from None
        return None
    manifest = DataManifest.from_bytes(data, url, location.manifest)
    size = location.token_size_in_bytes
    if size is not None and WIDTHS[size] != manifest.token_bytes:
        raise DataError(f"{url} says tokens of {manifest.token_bytes} bytes: leave token_size_in_bytes out")
    write_whole(kept, data)
    return manifest


def _open_plain(location: HttpData, urls: Sequence[str] | None, folder: Path) -> ShardTokens:
    """Fetch whole files, once, and open them as local ones."""
    assert urls is not None
    plain = folder / "files"
    plain.mkdir(exist_ok=True)
    for number, url in enumerate(urls):
        target = plain / shard_name(number)
        if not target.exists():
            fetch_whole(url, target, MAX_BLOB_BYTES)
    try:
        return open_local(plain, location.token_size_in_bytes, location.manifest)
    except DataError as error:
        for number in range(len(urls)):  # another version was on the server once: the next try fetches anew
            (plain / shard_name(number)).unlink(missing_ok=True)
        raise DataError(f"{urls[0]} and the files after it are not the run's data: {error}") from error


class HttpShard(Shard):
    """One shard on a server, cached in a sparse file."""

    def __init__(self, url: str, path: Path, entry: ShardEntry) -> None:
        self._url = url
        self._transfer = transfer_for(url)
        super().__init__(url, path, entry, pieces=self._fetch_digests)
        self._whole = threading.Lock()

    def _fetch_digests(self) -> Manifest:
        """Digests of the pieces: from the cache, else from the server, else of the whole file."""
        kept = self.path.with_name(self.path.name + PIECES_SUFFIX)
        try:
            manifest = Manifest.from_bytes(kept.read_bytes())
            if manifest.id == self.entry.blob:
                return manifest
        except (OSError, BlobCorrupt):
            pass
        url = self._url.partition("?")[0] + PIECES_SUFFIX
        try:
            data = small(url, MAX_MANIFEST_BYTES)
        except NotThere:
            data = self._take_whole().to_bytes()
        try:
            manifest = Manifest.from_bytes(data)
        except BlobCorrupt as error:
            raise DataError(f"{url} does not hold the hashes of pieces: {error}") from None
        if manifest.id == self.entry.blob:
            write_whole(kept, data)
        return manifest

    def _recover(self, index: int, manifest: Manifest, found: bytes | None) -> None:
        start = index * PIECE
        stop = start + manifest.piece_bytes(index)
        try:
            for _ in range(TRIES):
                data = self._transfer.read(self._url, start, stop)
                if hashlib.sha256(data).digest() == manifest.digests[index]:
                    self._keep(start, data)
                    return
        except NoRanges:
            with self._whole:
                if self._is_right(index, manifest):  # another thread has fetched the file meanwhile
                    return
                self._take_whole()
            if self._is_right(index, manifest):
                return
        except DataError as error:
            raise self._damaged(index, str(error)) from error
        raise self._damaged(index, "the server sends bytes that do not have the hash that the manifest says")

    def _is_right(self, index: int, manifest: Manifest) -> bool:
        data = self._pread(index * PIECE, manifest.piece_bytes(index))
        return data is not None and hashlib.sha256(data).digest() == manifest.digests[index]

    def _keep(self, start: int, data: bytes) -> None:
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                if os.pwrite(descriptor, data, start) != len(data):
                    raise OSError(28, "No space left on device")
            finally:
                os.close(descriptor)
        except OSError as error:
            raise DataError(
                f"{self.path} cannot be written: {error.strerror}. Free some disk space, or set PSYCHE_DATA_CACHE"
            ) from None

    def _take_whole(self) -> Manifest:
        """Fetch the whole file, verify it and keep it."""
        manifest = fetch_whole(
            self._url, self.path, self.entry.length, keep=lambda m: m.id == self.entry.blob
        )
        if manifest.id != self.entry.blob:
            raise DataError(
                f"{self._url} is not the run's file: blob {manifest.id.hex()[:16]} of {manifest.length} bytes, "
                f"wanted {self.entry.blob.hex()[:16]} of {self.entry.length}"
            )
        return manifest


def fetch_whole(
    url: str, target: Path, limit: int, *, keep: Callable[[Manifest], bool] = lambda manifest: True
) -> Manifest:
    """Download a file under a temporary name and rename it if it is to be kept; return its piece digests.

    Raises:
        DataError: it cannot be had, is longer than `limit`, or cannot be written.
    """
    temporary = temporary_beside(target)
    try:
        with temporary.open("wb") as file:

            def take(part: bytes) -> None:
                if part:
                    file.write(part)
                else:
                    file.seek(0)
                    file.truncate()

            transfer_for(url).whole(url, limit, take)
            file.flush()
            os.fsync(file.fileno())
        with temporary.open("rb") as reader:
            manifest = manifest_of_file(reader)
        if keep(manifest):
            temporary.replace(target)
        return manifest
    except OSError as error:
        raise DataError(
            f"{target} cannot be written: {error.strerror}. Free some disk space, or set PSYCHE_DATA_CACHE"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)
