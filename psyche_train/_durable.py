"""Make sure that what was written, or renamed, is on disk."""

from __future__ import annotations

import os
from pathlib import Path


def sync_path(path: Path) -> None:
    """Wait until a file's content, or a directory's entries, are on disk.

    Raises:
        OSError: the path cannot be opened, or the disk refused.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
