"""The folder in which this machine keeps data that it fetched, converted or hashed; shared by all runs.

Everything in it can be deleted while no member runs: it is made again. Files are verified when they are used, so
what is in the cache is never believed.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from pathlib import Path
from typing import Any

from psyche_train._durable import sync_path
from psyche_train.data.errors import DataError

_counter = itertools.count()


def cache_dir() -> Path:
    """`PSYCHE_DATA_CACHE`, else `psyche/data` in the user's cache folder."""
    if chosen := os.environ.get("PSYCHE_DATA_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "psyche" / "data"


def cache_folder(kind: str, key: Any) -> Path:
    """The folder of one thing, created; `key` is JSON that says which one.

    Raises:
        DataError: it cannot be created.
    """
    text = json.dumps(key, sort_keys=True)
    folder = cache_dir() / kind / hashlib.sha256(text.encode()).hexdigest()[:32]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"the data cache {folder} cannot be used: {error.strerror}. "
            "Set PSYCHE_DATA_CACHE to a folder with enough room"
        ) from None
    return folder


def temporary_beside(path: Path) -> Path:
    """A name that no other writer uses, in the folder of `path`."""
    return path.with_name(f".{path.name}.{os.getpid()}-{next(_counter)}.tmp")


def write_whole(path: Path, data: bytes) -> None:
    """Write a file that appears complete or not at all.

    Raises:
        DataError: the disk refuses.
    """
    temporary = temporary_beside(path)
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_path(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise DataError(f"{path} cannot be written: {error.strerror}. Free some disk space") from None
