"""Prepared data for the tests, written without the code that prepares."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from psyche_train.blobs import Manifest
from psyche_train.data.manifest import DataManifest, ShardEntry


def tokens_of(count: int, seed: int = 0, below: int = 150) -> np.ndarray:
    """Random tokens."""
    return np.random.default_rng(seed).integers(0, below, count)


def write_prepared(
    folder: Path, tokens: np.ndarray, cuts: Sequence[int] = (), dtype: str = "<u2"
) -> DataManifest:
    """Write shards that end at `cuts`, with manifest and digests."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for number, part in enumerate(np.split(tokens, cuts)):
        data = part.astype(dtype).tobytes()
        pieces = Manifest.of_bytes(data)
        path = folder / f"shard-{number:05}.bin"
        path.write_bytes(data)
        path.with_name(path.name + ".pieces").write_bytes(pieces.to_bytes())
        entries.append(ShardEntry(pieces.id, len(data)))
    manifest = DataManifest(np.dtype(dtype).itemsize, int(tokens.max()), tuple(entries))
    (folder / "manifest.json").write_bytes(manifest.to_bytes())
    return manifest
