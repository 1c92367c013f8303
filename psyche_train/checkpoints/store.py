"""A folder of checkpoints: written beside, synced, renamed; damaged ones are passed over.

step-00000120-1a2b3c4d/
    config.json            with matformer_tier and matformer_base_intermediate_size
    model.safetensors      fp32, or shards and their index; a slice holds exactly the bits of tier 0's prefix
    folded.safetensors     momenta of the fold, where the run's strategy has any; shared like the weights
    tokenizer.json ...     for byte-level runs
    position.json          where in the log these weights stand, and their hash
    trainer_state.safetensors   error buffers of this member; never published
    manifest.json          length and SHA-256 of every file above, schema hash, tier

Names that begin with a dot are not checkpoints: `.new-*` is being written, `.old-*` is being replaced and
comes back if the process stopped in between, `.gone-*` is being deleted.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from psyche_train._durable import sync_path
from psyche_train.checkpoints.errors import CheckpointError, DamagedError, disk
from psyche_train.checkpoints.files import CONFIG, FOLDED, SHARD_BYTES, WEIGHTS, write_json, write_weights
from psyche_train.checkpoints.manifest import (
    MANIFEST,
    POSITION,
    STATE,
    CheckpointManifest,
    FileEntry,
    read_manifest,
)
from psyche_train.checkpoints.position import Position
from psyche_train.checkpoints.tensors import entries_of, read_json, write_tensors

__all__ = ["FOLDED", "MANIFEST", "STATE", "WEIGHTS", "CheckpointInfo", "CheckpointStore", "newest", "verify"]

logger = logging.getLogger(__name__)

_PINNED = "pinned"
_MAX_POSITION_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """What `position.json` says, besides the position."""

    run: bytes
    spec_sha256: bytes
    schema_sha256: bytes
    """The run's schema hash, which updates carry too."""
    tier: int
    weights_sha256: bytes
    """h_tier of the weights."""
    model_sha256: bytes = bytes(32)
    """`Schema.model_sha256`, for the manifest."""
    max_tier: int = 0
    """The run's highest tier, on which the weights hash depends."""


class CheckpointStore:
    """The checkpoints of one member.

    Args:
        folder: created if it is not there.
        keep: newest checkpoints that are kept, besides the pinned one.
        shard_bytes: weights above this length are split into several files.

    Raises:
        StorageError: the folder cannot be created or written.
    """

    def __init__(self, folder: Path, *, keep: int = 3, shard_bytes: int = SHARD_BYTES) -> None:
        if keep < 1:
            raise ValueError(f"keep = {keep}, at least 1")
        self.folder = folder
        self.keep = keep
        self.shard_bytes = shard_bytes
        with disk(folder, "cannot use the checkpoint folder"):
            folder.mkdir(parents=True, exist_ok=True)
            for leftover in folder.glob(".old-*"):
                whole = folder / leftover.name.removeprefix(".old-")
                if whole.exists():
                    self._delete(leftover)
                else:  # stopped between the two renames of `write`
                    leftover.rename(whole)
            for leftover in [*folder.glob(".new-*"), *folder.glob(".gone-*")]:
                shutil.rmtree(leftover, ignore_errors=True)

    def write(
        self,
        position: Position,
        info: CheckpointInfo,
        weights: Mapping[str, Tensor],
        state: Mapping[str, Tensor],
        save_config: Callable[[Path], None],
        *,
        folded: Mapping[str, Tensor] | None = None,
    ) -> Path:
        """Write one checkpoint and drop those that are too old; it is on disk when this returns.

        Args:
            weights: fp32, on any device; one at a time is brought to the CPU. state: the member's own buffers.
            save_config: writes `config.json` and the tokenizer into a directory.
            folded: fp32 tensors that belong to the weights, ``kind/name``.

        Raises:
            StorageError: the disk is full or cannot be written; the checkpoints that were there are as before.
        """
        name = f"step-{position.step:08d}-{position.history.hex()[:8]}"
        beside, final, old = self.folder / f".new-{name}", self.folder / name, self.folder / f".old-{name}"
        try:
            with disk(beside, "cannot write the checkpoint"):
                shutil.rmtree(beside, ignore_errors=True)
                beside.mkdir()
                save_config(beside)
                files = {path.name: FileEntry.of_file(path) for path in sorted(beside.iterdir())}
                files |= write_weights(
                    beside, entries_of(weights), weights.__getitem__, shard_bytes=self.shard_bytes
                )
                if folded:
                    files[FOLDED] = FileEntry(
                        *write_tensors(beside / FOLDED, entries_of(folded), folded.__getitem__)
                    )
                files[STATE] = FileEntry(*write_tensors(beside / STATE, entries_of(state), state.__getitem__))
                files[POSITION] = write_json(beside / POSITION, _position_tables(position, info))
                write_json(beside / MANIFEST, _manifest(files, info).to_tables())
                for path in [*beside.iterdir(), beside]:
                    sync_path(path)
                if final.exists():
                    final.rename(old)
                beside.rename(final)
                sync_path(self.folder)
        except BaseException:
            shutil.rmtree(beside, ignore_errors=True)
            if old.exists() and not final.exists():
                old.rename(final)
            raise
        if old.exists():
            self._delete(old)
        self._prune()
        return final

    def newest(self) -> Iterator[tuple[Path, Position, CheckpointInfo]]:
        """Yield the checkpoints that verify, newest step first; others with a warning in the log."""
        return newest(self.folder)

    def pin(self, path: Path | None) -> None:
        """Keep this checkpoint whatever its age: the one that the chain agreed on. None unpins."""
        if path is not None and path.parent != self.folder:
            raise ValueError(f"{path} is not in {self.folder}")
        beside = self.folder / f"{_PINNED}.new"
        with disk(beside, "cannot write"):
            beside.write_text(path.name if path else "")
            sync_path(beside)
            beside.replace(self.folder / _PINNED)
            sync_path(self.folder)

    def clear(self) -> None:
        """Delete every checkpoint, for a run that begins again."""
        for path in _paths(self.folder):
            self._delete(path)

    def _prune(self) -> None:
        pinned = self.folder / _PINNED
        kept = pinned.read_bytes().decode(errors="replace") if pinned.is_file() else ""
        for path in _paths(self.folder)[self.keep :]:
            if path.name != kept:
                self._delete(path)

    def _delete(self, path: Path) -> None:
        """Delete a checkpoint so that a stop in between leaves nothing that looks like one."""
        gone = self.folder / f".gone-{path.name.removeprefix('.old-')}"
        shutil.rmtree(gone, ignore_errors=True)
        with disk(path, "cannot delete"):
            path.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def newest(folder: Path) -> Iterator[tuple[Path, Position, CheckpointInfo]]:
    """Yield the checkpoints in a store's folder that verify, newest step first; others are passed over.

    It only reads, so it can be used while a member writes.
    """
    for path in _paths(folder):
        try:
            position, info = verify(path)
        except CheckpointError as error:
            logger.warning("checkpoint passed over path=%s reason=%s", path, error)
            continue
        yield path, position, info


def verify(path: Path) -> tuple[Position, CheckpointInfo]:
    """Check every file of a checkpoint against its manifest and read its position.

    Raises:
        CheckpointError: a file is missing, torn or altered.
    """
    manifest = read_manifest(path)
    if manifest is None:
        raise DamagedError(f"{path} is not a whole checkpoint: it has no {MANIFEST}")
    lacking = {STATE, POSITION, CONFIG} - set(manifest.files)
    if lacking:
        raise DamagedError(f"{path}: the manifest lacks files: {', '.join(sorted(lacking))}")
    manifest.verify(path)
    return read_position(path)


def read_position(path: Path) -> tuple[Position, CheckpointInfo]:
    """Read a checkpoint's `position.json`.

    Raises:
        DamagedError: it is not one.
    """
    tables = read_json(path / POSITION, _MAX_POSITION_BYTES)
    try:
        numbers = [tables[key] for key in ("step", "round", "epoch", "data_index", "tier", "max_tier")]
        if any(type(number) is not int or not 0 <= number < 2**64 for number in numbers):
            raise ValueError(f"numbers {str(numbers)[:200]}")
        keys = ("history", "run", "spec_sha256", "schema_sha256", "weights_sha256", "model_sha256")
        hashes = [bytes.fromhex(tables[key]) for key in keys]
        if any(len(value) != 32 for value in hashes):
            raise ValueError("a hash has not 32 bytes")
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedError(f"{path / POSITION} is not a position: {error!r}") from error
    step, round_, epoch, data_index, tier, max_tier = numbers
    history, run, spec, schema, weights, model = hashes
    return (
        Position(history, step, round_, epoch, data_index),
        CheckpointInfo(run, spec, schema, tier, weights, model, max_tier),
    )


def _manifest(files: Mapping[str, FileEntry], info: CheckpointInfo) -> CheckpointManifest:
    return CheckpointManifest(
        files=files,
        schema_sha256=info.model_sha256.hex(),
        tier=info.tier,
        max_tier=info.max_tier,
        weights_sha256=info.weights_sha256.hex(),
    )


def _position_tables(position: Position, info: CheckpointInfo) -> dict[str, str | int]:
    return {
        "history": position.history.hex(),
        "step": position.step,
        "round": position.round,
        "epoch": position.epoch,
        "data_index": position.data_index,
        "run": info.run.hex(),
        "spec_sha256": info.spec_sha256.hex(),
        "schema_sha256": info.schema_sha256.hex(),
        "model_sha256": info.model_sha256.hex(),
        "tier": info.tier,
        "max_tier": info.max_tier,
        "weights_sha256": info.weights_sha256.hex(),
    }


def _paths(folder: Path) -> list[Path]:
    found = []
    for path in folder.glob("step-*"):
        try:
            if path.is_dir():
                found.append((path.name[:13], path.stat().st_mtime_ns, path))
        except OSError:  # deleted meanwhile
            continue
    return [path for _, _, path in sorted(found, reverse=True)]
