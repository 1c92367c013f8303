"""What can be wrong with a checkpoint, wherever it is.

CheckpointError (ValueError): missing, damaged, not the run's model, or it could not be written or moved.
    DamagedError: the bytes are not what they should be: torn, altered, or made to do harm.
    DoubleSliceError: a slice of a slice was asked for.
    StorageError: the disk or a remote store refused; the message says what to do.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged, or not the run's model."""


class DamagedError(CheckpointError):
    """Bytes that are not what they should be: torn, altered, or made to do harm."""


class DoubleSliceError(CheckpointError):
    """A slice of a slice was asked for: the neurons of the tier are not in the file."""


class StorageError(CheckpointError):
    """The disk or a remote store refused."""


@contextmanager
def disk(path: Path, doing: str) -> Iterator[None]:
    """Turn an OSError into a sentence.

    Raises:
        StorageError: what was being done, where, why it failed and what to do.
    """
    try:
        yield
    except OSError as error:
        hints = {
            errno.ENOSPC: "free space, or choose another disk",
            errno.EDQUOT: "free space, or ask for a larger quota",
            errno.EACCES: "check who may write there",
            errno.EROFS: "choose a folder that can be written",
            errno.ENOENT: "check the path",
        }
        hint = hints.get(error.errno or 0, "look after the disk, then try again")
        raise StorageError(f"{doing} {path}: {error.strerror or error}; {hint}") from error
