"""Which files of a checkpoint directory others may have, and which files of a store are a checkpoint.

What is a member's own (`trainer_state.safetensors`) is never published, and the manifest that goes out does not
name it. Slices that were cut into the directory (`tier1/`, ...) go with it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from psyche_train.checkpoints.errors import CheckpointError
from psyche_train.checkpoints.files import CONFIG, FOLDED, INDEX, TOKENIZER_FILES, WEIGHTS, weight_files
from psyche_train.checkpoints.manifest import (
    MANIFEST,
    POSITION,
    STATE,
    CheckpointManifest,
    FileEntry,
    is_plain_name,
    read_manifest,
)

TOP_MANIFEST = "matformer_manifest.json"
_ALWAYS = (CONFIG, FOLDED, "generation_config.json", MANIFEST, POSITION, *TOKENIZER_FILES)


@dataclass(frozen=True, slots=True)
class PublicFile:
    """A file as it goes out."""

    content: Path | bytes
    entry: FileEntry


def public_files(checkpoint: Path) -> dict[str, PublicFile]:
    """Name -> file of everything that is published of a checkpoint; the manifest comes last.

    Raises:
        CheckpointError: it is no checkpoint, or is not what its manifest says.
    """
    if not (checkpoint / CONFIG).is_file():
        raise CheckpointError(
            f"{checkpoint} holds no {CONFIG}: it is not a checkpoint in the transformers layout"
        )
    found: dict[str, PublicFile] = {}
    for folder in sorted(checkpoint.glob("tier[0-9]*")):
        if folder.is_dir() and (manifest := read_manifest(folder)) is not None:
            found |= {f"{folder.name}/{name}": file for name, file in _listed(folder, manifest).items()}
    if (checkpoint / TOP_MANIFEST).is_file() and found:
        found[TOP_MANIFEST] = _file(checkpoint / TOP_MANIFEST)
    if (own := read_manifest(checkpoint)) is not None:
        return found | _listed(checkpoint, own)
    names = {path.name for path in weight_files(checkpoint)}
    if (checkpoint / WEIGHTS).name not in names:
        names.add(INDEX)
    names |= {name for name in _ALWAYS if (checkpoint / name).is_file()}
    return found | {name: _file(checkpoint / name) for name in sorted(names)}


def model_files(names: Iterable[str], tier: int = 0) -> list[str]:
    """Which files of somebody's repository make up a tier: its directory if there is one, else the full model.

    Args:
        names: relative paths in the repository.
    """
    there = set(names)
    folder = f"tier{tier}/"
    sliced = [name for name in there if name.startswith(folder) and is_plain_name(name.removeprefix(folder))]
    wanted = {name for name in (*_ALWAYS, TOP_MANIFEST) if name in there}
    if tier and sliced:
        return sorted({*wanted - {MANIFEST, POSITION, FOLDED}, *sliced})
    weights = {
        name for name in there if is_plain_name(name) and name.endswith(".safetensors") and name != STATE
    }
    if WEIGHTS in there:
        weights = {WEIGHTS}
    if not weights:
        pickled = any(name.endswith((".bin", ".pt", ".pth")) for name in there)
        raise CheckpointError(
            "it holds no .safetensors file"
            + (", only pickled weights, which are not read: convert them first" if pickled else "")
        )
    return sorted({*wanted, *weights, *({INDEX} & there)})


def read_public_manifest(raw: bytes, where: str) -> CheckpointManifest:
    """Parse a manifest that came from elsewhere.

    Raises:
        DamagedError: it is not one.
    """
    from psyche_train.checkpoints.tensors import parse_json

    return CheckpointManifest.from_tables(parse_json(raw, where), where)


def _listed(folder: Path, manifest: CheckpointManifest) -> dict[str, PublicFile]:
    files: Mapping[str, FileEntry] = {name: e for name, e in manifest.files.items() if name != STATE}
    manifest.verify(folder, set(files))
    raw = (json.dumps(replace(manifest, files=files).to_tables(), indent=2, sort_keys=True) + "\n").encode()
    found = {name: PublicFile(folder / name, entry) for name, entry in sorted(files.items())}
    return {**found, MANIFEST: PublicFile(raw, FileEntry.of_bytes(raw))}


def _file(path: Path) -> PublicFile:
    return PublicFile(path, FileEntry.of_file(path))
