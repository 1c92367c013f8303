"""A folder of checkpoints: written beside, synced, renamed; damaged ones are passed over.

step-00000120-1a2b3c4d/
    config.json            with matformer_tier and matformer_base_intermediate_size
    model.safetensors      fp32; a slice holds exactly the bits of tier 0's prefix
    folded.safetensors     momenta of the fold, where the run's strategy has any; shared like the weights
    tokenizer.json ...     for byte-level runs
    position.json          where in the log these weights stand, and their hash
    trainer_state.safetensors   error buffers of this member; never published
    manifest.json          size and SHA-256 of every file above, schema hash, tier
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from psyche_train._durable import sync_path
from psyche_train.checkpoints.position import Position
from psyche_train.matformer.loading import CheckpointError

logger = logging.getLogger(__name__)

WEIGHTS = "model.safetensors"
FOLDED = "folded.safetensors"
STATE = "trainer_state.safetensors"
_POSITION = "position.json"
_MANIFEST = "manifest.json"
_PINNED = "pinned"


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """What `position.json` says, besides the position."""

    run: bytes
    spec_sha256: bytes
    schema_sha256: bytes
    tier: int
    weights_sha256: bytes
    """h_tier of the weights."""


class CheckpointStore:
    """The checkpoints of one member.

    Args:
        folder: created if it is not there.
        keep: newest checkpoints that are kept, besides the pinned one.
    """

    def __init__(self, folder: Path, *, keep: int = 3) -> None:
        if keep < 1:
            raise ValueError(f"keep = {keep}, at least 1")
        self.folder = folder
        self.keep = keep
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(".old-*"):
            whole = folder / leftover.name.removeprefix(".old-")
            if whole.exists():
                shutil.rmtree(leftover)
            else:  # stopped between the two renames of `write`
                leftover.rename(whole)
        for leftover in folder.glob(".new-*"):
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
            weights: fp32 CPU tensors. state: the member's own buffers.
            save_config: writes `config.json` and the tokenizer into a directory.
            folded: fp32 CPU tensors that belong to the weights, ``kind/name``.
        """
        name = f"step-{position.step:08d}-{position.history.hex()[:8]}"
        beside, final, old = self.folder / f".new-{name}", self.folder / name, self.folder / f".old-{name}"
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir()
        save_config(beside)
        save_file(dict(weights), beside / WEIGHTS, metadata={"format": "pt"})
        if folded:
            save_file(dict(folded), beside / FOLDED)
        save_file(dict(state), beside / STATE)
        _write_json(
            beside / _POSITION,
            {
                "history": position.history.hex(),
                "step": position.step,
                "round": position.round,
                "epoch": position.epoch,
                "data_index": position.data_index,
                "run": info.run.hex(),
                "spec_sha256": info.spec_sha256.hex(),
                "schema_sha256": info.schema_sha256.hex(),
                "tier": info.tier,
                "weights_sha256": info.weights_sha256.hex(),
            },
        )
        files = {path.name: _describe(path) for path in sorted(beside.iterdir())}
        _write_json(
            beside / _MANIFEST,
            {
                "schema_version": 1,
                "schema_sha256": info.schema_sha256.hex(),
                "tiers": {str(info.tier): sorted(set(files) - {STATE, _POSITION})},
                "files": files,
            },
        )
        for path in [*beside.iterdir(), beside]:
            sync_path(path)
        if final.exists():
            final.rename(old)
        beside.rename(final)
        sync_path(self.folder)
        shutil.rmtree(old, ignore_errors=True)
        self._prune()
        return final

    def newest(self) -> Iterator[tuple[Path, Position, CheckpointInfo]]:
        """Yield the checkpoints that verify, newest step first; others with a warning in the log."""
        for path in self._paths():
            try:
                position, info = verify(path)
            except CheckpointError as error:
                logger.warning("checkpoint passed over path=%s reason=%s", path, error)
                continue
            yield path, position, info

    def pin(self, path: Path | None) -> None:
        """Keep this checkpoint whatever its age: the one that the chain agreed on. None unpins."""
        if path is not None and path.parent != self.folder:
            raise ValueError(f"{path} is not in {self.folder}")
        beside = self.folder / f"{_PINNED}.new"
        beside.write_text(path.name if path else "")
        sync_path(beside)
        beside.replace(self.folder / _PINNED)
        sync_path(self.folder)

    def clear(self) -> None:
        """Delete every checkpoint, for a run that begins again."""
        for path in self._paths():
            shutil.rmtree(path)

    def _paths(self) -> list[Path]:
        found = [path for path in self.folder.glob("step-*") if path.is_dir()]
        return sorted(found, key=lambda path: (path.name[:13], path.stat().st_mtime_ns), reverse=True)

    def _prune(self) -> None:
        pinned = self.folder / _PINNED
        kept = pinned.read_bytes().decode(errors="replace") if pinned.is_file() else ""
        for path in self._paths()[self.keep :]:
            if path.name != kept:
                shutil.rmtree(path)


def verify(path: Path) -> tuple[Position, CheckpointInfo]:
    """Check every file of a checkpoint against its manifest and read its position.

    Raises:
        CheckpointError: a file is missing, torn or altered.
    """
    try:
        files: dict[str, Any] = json.loads((path / _MANIFEST).read_text())["files"]
        for name, wanted in files.items():
            if Path(name).name != name:
                raise CheckpointError(f"{path}: the manifest names {name!r}, which is not beside it")
            if _describe(path / name) != wanted:
                raise CheckpointError(f"{path / name} is not what the manifest says")
        if not {WEIGHTS, STATE, _POSITION, "config.json"} <= set(files):
            raise CheckpointError(f"{path}: the manifest lacks files")
        tables: dict[str, Any] = json.loads((path / _POSITION).read_text())
        position = Position(
            bytes.fromhex(tables["history"]),
            int(tables["step"]),
            int(tables["round"]),
            int(tables["epoch"]),
            int(tables["data_index"]),
        )
        hashes = [
            bytes.fromhex(tables[key]) for key in ("run", "spec_sha256", "schema_sha256", "weights_sha256")
        ]
        return position, CheckpointInfo(hashes[0], hashes[1], hashes[2], int(tables["tier"]), hashes[3])
    except CheckpointError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is not a whole checkpoint: {error!r}") from error


def _describe(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
