"""Notes beside the blobs that other members pushed here: whose they are, and until when they stay hidden.

`<id>.pushed` in the blob directory holds `key round`, the round being -1 if none; it is written before the
blob arrives, so that no crash shows a blob early or loses count of a member's share of the disk. The note goes
when this member wants the blob itself: what a member pushed cannot hide another's blob from those who ask here.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass

from psyche_train.blobs import BlobStore, BlobStoreError

SUFFIX = ".pushed"
MAX_NOTE_BYTES = 128


@dataclass(frozen=True, slots=True)
class Note:
    """Who pushed a blob, and the round that has to be revealed before it may be served."""

    sender: bytes
    hidden_until: int | None


def write_note(store: BlobStore, blob: bytes, note: Note) -> None:
    """Write the note of a blob that is about to be fetched.

    Raises:
        BlobStoreError: the disk refuses.
    """
    path = store.path(blob).with_name(blob.hex() + SUFFIX)
    beside = path.with_name(f"tmp-{os.getpid()}-{blob.hex()}{SUFFIX}")
    hidden = -1 if note.hidden_until is None else note.hidden_until
    try:
        beside.write_text(f"{note.sender.hex()} {hidden}", "ascii")
        os.replace(beside, path)
    except OSError as exc:
        raise BlobStoreError(f"cannot note who pushed a blob at {path}: {exc.strerror or exc}") from exc


def read_note(store: BlobStore, blob: bytes) -> Note | None:
    """The note of a blob, or None. One that cannot be read hides the blob: nothing is shown early by mistake."""
    path = store.path(blob).with_name(blob.hex() + SUFFIX)
    try:
        with path.open("r", encoding="ascii") as file:
            sender, hidden = file.read(MAX_NOTE_BYTES).split(" ")
        return Note(bytes.fromhex(sender), None if hidden == "-1" else int(hidden))
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        return Note(b"", 2**63)


def drop_note(store: BlobStore, blob: bytes) -> None:
    """Forget that a blob was pushed."""
    with suppress(OSError):
        store.path(blob).with_name(blob.hex() + SUFFIX).unlink(missing_ok=True)


def pushed_bytes(store: BlobStore, sender: bytes) -> int:
    """Bytes of the whole blobs that a member pushed here."""
    total = 0
    for blob in _noted(store):
        note = read_note(store, blob)
        if note is not None and note.sender == sender:
            with suppress(OSError):
                total += store.path(blob).stat().st_size
    return total


def pushed_lately(store: BlobStore, seconds: float) -> set[bytes]:
    """Blobs that were pushed here within so many seconds."""
    since, found = time.time() - seconds, set()
    for blob in _noted(store):
        with suppress(OSError):
            if store.path(blob).with_name(blob.hex() + SUFFIX).stat().st_mtime > since:
                found.add(blob)
    return found


def _noted(store: BlobStore) -> list[bytes]:
    found = []
    with suppress(OSError):
        for name in os.listdir(store.directory):
            if name.endswith(SUFFIX) and len(name) == 64 + len(SUFFIX):
                with suppress(ValueError):
                    found.append(bytes.fromhex(name[:64]))
    return found
