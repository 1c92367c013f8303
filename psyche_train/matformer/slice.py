"""Cut a full checkpoint into directories of its tiers, one tensor in memory at a time.

OUT/
    matformer_manifest.json   tier -> files, length and SHA-256 of each, the model's schema hash
    config.json, tokenizer    of tier 0, unless OUT is the checkpoint itself
    tier1/                    config.json, weights, momenta, tokenizer and manifest.json of the slice
    tier2/

A slice holds exactly the bits of the full checkpoint's prefix. It is written beside its place and renamed; a run
that was stopped goes on after the last whole file.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from psyche_train._durable import sync_path
from psyche_train.checkpoints.errors import CheckpointError, DamagedError, DoubleSliceError, disk
from psyche_train.checkpoints.files import (
    CONFIG,
    FOLDED,
    SHARD_BYTES,
    copy_tokenizer,
    write_json,
    write_weights,
)
from psyche_train.checkpoints.manifest import (
    MANIFEST,
    POSITION,
    STATE,
    CheckpointManifest,
    FileEntry,
    FoldedProof,
    is_plain_name,
    read_manifest,
)
from psyche_train.checkpoints.tensors import Entry, read_json, write_tensors
from psyche_train.fold.digest import part_digests
from psyche_train.matformer.loading import SliceSource, inferred, read_config, read_family
from psyche_train.matformer.stored import StoredWeights, with_stored_folded
from psyche_train.models.schema import Schema

TOP_MANIFEST = "matformer_manifest.json"
_JOURNAL = ".journal.json"
_MAX_JOURNAL_BYTES = 8 << 20

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Slice:
    """One tier's directory."""

    tier: int
    path: Path
    width: int
    parameters: int
    num_bytes: int
    """Of its weights."""
    was_there: bool
    """An earlier run had finished it, and it is whole."""


def cut_checkpoint(
    checkpoint: Path,
    out: Path,
    tiers: Sequence[int],
    *,
    shard_bytes: int = SHARD_BYTES,
    progress: Progress = lambda what: None,
) -> list[Slice]:
    """Cut the slices of `tiers` out of a full checkpoint.

    Args:
        checkpoint: a directory in the transformers layout, with or without our manifest.
        out: created if it is not there; may be the checkpoint itself.
        tiers: each at least 1.

    Raises:
        TierError: the width does not divide; names the tier and the width.
        DoubleSliceError: the checkpoint is a slice.
        CheckpointError: it is damaged or an export, or something else is where a slice belongs.
    """
    wanted = sorted(set(tiers))
    if not wanted or wanted[0] < 1:
        raise CheckpointError(
            f"tiers {list(tiers)}: name at least one, from 1 up; tier 0 is the checkpoint itself"
        )
    family = read_family(checkpoint)
    schema = Schema.of(family, wanted[-1])
    source = inferred(checkpoint, schema)
    if source.tier:
        raise DoubleSliceError(
            f"{checkpoint} is already the slice of tier {source.tier}; cutting it again is refused: "
            "start from tier 0's checkpoint"
        )
    if (manifest := read_manifest(checkpoint)) is not None:
        progress("comparing the checkpoint with its manifest")
        manifest.verify(checkpoint, set(manifest.files) - {STATE, POSITION})
    with disk(out, "cannot create"):
        out.mkdir(parents=True, exist_ok=True)
    progress("hashing the weights")
    proofs = _proofs(source, schema, wanted)
    shared = with_stored_folded(checkpoint, schema)
    folded = _proofs(source, shared, wanted) if shared else {}
    slices = []
    for tier in wanted:
        with StoredWeights(source, replace(shared or schema, max_tier=tier), tier) as part:
            cutter = _Cutter(checkpoint, schema, part, shard_bytes)
            slices.append(cutter.cut(out / f"tier{tier}", proofs[tier], folded.get(tier), progress))
    if out.resolve() != checkpoint.resolve():
        _copy_root(checkpoint, out)
    write_top_manifest(out, schema, checkpoint if out.resolve() == checkpoint.resolve() else None)
    return slices


def _proofs(source: SliceSource, schema: Schema, tiers: Sequence[int]) -> dict[int, FoldedProof]:
    """Tier -> the hash of its slice alone, and the digests of what it lacks."""
    with StoredWeights(source, schema, 0) as weights:
        added = [digest.hex() for digest in part_digests(schema, weights, 0)[1:]]  # [g_{T-1}, ..., g_0]
    found = {}
    for tier in tiers:
        narrow = replace(schema, max_tier=tier)
        with StoredWeights(source, narrow, tier) as part:
            (base,) = part_digests(narrow, part, tier)
        found[tier] = FoldedProof(weights_sha256=base.hex(), outer_sha256=tuple(added[len(added) - tier :]))
    return found


class _Cutter:
    """Writes one tier's directory."""

    def __init__(self, checkpoint: Path, schema: Schema, weights: StoredWeights, shard_bytes: int) -> None:
        self._checkpoint = checkpoint
        self._schema = schema
        self._weights = weights
        self._shard_bytes = shard_bytes
        self._tier = weights.tier

    def cut(self, target: Path, proof: FoldedProof, folded: FoldedProof | None, progress: Progress) -> Slice:
        """Write the directory, or find it whole.

        Args:
            proof: of the weights. folded: of weights and momenta, where there are any.
        """
        base = (folded or proof).weights_sha256
        entries = [
            Entry(tensor.name, torch.float32, tensor.shape_at(self._tier)) for tensor in self._schema.stored
        ]
        if target.exists():
            self._check_same(target, proof, folded)
            progress(f"tier {self._tier} is there already: {target}")
            return self._report(target, entries, was_there=True)
        beside = target.with_name(f".new-{target.name}")
        done = self._resume(beside, base)
        progress(f"writing tier {self._tier}: {target}")

        def finished(name: str, entry: FileEntry) -> None:
            done[name] = entry
            self._write_journal(beside, base, done)
            progress(f"  {name}: {entry.num_bytes:,} bytes")

        files = write_weights(
            beside,
            entries,
            self._weights.__getitem__,
            shard_bytes=self._shard_bytes,
            done=dict(done),
            finished=finished,
        )
        if folded is not None:
            names = {tensor.name for tensor in self._schema.stored}
            momenta = [
                Entry(tensor.name, torch.float32, tensor.shape_at(self._tier))
                for tensor in self._weights.schema.stored
                if tensor.name not in names
            ]
            if FOLDED not in done:
                part = beside / f"{FOLDED}.part"
                entry = FileEntry(*write_tensors(part, momenta, self._weights.__getitem__))
                with disk(part, "cannot rename"):
                    part.rename(beside / FOLDED)
                finished(FOLDED, entry)
            files[FOLDED] = done[FOLDED]
        files[CONFIG] = write_json(beside / CONFIG, self._config())
        for name in copy_tokenizer(self._checkpoint, beside):
            files[name] = FileEntry.of_file(beside / name)
        manifest = CheckpointManifest(
            files=files,
            schema_sha256=self._schema.model_sha256().hex(),
            tier=self._tier,
            max_tier=self._tier,
            weights_sha256=proof.weights_sha256,
            outer_sha256=proof.outer_sha256,
            folded=folded,
        )
        write_json(beside / MANIFEST, manifest.to_tables())
        with disk(beside, "cannot finish"):
            for name in (_JOURNAL, f"{_JOURNAL}.new"):
                (beside / name).unlink(missing_ok=True)
            for path in [*beside.iterdir(), beside]:
                sync_path(path)
            beside.rename(target)
            sync_path(target.parent)
        return self._report(target, entries, was_there=False)

    def _config(self) -> dict[str, Any]:
        """The checkpoint's own `config.json` with what a slice changes, so that the rest stays as it was."""
        family = self._schema.family
        full, narrow = family.tables_at(family.ffn_width), family.tables_at(family.ffn_width >> self._tier)
        changed = {key: value for key, value in narrow.items() if full.get(key) != value}
        return {
            **read_config(self._checkpoint),
            **changed,
            "matformer_tier": self._tier,
            "matformer_base_intermediate_size": family.ffn_width,
        }

    def _check_same(self, target: Path, proof: FoldedProof, folded: FoldedProof | None) -> None:
        there = f"{target} is there and is not this slice: move it away, or choose another output directory"
        manifest = read_manifest(target) if target.is_dir() else None
        found = manifest and (manifest.weights_sha256, manifest.outer_sha256, manifest.folded)
        if manifest is None or found != (proof.weights_sha256, proof.outer_sha256, folded):
            raise CheckpointError(there)
        try:
            manifest.verify(target)
        except DamagedError as error:
            raise CheckpointError(f"{there} ({error})") from error

    def _resume(self, beside: Path, base: str) -> dict[str, FileEntry]:
        """Files that an earlier run of the same cut finished."""
        done: dict[str, FileEntry] = {}
        with suppress(CheckpointError, KeyError, TypeError, ValueError):
            journal = read_json(beside / _JOURNAL, _MAX_JOURNAL_BYTES)
            if (journal["weights_sha256"], journal["shard_bytes"]) == (base, self._shard_bytes):
                for name, (num_bytes, sha256) in journal["files"].items():
                    entry = FileEntry(num_bytes, sha256)
                    if is_plain_name(name) and FileEntry.of_file(beside / name) == entry:
                        done[name] = entry
        if not done:
            with disk(beside, "cannot create"):
                shutil.rmtree(beside, ignore_errors=True)
                beside.mkdir()
        return done

    def _write_journal(self, beside: Path, base: str, done: Mapping[str, FileEntry]) -> None:
        files = {name: [entry.num_bytes, entry.sha256] for name, entry in done.items()}
        tables = {"weights_sha256": base, "shard_bytes": self._shard_bytes, "files": files}
        write_json(beside / f"{_JOURNAL}.new", tables)
        with disk(beside, "cannot write"):
            (beside / f"{_JOURNAL}.new").rename(beside / _JOURNAL)

    def _report(self, target: Path, entries: Sequence[Entry], *, was_there: bool) -> Slice:
        return Slice(
            tier=self._tier,
            path=target,
            width=self._schema.family.ffn_width >> self._tier,
            parameters=self._schema.num_parameters(self._tier),
            num_bytes=sum(entry.num_bytes for entry in entries),
            was_there=was_there,
        )


def write_top_manifest(out: Path, schema: Schema, full: Path | None) -> Path:
    """Write `matformer_manifest.json` from the manifests of the tiers that are in a directory.

    Args:
        full: the directory's own full checkpoint, if it is one.

    Raises:
        CheckpointError: a slice's manifest is damaged, or is of another model.
    """
    tiers: dict[str, list[str]] = {}
    files: dict[str, dict[str, Any]] = {}
    widths: dict[str, int] = {}
    if full is not None:
        own = read_manifest(full)
        names = sorted(set(own.files) - {STATE, POSITION}) if own else []
        for name in names or [path.name for path in sorted(full.iterdir()) if _is_model_file(path)]:
            entry = own.files[name] if own else FileEntry.of_file(full / name)
            files[name] = {"bytes": entry.num_bytes, "sha256": entry.sha256}
        tiers["0"], widths["0"] = sorted(files), schema.family.ffn_width
    for folder in sorted(out.glob("tier[0-9]*")):
        manifest = read_manifest(folder)
        if manifest is None:
            continue
        if manifest.schema_sha256 != schema.model_sha256().hex() or folder.name != f"tier{manifest.tier}":
            raise CheckpointError(f"{folder} is a slice of another model or tier: move it away")
        named = {f"{folder.name}/{name}": entry for name, entry in manifest.files.items()}
        named[f"{folder.name}/{MANIFEST}"] = FileEntry.of_file(folder / MANIFEST)
        files |= {name: {"bytes": e.num_bytes, "sha256": e.sha256} for name, e in named.items()}
        tiers[str(manifest.tier)] = sorted(named)
        widths[str(manifest.tier)] = schema.family.ffn_width >> manifest.tier
    path = out / TOP_MANIFEST
    write_json(
        path.with_name(f".{TOP_MANIFEST}.new"),
        {
            "schema_version": 1,
            "schema_sha256": schema.model_sha256().hex(),
            "base_intermediate_size": schema.family.ffn_width,
            "intermediate_sizes": widths,
            "tiers": tiers,
            "files": files,
        },
    )
    with disk(path, "cannot write"):
        path.with_name(f".{TOP_MANIFEST}.new").rename(path)
        sync_path(out)
    return path


def _copy_root(checkpoint: Path, out: Path) -> None:
    """Tier 0's configuration and tokenizer, so that the directory says what model its tiers belong to."""
    tables = read_config(checkpoint)
    there = out / CONFIG
    if there.is_file() and read_json(there, 4 << 20) != tables:
        raise CheckpointError(f"{there} is of another model: choose another output directory")
    write_json(there, tables)
    copy_tokenizer(checkpoint, out)


def _is_model_file(path: Path) -> bool:
    return path.is_file() and path.suffix in (".json", ".safetensors") and path.name != TOP_MANIFEST
