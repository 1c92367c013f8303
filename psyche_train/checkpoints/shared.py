"""What a member offers of a checkpoint to its peers: one file with everything that members share."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save

from psyche_train.checkpoints.store import FOLDED, WEIGHTS


def shared_bytes(path: Path) -> bytes:
    """Return a checkpoint's weights and folded state as one `.safetensors` file, without its own state.

    The bytes depend on the tensors only, so members with equal weights offer one blob.

    Args:
        path: a checkpoint directory as `CheckpointStore.write` makes it.
    """
    if not (path / FOLDED).is_file():
        return (path / WEIGHTS).read_bytes()
    return save({**load_file(path / WEIGHTS), **load_file(path / FOLDED)}, metadata={"format": "pt"})
