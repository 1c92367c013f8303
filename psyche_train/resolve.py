"""Fill a specification's hashes in, and build from it what a member needs."""

from __future__ import annotations

import platform
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from psyche_train.data.dataset import Dataset
from psyche_train.data.source import DataError, open_tokens, read_tokens
from psyche_train.fold.digest import part_digests, weights_hash
from psyche_train.matformer.helper import helper_of
from psyche_train.matformer.loading import (
    CheckpointError,
    Strategy,
    find_source,
    inferred,
    read_family,
    read_slice,
)
from psyche_train.models.family import ModelError
from psyche_train.models.initial import initial_weights
from psyche_train.models.registry import fresh_family
from psyche_train.models.schema import Schema
from psyche_train.spec import DummyData, HubCheckpoint, InitCheckpoint, LocalCheckpoint, StdlibData, TrainSpec


def schema_of(spec: TrainSpec) -> Schema:
    """The schema of a run's model at full width.

    Raises:
        CheckpointError: there is no such checkpoint or model. TierError: it has no such tiers.
    """
    chosen = spec.checkpoint.chosen
    if not isinstance(chosen, InitCheckpoint):
        return Schema.of(read_family(checkpoint_dir(chosen)), spec.matformer.max_tier)
    try:
        return Schema.of(fresh_family(chosen, spec.max_seq_len), spec.matformer.max_tier)
    except ModelError as error:
        raise CheckpointError(f"checkpoint.Init: {error}") from error


def with_folded(schema: Schema, spec: TrainSpec) -> Schema:
    """The schema of all that members share: the weights, then the folded state, kind by kind.

    A tensor of the folded state is named ``kind/weight`` and is cut by tier like the weight.
    """
    folded = [
        replace(tensor, name=f"{kind}/{tensor.name}")
        for kind in spec.optimizer.chosen.folded
        for tensor in schema.tensors
    ]
    return replace(schema, tensors=(*schema.tensors, *folded))


def first_weights(
    spec: TrainSpec, schema: Schema, tier: int, strategy: Strategy = "auto"
) -> tuple[dict[str, Tensor], str, bool]:
    """Return a run's first weights at a tier, where they came from, and whether that was cut beforehand.

    Raises:
        CheckpointError: the source is missing, or its full weights do not have the spec's hash.
    """
    chosen = spec.checkpoint.chosen
    if isinstance(chosen, InitCheckpoint):
        weights = initial_weights(schema, chosen.seed, tier)
        name, cut = f"Init, seed {chosen.seed}", False
    else:
        source = find_source(checkpoint_dir(chosen), schema, tier, strategy)
        weights = read_slice(source, schema, tier)
        name, cut = str(source.path), source.tier > 0
    if tier == 0 and chosen.weights_sha256:
        found = weights_hash(part_digests(schema, weights, 0)).hex()
        if found != chosen.weights_sha256:
            raise CheckpointError(
                f"the first weights ({name}) have hash {found[:16]}, the run's is "
                f"{chosen.weights_sha256[:16]}: get the checkpoint that the run names"
            )
    return weights, name, cut


def checkpoint_dir(chosen: HubCheckpoint | LocalCheckpoint) -> Path:
    """The local directory of a checkpoint; a Hub repository is fetched first."""
    if isinstance(chosen, LocalCheckpoint):
        path = Path(chosen.path).expanduser()
        if not path.is_dir():
            raise CheckpointError(f"checkpoint.Local.path = {path} is not a directory here")
        return path
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(
            snapshot_download(
                chosen.repo_id, revision=chosen.revision, allow_patterns=["*.json", "*.safetensors"]
            )
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{chosen.repo_id} cannot be fetched from the Hub: {error}. Check the name, your network, or use "
            "checkpoint.Local"
        ) from error


def resolve(spec: TrainSpec) -> TrainSpec:
    """Return the specification with every hash filled in; one that is there already is checked.

    Raises:
        DataError, CheckpointError, TierError: a source is missing, or is not what a hash says.
    """
    location = spec.data_location.chosen
    if not isinstance(location, DummyData):
        open_tokens(location)
        found = read_tokens(location)[1]
        extra = {"python": platform.python_version()} if isinstance(location, StdlibData) else {}
        kept = location if location.sha256 else location.model_copy(update={"sha256": found, **extra})
        spec = spec.model_copy(
            update={"data_location": spec.data_location.model_copy(update={spec.data_location.kind: kept})}
        )
    schema = schema_of(spec)
    helper_of(spec, schema)  # a sample of no block
    Dataset(spec, schema.family.vocab_size)  # too short, or tokens that the model has no row for
    chosen = spec.checkpoint.chosen
    if not isinstance(chosen, InitCheckpoint) and inferred(checkpoint_dir(chosen), schema).tier:
        raise CheckpointError("a run begins with a full checkpoint, this one is a slice")
    weights, _, _ = first_weights(spec, schema, 0, "universal")
    digest = weights_hash(part_digests(schema, weights, 0)).hex()
    checkpoint = spec.checkpoint.model_copy(
        update={spec.checkpoint.kind: chosen.model_copy(update={"weights_sha256": digest})}
    )
    return TrainSpec.model_validate(
        spec.model_copy(update={"checkpoint": checkpoint}).model_dump(exclude_none=True)
    )


__all__ = [
    "CheckpointError",
    "DataError",
    "checkpoint_dir",
    "first_weights",
    "resolve",
    "schema_of",
    "with_folded",
]
