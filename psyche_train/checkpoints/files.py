"""The weights of a checkpoint directory in the transformers layout: one file, or shards and an index.

model.safetensors                                  up to the shard size
model-00001-of-00003.safetensors ... model.safetensors.index.json      above it
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from psyche_train.checkpoints.errors import CheckpointError, DamagedError, disk
from psyche_train.checkpoints.manifest import FileEntry, is_plain_name
from psyche_train.checkpoints.tensors import Entry, TensorFile, read_json, write_tensors

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
FOLDED = "folded.safetensors"
"""Momenta of the fold, ``kind/name``: what a run goes on with besides its weights; no part of the model."""
CONFIG = "config.json"
SHARD_BYTES = 5 * 10**9
"""Weights of a checkpoint above this length are split; a larger tensor gets a file of its own."""
MAX_INDEX_BYTES = 32 << 20
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
)


def plan_shards(entries: Sequence[Entry], shard_bytes: int) -> dict[str, list[Entry]]:
    """Which tensor goes into which file: in the given order, each file as full as it may be."""
    shards: list[list[Entry]] = [[]]
    filled = 0
    for entry in entries:
        if shards[-1] and filled + entry.num_bytes > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(entry)
        filled += entry.num_bytes
    if len(shards) == 1:
        return {WEIGHTS: shards[0]}
    return {f"model-{i:05d}-of-{len(shards):05d}.safetensors": shard for i, shard in enumerate(shards, 1)}


def write_weights(
    folder: Path,
    entries: Sequence[Entry],
    fetch: Callable[[str], Tensor],
    *,
    shard_bytes: int = SHARD_BYTES,
    done: Mapping[str, FileEntry] | None = None,
    finished: Callable[[str, FileEntry], None] = lambda name, entry: None,
) -> dict[str, FileEntry]:
    """Write weights into a folder, one tensor in memory at a time; on disk when this returns.

    Args:
        fetch: returns the tensor of a name.
        done: files that an earlier attempt finished; they are not written again.
        finished: told of every file that is on disk.

    Returns:
        Name, length and SHA-256 of each file, the index too.

    Raises:
        StorageError: the disk is full or cannot be written.
    """
    shards = plan_shards(entries, shard_bytes)
    files: dict[str, FileEntry] = {}
    for name, shard in shards.items():
        if done is not None and name in done:
            files[name] = done[name]
            continue
        part = folder / f"{name}.part"
        files[name] = FileEntry(*write_tensors(part, shard, fetch, {"format": "pt"}))
        with disk(part, "cannot rename"):
            part.rename(folder / name)
        finished(name, files[name])
    if len(shards) > 1:
        index = {
            "metadata": {"total_size": sum(entry.num_bytes for entry in entries)},
            "weight_map": {entry.name: name for name, shard in shards.items() for entry in shard},
        }
        files[INDEX] = write_json(folder / INDEX, index)
    return files


def weight_files(path: Path) -> list[Path]:
    """The files that hold the weights of a checkpoint: a directory, or one `.safetensors` file.

    Raises:
        CheckpointError: there are none, or the index names what cannot be a file beside it.
    """
    if path.is_file():
        return [path]
    if (path / WEIGHTS).is_file():
        return [path / WEIGHTS]
    index = path / INDEX
    if not index.is_file():
        there = "; it holds pickled weights, which are not read: convert them" if _has_pickles(path) else ""
        raise CheckpointError(f"{path} holds neither {WEIGHTS} nor {INDEX}{there}")
    weight_map = read_json(index, MAX_INDEX_BYTES).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise DamagedError(f"{index} has no weight_map")
    names = set()
    for tensor, name in weight_map.items():
        if not is_plain_name(name) or not name.endswith(".safetensors"):
            raise DamagedError(
                f"{index}: {tensor[:100]!r} is said to be in {str(name)[:100]!r}, no file beside it"
            )
        names.add(name)
    missing = sorted(name for name in names if not (path / name).is_file())
    if missing:
        raise CheckpointError(f"{path} lacks {', '.join(missing[:3])}: the download or copy is not complete")
    return [path / name for name in sorted(names)]


class WeightFiles:
    """All tensors of a checkpoint, those of the fold too, read when they are asked for.

    Raises:
        CheckpointError: a file is missing or damaged, or two hold one tensor.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._open: list[TensorFile] = []
        self._where: dict[str, TensorFile] = {}
        folded = [path / FOLDED] if (path / FOLDED).is_file() else []
        try:
            for name in [*weight_files(path), *folded]:
                file = TensorFile(name)
                self._open.append(file)
                for entry in file.entries.values():
                    if entry.name in self._where:
                        raise DamagedError(f"{path}: {entry.name[:100]!r} is in two files")
                    self._where[entry.name] = file
        except BaseException:
            self.close()
            raise

    def entry(self, name: str) -> Entry:
        """What the header says of a tensor.

        Raises:
            CheckpointError: there is no such tensor, or it does not hold floating-point numbers.
        """
        file = self._where.get(name)
        if file is None:
            raise CheckpointError(f"{self.path} lacks {name}")
        entry = file.entries[name]
        if entry.dtype not in FLOATS:
            raise CheckpointError(f"{self.path}: {name} holds {entry.dtype}, not floating-point numbers")
        return entry

    def entries(self) -> list[Entry]:
        """All tensors."""
        return [file.entries[name] for name, file in self._where.items()]

    def stored(self, name: str) -> StoredTensor:
        """A tensor that indexing reads a part of.

        Raises:
            CheckpointError: as `entry`.
        """
        self.entry(name)
        return StoredTensor(self._where[name], name)

    def finite(self, name: str, values: Tensor) -> Tensor:
        """What was read of a tensor as fp32.

        Raises:
            DamagedError: it holds NaN or infinity.
        """
        values = values.to(torch.float32).contiguous()
        if not bool(torch.isfinite(values).all()):
            raise DamagedError(f"{self.path}: {name} holds NaN or infinity")
        return values

    def read(self, name: str) -> Tensor:
        """A whole tensor as fp32.

        Raises:
            CheckpointError: it is not there, or not finite.
        """
        return self.finite(name, self.stored(name)[()])

    def close(self) -> None:
        """Close all files."""
        for file in self._open:
            file.close()

    def __enter__(self) -> WeightFiles:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor in a file; indexing it reads that part."""

    file: TensorFile
    name: str

    def __getitem__(self, index: tuple[slice, ...]) -> Tensor:
        return self.file.read(self.name, index)


def write_json(path: Path, content: Mapping[str, Any]) -> FileEntry:
    """Write JSON with sorted keys; on disk when this returns.

    Raises:
        StorageError: the disk is full or cannot be written.
    """
    raw = (json.dumps(content, indent=2, sort_keys=True) + "\n").encode()
    with disk(path, "cannot write"), path.open("wb") as file:
        file.write(raw)
        file.flush()
        os.fsync(file.fileno())
    return FileEntry.of_bytes(raw)


def copy_tokenizer(source: Path, target: Path) -> list[str]:
    """Copy what belongs to a tokenizer from one checkpoint directory to another; returns the names.

    Raises:
        StorageError: the disk is full or cannot be written.
    """
    copied = []
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            with disk(target / name, "cannot write"):
                shutil.copyfile(source / name, target / name)
            copied.append(name)
    return copied


def _has_pickles(path: Path) -> bool:
    return path.is_dir() and any(path.glob("*.bin"))
