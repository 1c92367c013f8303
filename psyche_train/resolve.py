"""Fill a specification's hashes in, and build from it what a member needs."""

from __future__ import annotations

import platform
from dataclasses import replace

from psyche_train.data.convert import pin_revision
from psyche_train.data.dataset import Dataset
from psyche_train.data.errors import DataError
from psyche_train.matformer.first import checkpoint_dir, first_weights, resolve_checkpoint, schema_of
from psyche_train.matformer.helper import helper_of
from psyche_train.matformer.loading import CheckpointError
from psyche_train.models.schema import Schema
from psyche_train.spec import DummyData, FixedSource, StdlibData, TrainSpec
from psyche_train.strategies.size import check_update_size


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


def sealed(source: FixedSource, manifest: str) -> FixedSource:
    """A source with the id of its manifest filled in."""
    if isinstance(source, DummyData) or source.manifest:
        return source
    update = {"manifest": manifest}
    if isinstance(source, StdlibData):
        update["python"] = platform.python_version()
    return source.model_copy(update=update)


def resolve(spec: TrainSpec) -> TrainSpec:
    """Return the specification with every hash filled in; one that is there already is checked.

    Raises:
        DataError, CheckpointError, TierError: a source is missing, or is not what a hash says.
        SpecError: updates of this model would be too long.
    """
    schema = schema_of(spec)
    helper_of(spec, schema)  # a sample of no block
    check_update_size(spec, schema)
    pinned = [pin_revision(source) for _, source in spec.data_location.sources]
    spec = spec.model_copy(update={"data_location": spec.data_location.with_sources(pinned)})
    data = Dataset(spec, schema.family.vocab_size)  # also: too short, or tokens that the model has no row for
    sources = [
        sealed(source, manifest)
        for (_, source), manifest in zip(spec.data_location.sources, data.manifests, strict=True)
    ]
    spec = spec.model_copy(update={"data_location": spec.data_location.with_sources(sources)})
    return TrainSpec.model_validate(
        spec.model_copy(update={"checkpoint": resolve_checkpoint(spec)}).model_dump(exclude_none=True)
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
