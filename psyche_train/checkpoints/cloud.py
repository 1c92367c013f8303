"""Checkpoints in object stores, through fsspec: `s3://`, `gs://`, and every other URL that fsspec knows.

A checkpoint is a folder with the files of its directory. `manifest.json` is deleted first and written last, so
whoever finds one finds everything that it lists; `upload.json` says what an upload that has not ended wanted to
put there, so that the next one only sends what is missing. What comes down is compared with the manifest.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from psyche_train._durable import sync_path
from psyche_train.checkpoints.errors import CheckpointError, DamagedError, StorageError, disk
from psyche_train.checkpoints.manifest import MANIFEST, MAX_MANIFEST_BYTES, FileEntry
from psyche_train.checkpoints.publish import model_files, public_files, read_public_manifest

logger = logging.getLogger(__name__)

T = TypeVar("T")

ATTEMPTS = 4
FIRST_PAUSE_S = 1.0
READ_BYTES = 8 << 20
UPLOADING = "upload.json"
_EXTRA = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}


def upload(checkpoint: Path, url: str) -> str:
    """Put a checkpoint into the folder `url`; going on where an earlier try stopped. Return the URL.

    Raises:
        CheckpointError: the checkpoint is damaged, or the store cannot be written.
    """
    files = public_files(checkpoint)
    store = _Store(url)
    manifest = files.pop(MANIFEST, None)
    wanted = json.dumps({name: part.entry.sha256 for name, part in files.items()}, sort_keys=True).encode()
    goal = manifest.content if manifest is not None else None
    if isinstance(goal, bytes) and store.get_small(MANIFEST) == goal and _all_there(store, files):
        return url
    if store.get_small(UPLOADING) != wanted:
        store.delete(MANIFEST)
        store.put(UPLOADING, wanted)
        begun: set[str] = set()
    else:
        store.delete(MANIFEST)
        begun = {name for name, part in files.items() if store.size(name) == part.entry.num_bytes}
    for name, part in files.items():
        if name not in begun:
            store.put(name, part.content)
        if (found := store.size(name)) != part.entry.num_bytes:
            raise StorageError(
                f"{url}/{name} has {found} bytes after the upload, not {part.entry.num_bytes}: try again"
            )
    if manifest is not None:
        store.put(MANIFEST, manifest.content)
    store.delete(UPLOADING)
    return url


def download(url: str, target: Path, *, tier: int = 0) -> Path:
    """Fetch the checkpoint in the folder `url`, going on where an earlier try stopped; return its directory.

    Args:
        target: appears when everything is there and verified; one that is there already is verified again.
        tier: if the folder has a directory `tier<t>/` of this tier, the full weights are not fetched.

    Raises:
        CheckpointError: it is not there or not whole, cannot be read, or arrived damaged twice.
    """
    store = _Store(url)
    wanted = _wanted(store, tier)
    if target.is_dir() and all(_is_there(target / name, entry) for name, (entry, _) in wanted.items()):
        return target
    beside = target.with_name(f".new-{target.name}")
    with disk(beside, "cannot create"):
        beside.mkdir(parents=True, exist_ok=True)
        for name in wanted:
            (beside / name).parent.mkdir(exist_ok=True)
    missing = sum(
        size - _part_size(beside, name)
        for name, (entry, size) in wanted.items()
        if not _is_there(beside / name, entry)
    )
    free = shutil.disk_usage(beside).free
    if free < missing:
        raise StorageError(
            f"{url}: {missing / 1e9:.2f} GB are missing, {beside.parent} has {free / 1e9:.2f} GB free: free space, "
            "or choose another disk"
        )
    for name, (entry, size) in wanted.items():
        if not _is_there(beside / name, entry):
            _fetch(store, name, entry, size, beside)
    with disk(target, "cannot finish"):
        sync_path(beside)
        if target.exists():
            shutil.rmtree(target)
        beside.rename(target)
        sync_path(target.parent)
    return target


def _wanted(store: _Store, tier: int) -> dict[str, tuple[FileEntry | None, int]]:
    """Name -> what the manifest says (None without one) and the length."""
    wanted: dict[str, tuple[FileEntry | None, int]] = {}
    raw = store.get_small(MANIFEST)
    folder = f"tier{tier}"
    if tier and (sliced := store.get_small(f"{folder}/{MANIFEST}")) is not None:
        manifest = read_public_manifest(sliced, f"{store.url}/{folder}/{MANIFEST}")
        wanted = {f"{folder}/{name}": (entry, entry.num_bytes) for name, entry in manifest.files.items()}
        wanted[f"{folder}/{MANIFEST}"] = (FileEntry.of_bytes(sliced), len(sliced))
        for name in ("config.json",):
            if (content := store.get_small(name)) is not None:
                wanted[name] = (FileEntry.of_bytes(content), len(content))
        return wanted
    if raw is not None:
        manifest = read_public_manifest(raw, f"{store.url}/{MANIFEST}")
        wanted = {name: (entry, entry.num_bytes) for name, entry in manifest.files.items()}
        wanted[MANIFEST] = (FileEntry.of_bytes(raw), len(raw))
        return wanted
    if store.get_small(UPLOADING) is not None:
        raise CheckpointError(
            f"{store.url} is being uploaded, or its upload was broken off: wait, or upload again"
        )
    names = store.names()
    try:
        return {name: (None, store.size(name) or 0) for name in model_files(names, 0)}
    except CheckpointError as error:
        raise CheckpointError(
            f"{store.url}: {error}" if names else f"{store.url} is empty, or not there"
        ) from error


def _fetch(store: _Store, name: str, entry: FileEntry | None, size: int, folder: Path) -> None:
    """One file, from where an earlier try stopped; fetched a second time if it does not verify."""
    part = folder / f"{name}.part"
    for attempt in (1, 2):
        store.read_into(name, part, size)
        if entry is None or FileEntry.of_file(part) == entry:
            with disk(part, "cannot store"):
                sync_path(part)
                part.rename(folder / name)
            return
        part.unlink()
        logger.warning("arrived damaged url=%s/%s attempt=%d", store.url, name, attempt)
    raise DamagedError(f"{store.url}/{name} does not have the hash that its manifest lists, twice")


def _is_there(path: Path, entry: FileEntry | None) -> bool:
    return path.is_file() and (entry is None or FileEntry.of_file(path) == entry)


def _part_size(folder: Path, name: str) -> int:
    part = folder / f"{name}.part"
    return part.stat().st_size if part.is_file() else 0


def _all_there(store: _Store, files: dict[str, Any]) -> bool:
    return all(store.size(name) == part.entry.num_bytes for name, part in files.items())


class _Store:
    """One folder of an object store; every call is tried again, and its errors are sentences."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        scheme = url.split("://", 1)[0] if "://" in url else ""
        try:
            from fsspec.core import url_to_fs

            self._fs, path = url_to_fs(self.url)
        except ImportError as error:
            package = _EXTRA.get(scheme, "its package")
            raise CheckpointError(
                f"{url}: {scheme}:// needs {package}, which is not installed: pip install 'psyche-py[cloud]'"
            ) from error
        except (ValueError, TypeError) as error:
            raise CheckpointError(f"{url} is no address of a store: {error}") from error
        self._path = str(path).rstrip("/")

    def size(self, name: str) -> int | None:
        """Length of a file; None if it is not there."""

        def call() -> int | None:
            self._fs.invalidate_cache()
            try:
                return int(self._fs.info(self._at(name))["size"])
            except FileNotFoundError:
                return None

        return self._tried(f"cannot look at {self.url}/{name}", call)

    def names(self) -> list[str]:
        """Relative names of all files."""

        def call() -> list[str]:
            self._fs.invalidate_cache()
            try:
                found = self._fs.find(self._path)
            except FileNotFoundError:
                return []
            return [str(name)[len(self._path) :].lstrip("/") for name in found]

        return self._tried(f"cannot list {self.url}", call)

    def get_small(self, name: str) -> bytes | None:
        """Content of a small file; None if it is not there."""
        size = self.size(name)
        if size is None:
            return None
        if size > MAX_MANIFEST_BYTES:
            raise DamagedError(f"{self.url}/{name} has {size} bytes, at most {MAX_MANIFEST_BYTES} are read")
        return self._tried(f"cannot read {self.url}/{name}", lambda: bytes(self._fs.cat_file(self._at(name))))

    def put(self, name: str, content: Path | bytes) -> None:
        """Write a file."""

        def call() -> None:
            if not self._is_flat():
                self._fs.makedirs(self._at(name).rsplit("/", 1)[0], exist_ok=True)
            if isinstance(content, bytes):
                self._fs.pipe_file(self._at(name), content)
            else:
                self._fs.put_file(str(content), self._at(name))

        self._tried(f"cannot write {self.url}/{name}", call)

    def delete(self, name: str) -> None:
        """Delete a file if it is there."""
        if self.size(name) is not None:
            self._tried(f"cannot delete {self.url}/{name}", lambda: self._fs.rm_file(self._at(name)))

    def read_into(self, name: str, part: Path, size: int) -> None:
        """Append what `part` lacks of a file of `size` bytes; a try that breaks off keeps what it got."""

        def call() -> None:
            with disk(part, "cannot write"), part.open("ab") as file:
                at = file.tell()
                if at > size:
                    file.truncate(0)
                    at = 0
                while at < size:
                    with _remote():
                        block = self._fs.cat_file(self._at(name), start=at, end=min(size, at + READ_BYTES))
                    if not block:
                        raise DamagedError(f"{self.url}/{name} ends after {at} of {size} bytes")
                    file.write(block)
                    at += len(block)

        self._tried(f"cannot read {self.url}/{name}", call)

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}"

    def _is_flat(self) -> bool:
        """Whether folders are only parts of names, as in object stores."""
        protocol = self._fs.protocol
        return bool({"s3", "s3a", "gs", "gcs"} & set([protocol] if isinstance(protocol, str) else protocol))

    def _tried(self, doing: str, call: Callable[[], T]) -> T:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with _remote():
                    return call()
            except _RemoteError as error:
                cause = error.cause
                if isinstance(cause, FileNotFoundError):
                    raise CheckpointError(f"{doing}: it is not there") from cause
                if isinstance(cause, PermissionError) or "Credentials" in type(cause).__name__:
                    raise StorageError(
                        f"{doing}: {cause or type(cause).__name__}; check the store's credentials on this machine"
                    ) from cause
                if attempt == ATTEMPTS:
                    raise StorageError(f"{doing}: {_sentence(cause)}; try again later") from cause
                logger.warning("once more doing=%s attempt=%d reason=%s", doing, attempt, _sentence(cause))
            time.sleep(FIRST_PAUSE_S * 2 ** (attempt - 1))
        raise AssertionError("the last attempt returns or raises")


class _RemoteError(Exception):
    """Whatever a file system raised; they have no common type of error."""

    def __init__(self, cause: Exception) -> None:
        self.cause = cause


@contextmanager
def _remote() -> Iterator[None]:
    try:
        yield
    except (CheckpointError, _RemoteError):
        raise
    except Exception as error:
        raise _RemoteError(error) from error


def _sentence(error: Exception) -> str:
    text = str(error).splitlines()[0][:300] if str(error) else ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def cached(url: str, base: Path) -> Path:
    """Where a URL's checkpoint is kept on this machine."""
    name = url.rstrip("/").rsplit("/", 1)[-1] or "root"
    safe = "".join(c if c.isalnum() or c in "-_." else "-" for c in name)[:60].lstrip(".")
    return base / f"{safe}-{hashlib.sha256(url.rstrip('/').encode()).hexdigest()[:16]}"
