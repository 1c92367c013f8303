"""What a member offers of a checkpoint to its peers: one file with everything that members share."""

from __future__ import annotations

import tempfile
from pathlib import Path

from psyche_train.checkpoints.files import FOLDED, WEIGHTS, WeightFiles
from psyche_train.checkpoints.tensors import write_tensors


def shared_bytes(path: Path) -> bytes:
    """Return a checkpoint's weights and folded state as one `.safetensors` file, without its own state.

    The bytes depend on the tensors only, so members with equal weights offer one blob, in how many files ever
    they keep them.

    Args:
        path: a checkpoint directory as `CheckpointStore.write` makes it.
    """
    if (path / WEIGHTS).is_file() and not (path / FOLDED).is_file():
        return (path / WEIGHTS).read_bytes()
    with WeightFiles(path) as files, tempfile.TemporaryDirectory(dir=path.parent, prefix=".new-") as folder:
        whole = Path(folder) / WEIGHTS
        write_tensors(whole, files.entries(), files.read, {"format": "pt"})
        return whole.read_bytes()
