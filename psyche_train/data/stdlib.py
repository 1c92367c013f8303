"""`Stdlib` and `Dummy`: data without a download.

The text of the standard library differs from one Python to the next; a run's text is that of its creator, and a
member whose text differs gets the run's from peers.
"""

from __future__ import annotations

import os
import sysconfig
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from psyche_train.blobs import blob_id
from psyche_train.data.errors import DataError
from psyche_train.data.manifest import DataManifest, ShardEntry

_SKIPPED_FOLDERS = {"site-packages", "dist-packages", "test", "tests", "__pycache__", "idle_test"}
_SKIPPED_FILES = ("_sysconfigdata", "sitecustomize", "usercustomize")
"""Written by the distribution or the build, so that they differ between machines with one Python."""


def stdlib_text(max_bytes: int, folder: Path | None = None) -> bytes:
    """The first `max_bytes` of the standard library's source files, sorted by path, one after the other.

    Raises:
        DataError: there are no source files (a stripped installation).
    """
    root = folder or Path(sysconfig.get_paths()["stdlib"])
    files = []
    for folder_name, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in _SKIPPED_FOLDERS]
        for name in names:
            path = Path(folder_name, name)
            if path.suffix == ".py" and not name.startswith(_SKIPPED_FILES) and not path.is_symlink():
                files.append(path)
    parts, size = [], 0
    for path in sorted(files, key=lambda path: path.relative_to(root).as_posix()):
        if size >= max_bytes:
            break
        try:
            text = path.read_bytes().replace(b"\r\n", b"\n")
        except OSError as error:
            raise DataError(
                f"{path} cannot be read: {error.strerror}. Repair the Python installation"
            ) from None
        parts.append(text)
        size += len(text)
    if size == 0:
        raise DataError(f"{root} holds no .py files: install Python with its standard library's sources")
    return b"".join(parts)[:max_bytes]


@lru_cache(maxsize=1)
def own_stdlib(max_bytes: int) -> tuple[bytes, DataManifest]:
    """This machine's text and its manifest, of one shard."""
    text = stdlib_text(max_bytes)
    highest = int(np.frombuffer(text, dtype=np.uint8).max())
    return text, DataManifest(1, highest, (ShardEntry(blob_id(text), len(text)),))


def dummy_tokens(num_tokens: int) -> npt.NDArray[np.uint8]:
    """Bytes of a small arithmetic pattern: predictable from the two before, so that loss can fall."""
    at = np.arange(num_tokens, dtype=np.int64)
    return ((at * 7 + (at // 13) * 3) % 97 + 32).astype(np.uint8)
