"""The weights with which a run begins: fetched, and proved to be those that the specification names."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor

from psyche_train.checkpoints import hub, remote
from psyche_train.checkpoints.errors import CheckpointError
from psyche_train.checkpoints.manifest import POSITION, STATE, read_manifest
from psyche_train.fold.digest import part_digests, weights_hash
from psyche_train.matformer.loading import (
    Strategy,
    family_of_config,
    find_source,
    inferred,
    read_config,
    read_family,
)
from psyche_train.matformer.stored import StoredWeights, full_weights_hash
from psyche_train.models.family import ModelError
from psyche_train.models.hf import widened
from psyche_train.models.initial import initial_weights
from psyche_train.models.registry import fresh_family
from psyche_train.models.schema import Schema
from psyche_train.spec import (
    Checkpoint,
    HubCheckpoint,
    InitCheckpoint,
    LocalCheckpoint,
    StoredCheckpoint,
    TrainSpec,
)

_CHANGES_NOTHING = (
    "transformers_version",
    "_name_or_path",
    "_commit_hash",
    "torch_dtype",
    "dtype",
    "use_cache",
    "_attn_implementation",
)
"""Keys of a configuration that are not about what the model computes here."""
_MAX_CONFIG_BYTES = 4000
"""A longer configuration is not put into the specification, which has room for 10,000 bytes in all."""


@dataclass(frozen=True, slots=True)
class FirstWeights:
    """The weights of a tier, and where they come from."""

    weights: Mapping[str, Tensor]
    """``name -> fp32``; those of a checkpoint are read when they are asked for."""
    name: str
    cut: bool
    """They were read from a slice."""


def schema_of(spec: TrainSpec, tier: int = 0) -> Schema:
    """The schema of a run's model at full width, without its checkpoint where the specification describes it.

    Args:
        tier: of the member; a slice that is by itself is enough to know it.

    Raises:
        CheckpointError: there is no such checkpoint or model. TierError: it has no such tiers.
    """
    chosen = spec.checkpoint.chosen
    if isinstance(chosen, InitCheckpoint):
        try:
            return Schema.of(
                fresh_family(spec.architecture, chosen, spec.max_seq_len), spec.matformer.max_tier
            )
        except ModelError as error:
            raise CheckpointError(f"checkpoint.Init: {error}") from error
    if chosen.config is not None:
        where = Path(f"checkpoint.{spec.checkpoint.kind}.config")
        _compare_config(str(where), chosen.config, chosen)
        family = family_of_config(chosen.config, where, spec.architecture)
    else:
        folder = checkpoint_dir(chosen, tier)
        _compare_config(f"{folder}: config.json", read_config(folder), chosen)
        family = read_family(folder, spec.architecture)
    return Schema.of(family, spec.matformer.max_tier)


@contextmanager
def first_weights(
    spec: TrainSpec, schema: Schema, tier: int, strategy: Strategy = "auto"
) -> Iterator[FirstWeights]:
    """Yield a run's first weights at a tier, of which the specification's hash was checked.

    A slice proves by its manifest that it was cut from weights of that hash.

    Raises:
        CheckpointError: the source is missing or damaged, or not what the specification names.
    """
    chosen = spec.checkpoint.chosen
    if isinstance(chosen, InitCheckpoint):
        weights = initial_weights(schema, chosen.seed, tier)
        name = f"Init, seed {chosen.seed}"
        if tier == 0 and chosen.weights_sha256:
            _compare(name, weights_hash(part_digests(schema, weights, 0)), chosen.weights_sha256)
        yield FirstWeights(weights, name, False)
        return
    folder = checkpoint_dir(chosen, tier)
    _compare_config(f"{folder}: config.json", read_config(folder), chosen)
    source = find_source(folder, schema, tier, strategy)
    if source.path.is_dir() and (manifest := read_manifest(source.path)) is not None:
        manifest.verify(source.path, set(manifest.files) - {STATE, POSITION})
    if chosen.weights_sha256:
        found = full_weights_hash(source, schema)
        if found is None:
            raise CheckpointError(
                f"{source.path} is a slice without a proof of what it was cut from: cut it from the full "
                "checkpoint with psyche-train slice, or load that with strategy universal"
            )
        _compare(str(source.path), found, chosen.weights_sha256)
    with StoredWeights(source, schema, tier) as stored:
        yield FirstWeights(stored, str(source.path), source.tier > 0)


def checkpoint_dir(chosen: StoredCheckpoint, tier: int = 0) -> Path:
    """The local directory of a checkpoint; what is elsewhere is fetched and verified, once in a process.

    Raises:
        CheckpointError: it is not there, cannot be reached, or is damaged.
    """
    if isinstance(chosen, LocalCheckpoint):
        path = Path(chosen.path).expanduser()
        if not path.is_dir():
            raise CheckpointError(f"checkpoint.Local.path = {path} is not a directory here")
        return path
    if isinstance(chosen, HubCheckpoint):
        return _fetched(_hub_text(chosen), tier, os.environ.get("HF_ENDPOINT", ""))
    return _fetched(chosen.url, tier, str(remote.cache_folder()))


def resolve_checkpoint(spec: TrainSpec) -> Checkpoint:
    """Return the table with the revision pinned and the hashes filled in; those that are there are checked.

    Raises:
        CheckpointError, TierError: the source is missing, a slice, or not what a hash says.
    """
    chosen = spec.checkpoint.chosen
    if isinstance(chosen, HubCheckpoint):
        chosen = chosen.model_copy(update={"revision": hub.pin(chosen.repo_id, chosen.revision)})
        spec = _with(spec, chosen)
    schema = schema_of(spec)
    update: dict[str, Any] = {}
    if isinstance(chosen, InitCheckpoint):
        with first_weights(spec, schema, 0) as first:
            digest = weights_hash(part_digests(schema, first.weights, 0))
    else:
        folder = checkpoint_dir(chosen)
        source = inferred(folder, schema)
        if source.tier:
            raise CheckpointError("a run begins with a full checkpoint, this one is a slice")
        with first_weights(spec, schema, 0, "universal"):
            digest = full_weights_hash(source, schema) or b""
        tables = canonical_config(read_config(folder))
        update["config_sha256"] = config_sha256(tables)
        if len(_json(tables)) <= _MAX_CONFIG_BYTES:
            update["config"] = tables
    update["weights_sha256"] = digest.hex()
    return _with(spec, chosen.model_copy(update=update)).checkpoint


def config_sha256(tables: Mapping[str, Any]) -> str:
    """Hash of a `config.json` at full width, the same for all tiers of a checkpoint; in hex."""
    return hashlib.sha256(_json(canonical_config(tables))).hexdigest()


def canonical_config(tables: Mapping[str, Any]) -> dict[str, Any]:
    """A `config.json` at full width, with only what the model computes with.

    Raises:
        CheckpointError: its widths do not belong together.
    """
    try:
        full = widened(tables)
    except ModelError as error:
        raise CheckpointError(str(error)) from error
    return {key: value for key, value in full.items() if key not in _CHANGES_NOTHING}


def _json(tables: Mapping[str, Any]) -> bytes:
    return json.dumps(tables, sort_keys=True, separators=(",", ":")).encode()


def _compare_config(where: str, tables: Mapping[str, Any], chosen: StoredCheckpoint) -> None:
    if chosen.config_sha256 not in ("", found := config_sha256(tables)):
        raise CheckpointError(
            f"{where} describes another model than the run's (hash {found[:16]}, the run's is "
            f"{chosen.config_sha256[:16]}): get the checkpoint that the run names"
        )


def _with(spec: TrainSpec, chosen: InitCheckpoint | StoredCheckpoint) -> TrainSpec:
    checkpoint = spec.checkpoint.model_copy(update={spec.checkpoint.kind: chosen})
    return spec.model_copy(update={"checkpoint": checkpoint})


def _compare(name: str, found: bytes, wanted: str) -> None:
    if found.hex() != wanted:
        raise CheckpointError(
            f"the first weights ({name}) have hash {found.hex()[:16]}, the run's is {wanted[:16]}: "
            "get the checkpoint that the run names"
        )


def _hub_text(chosen: HubCheckpoint) -> str:
    return f"hub:{chosen.repo_id}" + (f"@{chosen.revision}" if chosen.revision else "")


@lru_cache(maxsize=16)
def _fetched(text: str, tier: int, place: str) -> Path:
    """Fetch; `place` only tells servers and caches of the same process apart."""
    del place
    return remote.fetch(text, tier=tier)
