"""Where tokens come from, each with a SHA-256 that the spec holds.

DataError (ValueError): a source is missing here, or holds other bytes than the spec says.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sysconfig
from pathlib import Path

import numpy as np
import numpy.typing as npt

from psyche_train.spec import DummyData, LocalData, StdlibData

Tokens = npt.NDArray[np.integer]

_SKIPPED_FOLDERS = {"site-packages", "dist-packages", "test", "tests", "__pycache__", "idle_test"}
_SKIPPED_FILES = ("_sysconfigdata", "sitecustomize", "usercustomize")
"""Written by the distribution or the build, so that they differ between machines with one Python."""
_WIDTHS = {"OneByte": "<u1", "TwoBytes": "<u2", "FourBytes": "<u4"}


class DataError(ValueError):
    """A source is missing here, or holds other bytes than the spec says."""


def read_tokens(location: StdlibData | LocalData | DummyData) -> tuple[Tokens, str]:
    """Return a source's tokens and the SHA-256 (hex) of its bytes, unchecked."""
    if isinstance(location, StdlibData):
        text = stdlib_text(location.max_bytes)
        return np.frombuffer(text, dtype=np.uint8), hashlib.sha256(text).hexdigest()
    if isinstance(location, LocalData):
        return _read_local(location)
    tokens = _dummy(location.num_tokens)
    return tokens, hashlib.sha256(tokens.tobytes()).hexdigest()


def open_tokens(location: StdlibData | LocalData | DummyData) -> Tokens:
    """Return a source's tokens after comparing them with the spec's hash.

    Raises:
        DataError: says what differs and what to do.
    """
    tokens, found = read_tokens(location)
    wanted = "" if isinstance(location, DummyData) else location.sha256
    if wanted and wanted != found:
        if isinstance(location, StdlibData):
            made_with = f" (made with Python {location.python})" if location.python else ""
            raise DataError(
                f"this machine's standard library (Python {platform.python_version()}) has other text "
                f"than the run's{made_with}: SHA-256 {found[:16]}, the run's is {wanted[:16]}. "
                f"Join with Python {location.python or 'of the version that created the run'}"
            )
        assert isinstance(location, LocalData)
        raise DataError(
            f"{location.path} has SHA-256 {found[:16]}, the run's is {wanted[:16]}: "
            "get the file that the run's creator published"
        )
    return tokens


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
        text = path.read_bytes().replace(b"\r\n", b"\n")
        parts.append(text)
        size += len(text)
    if size == 0:
        raise DataError(f"{root} holds no .py files: install Python with its standard library's sources")
    return b"".join(parts)[:max_bytes]


def _read_local(location: LocalData) -> tuple[Tokens, str]:
    path = Path(location.path)
    if not path.is_file():
        raise DataError(f"{path} is not a file here: get the run's data, or correct data_location.Local.path")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if path.suffix == ".npy":
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if array.ndim != 1 or not np.issubdtype(array.dtype, np.integer):
            raise DataError(f"{path} holds {array.dtype} of {array.ndim} dimensions, not a list of integers")
        return array, found
    if path.suffix != ".bin":
        raise DataError(f"{path} ends in {path.suffix or 'nothing'}: .bin and .npy are read")
    width = np.dtype(_WIDTHS[location.token_size_in_bytes])
    if path.stat().st_size == 0 or path.stat().st_size % width.itemsize:
        raise DataError(f"{path} has {path.stat().st_size} bytes, not a multiple of {width.itemsize}")
    return np.memmap(path, dtype=width, mode="r"), found


def _dummy(num_tokens: int) -> Tokens:
    """Bytes of a small arithmetic pattern: predictable from the two before, so that loss can fall."""
    at = np.arange(num_tokens, dtype=np.int64)
    return ((at * 7 + (at // 13) * 3) % 97 + 32).astype(np.uint8)
