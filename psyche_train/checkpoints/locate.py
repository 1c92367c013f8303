"""Which checkpoint a user means by a path."""

from __future__ import annotations

from pathlib import Path

from psyche_train.checkpoints.errors import CheckpointError
from psyche_train.checkpoints.files import CONFIG
from psyche_train.checkpoints.store import newest


def checkpoint_at(path: Path) -> Path:
    """The checkpoint directory at a path: itself, or the newest good one of a member's state directory.

    Of what `psyche-train train --out` left, that is the first member's.

    Raises:
        CheckpointError: there is none.
    """
    path = path.expanduser()
    if (path / CONFIG).is_file():
        return path
    for folder in (path / "checkpoints", path, path / "members" / "0" / "checkpoints"):
        if folder.is_dir():
            for found, _, _ in newest(folder):
                return found
    if not path.exists():
        raise CheckpointError(
            f"{path} does not exist: name a checkpoint directory or a member's state directory"
        )
    raise CheckpointError(
        f"{path} holds no checkpoint: neither a {CONFIG}, nor a whole checkpoint of a member below checkpoints/"
    )
