"""Content-addressed blobs on disk: updates, checkpoints and data shards, each named by the hash of its bytes.

A blob is cut into pieces of 256 KiB. Its manifest is the length and the SHA-256 of every piece; its id is the
SHA-256 of the manifest. Whoever holds the 32-byte id can therefore verify a manifest before it allocates
anything, and every piece as it arrives.

Files in the directory of a store (`<id>` is 64 hexadecimal digits):

| name                 | content                                                                        |
|----------------------|--------------------------------------------------------------------------------|
| `<id>`               | a whole blob; it appears by a rename, so it is complete and durable             |
| `<id>.manifest`      | its manifest, written before it                                                |
| `<id>.hidden`        | "not before this round is revealed" (decimal), written before it                |
| `<id>.pushed`        | another member pushed it here, see `psyche_train.network.pushed`               |
| `<id>.part`          | a blob being fetched, sparse; verified again, piece by piece, when it is resumed |
| `<id>.part.manifest` | its manifest                                                                   |
| `tmp-<pid>-<n>`      | a file being written; swept when the store is opened by its owner               |

Errors: BlobStoreError (a ValueError's cousin for disks: full, unwritable, missing) and its subclasses
BlobCorrupt (bytes do not match an id) and BlobMissing.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from psyche_train._durable import sync_path
from psyche_train._manifest import (
    ID_BYTES,
    MAX_BLOB_BYTES,
    MAX_MANIFEST_BYTES,
    PIECE,
    BlobCorrupt,
    BlobMissing,
    BlobStoreError,
    Manifest,
    blob_id,
    manifest_of_file,
    num_pieces,
)

_TMP = "tmp-"
_counter = itertools.count()

__all__ = [
    "ID_BYTES",
    "MAX_BLOB_BYTES",
    "MAX_MANIFEST_BYTES",
    "PIECE",
    "BlobCorrupt",
    "BlobMissing",
    "BlobStore",
    "BlobStoreError",
    "Manifest",
    "PartialBlob",
    "blob_id",
    "num_pieces",
]


class BlobStore:
    """Blobs in one directory, durable once `put` returns, whole after `kill -9` at any moment.

    Several processes may open the same directory: files appear only by rename. `sweep` is for the one owner
    that opens it first; it removes what an interrupted writer left.

    Args:
        directory: created if missing.
        sweep: remove leftover temporary files.

    Raises:
        BlobStoreError: the directory cannot be created or written.
    """

    def __init__(self, directory: Path, *, sweep: bool = False) -> None:
        self.directory = directory
        with _disk(directory, "open the blob store"):
            directory.mkdir(parents=True, exist_ok=True)
            if not os.access(directory, os.W_OK | os.X_OK):
                raise PermissionError(13, "Permission denied")
            if sweep:
                for stale in directory.glob(f"{_TMP}*"):
                    stale.unlink(missing_ok=True)

    def path(self, blob: bytes) -> Path:
        """Where the blob is, or would be."""
        if len(blob) != ID_BYTES:
            raise ValueError(f"a blob id has {ID_BYTES} bytes, this one {len(blob)}")
        return self.directory / blob.hex()

    def has(self, blob: bytes) -> bool:
        """Whether the whole blob is here."""
        return self.path(blob).is_file()

    def put(self, source: bytes | Path, *, hidden_until: int | None = None) -> bytes:
        """Store a blob durably and return its id.

        Args:
            source: the bytes, or a file to copy.
            hidden_until: the round that has to be revealed before the blob may be served. A blob that is
                already here and hidden stays as hidden as it was.

        Raises:
            BlobStoreError: disk full or unwritable; nothing is left behind.
        """
        with _disk(self.directory, "store a blob"):
            if isinstance(source, Path):
                temporary, manifest = self._copy(source)
            else:
                manifest = Manifest.of_bytes(source)
                temporary = None
            blob = manifest.id
            try:
                if hidden_until is not None:
                    known = self.hidden_until(blob)
                    self._hide(blob, hidden_until if known is None else max(known, hidden_until))
                if self.has(blob):
                    return blob
                if temporary is None:
                    assert isinstance(source, bytes | bytearray | memoryview)
                    temporary = self._write_temporary(source)
                self._write(self._beside(blob, ".manifest"), manifest.to_bytes())
                os.replace(temporary, self.path(blob))
                temporary = None
                sync_path(self.directory)
            finally:
                if temporary is not None:
                    temporary.unlink(missing_ok=True)
        return blob

    def adopt(self, source: Path, blob: bytes) -> None:
        """Have a file as a blob without a second copy of its bytes, where the file system can link it.

        The file must not be changed afterwards; pieces are verified by whoever receives them.

        Raises:
            BlobCorrupt: it is not that blob.
            BlobStoreError: disk full, unwritable, or the file cannot be read.
        """
        if self.has(blob):
            return
        temporary = None
        with _disk(self.directory, f"take {source} into the store"):
            try:
                with source.open("rb") as reader:
                    manifest = manifest_of_file(reader)
                if manifest.id != blob:
                    raise BlobCorrupt(f"{source} is blob {manifest.id.hex()}, not {blob.hex()}")
                temporary = self._temporary()
                try:
                    os.link(source, temporary)
                except OSError:  # another file system, or one without links
                    temporary = None
                    temporary, manifest = self._copy(source)
                self._write(self._beside(blob, ".manifest"), manifest.to_bytes())
                os.replace(temporary, self.path(blob))
                temporary = None
                sync_path(self.directory)
            finally:
                if temporary is not None:
                    temporary.unlink(missing_ok=True)

    def get(self, blob: bytes) -> bytes:
        """The blob's bytes, verified.

        Raises:
            BlobMissing: not here.
            BlobCorrupt: the disk changed it; the file has been removed, so it can be fetched again.
        """
        with _disk(self.path(blob), "read a blob", reads=blob):
            data = self.path(blob).read_bytes()
        if blob_id(data) != blob:
            self.delete(blob)
            raise BlobCorrupt(f"blob {blob.hex()} in {self.directory} was damaged on disk and is removed")
        return data

    def manifest(self, blob: bytes) -> Manifest:
        """The blob's manifest.

        Raises:
            BlobMissing: the blob is not here.
        """
        if not self.has(blob):
            raise BlobMissing(f"blob {blob.hex()} is not in {self.directory}")
        with suppress(OSError, BlobCorrupt):
            manifest = Manifest.from_bytes(self._beside(blob, ".manifest").read_bytes())
            if manifest.id == blob:
                return manifest
        with _disk(self.path(blob), "read a blob", reads=blob), self.path(blob).open("rb") as file:
            manifest = manifest_of_file(file)
        if manifest.id != blob:
            self.delete(blob)
            raise BlobCorrupt(f"blob {blob.hex()} in {self.directory} was damaged on disk and is removed")
        return manifest

    def read(self, blob: bytes, offset: int, length: int) -> bytes:
        """Up to `length` bytes from `offset`; not verified (the receiver does)."""
        with _disk(self.path(blob), "read a blob", reads=blob), self.path(blob).open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def hidden_until(self, blob: bytes) -> int | None:
        """The round that has to be revealed before the blob may be served, or None.

        A record that cannot be read hides the blob for ever: nothing is shown early by mistake.
        """
        try:
            return int(self._beside(blob, ".hidden").read_text("ascii"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            return 2**63

    def partial(self, manifest: Manifest) -> PartialBlob:
        """Start or resume fetching a blob; the caller has checked its length against a limit.

        Raises:
            BlobStoreError: no room for the whole blob.
        """
        with _disk(self.directory, f"make room for {manifest.length} bytes"):
            return PartialBlob(self, manifest)

    def partial_manifest(self, blob: bytes) -> Manifest | None:
        """Manifest of an interrupted fetch of this blob, or None."""
        with suppress(OSError, BlobCorrupt):
            manifest = Manifest.from_bytes(self._beside(blob, ".part.manifest").read_bytes())
            if manifest.id == blob:
                return manifest
        return None

    def delete(self, blob: bytes) -> None:
        """Remove the blob and everything about it; nothing happens if it is not here."""
        with _disk(self.directory, "delete a blob"):
            for suffix in ("", ".part", ".part.manifest", ".manifest", ".hidden", ".pushed"):
                self._beside(blob, suffix).unlink(missing_ok=True)

    def ids(self) -> Iterator[bytes]:
        """The ids of all whole blobs, in no order."""
        with _disk(self.directory, "list the blob store"):
            names = os.listdir(self.directory)
        for name in names:
            if len(name) == 64:
                with suppress(ValueError):
                    yield bytes.fromhex(name)

    def prune(self, keep: Collection[bytes]) -> int:
        """Delete every blob, whole or partial, that is not in `keep`; returns how many."""
        kept = {blob.hex() for blob in keep}
        with _disk(self.directory, "list the blob store"):
            stems = {entry.name.split(".")[0] for entry in os.scandir(self.directory) if entry.is_file()}
        doomed = [stem for stem in stems - kept if len(stem) == 64]
        for stem in doomed:
            with suppress(ValueError):
                self.delete(bytes.fromhex(stem))
        return len(doomed)

    @property
    def total_bytes(self) -> int:
        """Bytes that the directory's files hold, holes of partial blobs aside."""
        total = 0
        with _disk(self.directory, "list the blob store"), os.scandir(self.directory) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    total += entry.stat().st_blocks * 512
        return total

    def _beside(self, blob: bytes, suffix: str) -> Path:
        return self.path(blob).with_name(blob.hex() + suffix)

    def _hide(self, blob: bytes, round_number: int) -> None:
        self._write(self._beside(blob, ".hidden"), str(round_number).encode())

    def _write(self, target: Path, data: bytes) -> None:
        os.replace(self._write_temporary(data), target)

    def _temporary(self) -> Path:
        return self.directory / f"{_TMP}{os.getpid()}-{next(_counter)}"

    def _write_temporary(self, data: bytes | bytearray | memoryview) -> Path:
        temporary = self._temporary()
        try:
            with temporary.open("xb") as file:
                file.write(data)
                _sync(file)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return temporary

    def _copy(self, source: Path) -> tuple[Path, Manifest]:
        temporary = self._temporary()
        try:
            with source.open("rb") as reader, temporary.open("xb") as writer:
                manifest = manifest_of_file(reader, writer)
                _sync(writer)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return temporary, manifest


class PartialBlob:
    """A blob being fetched: pieces arrive in any order, are verified, and survive a crash.

    Use as a context manager; leaving it keeps what has arrived.
    """

    def __init__(self, store: BlobStore, manifest: Manifest) -> None:
        self.manifest = manifest
        self.id = manifest.id
        self._store = store
        self._path = store._beside(self.id, ".part")
        resumed = self._path.exists() and store.partial_manifest(self.id) is not None
        if not resumed:
            store._write(store._beside(self.id, ".part.manifest"), manifest.to_bytes())
        self._file = open(self._path, "r+b" if resumed else "w+b")  # noqa: SIM115 (closed by close)
        try:
            if hasattr(os, "posix_fallocate") and manifest.length:
                os.posix_fallocate(self._file.fileno(), 0, manifest.length)
            self._file.truncate(manifest.length)
        except BaseException:
            self._file.close()
            store.delete(self.id)
            raise
        self.missing = set(range(len(manifest.digests)))
        """Indices of the pieces that have not been verified yet."""
        if resumed:
            self.missing = {i for i in self.missing if not self._verifies(i)}

    def _verifies(self, index: int) -> bool:
        data = os.pread(self._file.fileno(), self.manifest.piece_bytes(index), index * PIECE)
        return hashlib.sha256(data).digest() == self.manifest.digests[index]

    def write_piece(self, index: int, data: bytes | memoryview) -> None:
        """Verify one piece and keep it.

        Raises:
            BlobCorrupt: it does not match the manifest; nothing is written.
            BlobStoreError: disk trouble.
        """
        if hashlib.sha256(data).digest() != self.manifest.digests[index]:
            raise BlobCorrupt(f"piece {index} of blob {self.id.hex()} does not match its hash")
        if index in self.missing:
            with _disk(self._path, "write a piece"):
                os.pwrite(self._file.fileno(), data, index * PIECE)
            self.missing.discard(index)

    def finish(self) -> Path:
        """Make the complete blob durable under its id and return its path."""
        if self.missing:
            raise ValueError(f"{len(self.missing)} pieces of blob {self.id.hex()} are missing")
        store = self._store
        with _disk(self._path, "store a fetched blob"):
            _sync(self._file)
            store._write(store._beside(self.id, ".manifest"), self.manifest.to_bytes())
            os.replace(self._path, store.path(self.id))
            store._beside(self.id, ".part.manifest").unlink(missing_ok=True)
            sync_path(store.directory)
        return store.path(self.id)

    def close(self) -> None:
        """Release the file; an unfinished blob stays on disk for the next attempt."""
        self._file.close()

    def __enter__(self) -> PartialBlob:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


@contextmanager
def _disk(path: Path, what: str, *, reads: bytes | None = None) -> Iterator[None]:
    """Turn an OSError into one that tells the user what to do.

    Args:
        reads: the blob that is read inside: its absence is a BlobMissing.
    """
    try:
        yield
    except OSError as exc:
        if reads is not None and isinstance(exc, FileNotFoundError):
            raise BlobMissing(f"blob {reads.hex()} is not in {path.parent}") from exc
        raise BlobStoreError(
            f"cannot {what} at {path}: {exc.strerror or exc}; "
            "free some disk space, fix the permissions, or choose another state directory"
        ) from exc


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
