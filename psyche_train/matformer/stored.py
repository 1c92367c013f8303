"""The weights of one tier in a checkpoint on disk, one tensor in memory at a time."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from psyche_train.checkpoints.errors import CheckpointError
from psyche_train.checkpoints.files import FOLDED, WeightFiles
from psyche_train.checkpoints.manifest import read_manifest
from psyche_train.checkpoints.tensors import TensorFile
from psyche_train.fold.digest import part_digests, weights_hash
from psyche_train.matformer.loading import SliceSource, check_not_sliced_twice
from psyche_train.models.family import ModelError
from psyche_train.models.schema import Schema, TensorSpec


class StoredWeights(Mapping[str, Tensor]):
    """A tier's weights in a checkpoint, ``name -> fp32 CPU tensor``, each read when it is asked for.

    Use it as a context manager, or `close` it. Shapes are checked when it is made, values when they are read.

    Raises:
        DoubleSliceError: the source is a slice and not this tier's.
        CheckpointError: a tensor is missing, has another shape, or is not finite.
    """

    def __init__(self, source: SliceSource, schema: Schema, tier: int) -> None:
        check_not_sliced_twice(source, tier)
        self.source, self.schema, self.tier = source, schema, tier
        self._tensors = {tensor.name: tensor for tensor in schema.stored}
        self._files = WeightFiles(source.path)
        self._converted: Mapping[str, Tensor] = {}
        try:
            held = {entry.name for entry in self._files.entries()}
            if source.path.is_dir() and any(t.name not in held for t in model_tensors(schema)):
                self._converted = _converted(source.path, schema, held)
            for tensor in schema.stored:
                if tensor.name in self._converted:
                    continue
                shape = self._files.entry(tensor.name).shape
                if shape != tensor.shape_at(source.tier):
                    raise CheckpointError(
                        f"{source.path}: {tensor.name} is {shape}, "
                        f"tier {source.tier} has {tensor.shape_at(source.tier)}"
                    )
        except BaseException:
            self._files.close()
            raise

    def __getitem__(self, name: str) -> Tensor:
        tensor = self._tensors[name]
        if name in self._converted:
            part = tensor.take(self._converted[name], self.tier, self.source.tier)
            return self._files.finite(name, part.clone())
        return self._files.finite(name, tensor.read(self._files.stored(name), self.tier, self.source.tier))

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def close(self) -> None:
        """Close the files."""
        self._files.close()

    def __enter__(self) -> StoredWeights:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def model_tensors(schema: Schema) -> tuple[TensorSpec, ...]:
    """What belongs to the model itself: neither folded state nor other things that a run keeps beside it."""
    return (*schema.family.tensors(), *schema.family.constants())


def with_stored_folded(path: Path, schema: Schema) -> Schema | None:
    """The schema with the folded state that a checkpoint directory holds, in the order of the run's hash; None without.

    The kinds are in the order of their names, which is that of every strategy.

    Raises:
        CheckpointError: the file lacks a tensor, or holds one of another model.
    """
    if not (path / FOLDED).is_file():
        return None
    file = TensorFile(path / FOLDED)
    file.close()
    kinds = sorted({name.partition("/")[0] for name in file.entries})
    folded = tuple(replace(t, name=f"{kind}/{t.name}") for kind in kinds for t in schema.tensors)
    if {tensor.name for tensor in folded} != set(file.entries):
        raise CheckpointError(f"{path / FOLDED} does not hold the momenta of this model")
    return replace(schema, tensors=(*schema.tensors, *folded))


def _converted(path: Path, schema: Schema, held: Container[str]) -> Mapping[str, Tensor]:
    """Read a checkpoint that has other names for the model's tensors; all of it is in memory meanwhile."""
    missing = next(tensor.name for tensor in model_tensors(schema) if tensor.name not in held)
    try:
        return schema.family.load_converted(path)
    except ModelError as error:
        raise CheckpointError(f"{path} lacks {missing}: {error}") from error


def read_slice(source: SliceSource, schema: Schema, tier: int) -> dict[str, Tensor]:
    """Return tier `tier`'s weights, ``name -> fp32 CPU tensor``; reads nothing outside the slice.

    Raises:
        DoubleSliceError, CheckpointError: as `StoredWeights`.
    """
    with StoredWeights(source, schema, tier) as weights:
        return {name: weights[name] for name in weights}


def full_weights_hash(source: SliceSource, schema: Schema) -> bytes | None:
    """Hash h_0 of the full model that a checkpoint is, or was cut from; one tensor at a time is read.

    A slice proves it with the digests of the parts that it lacks, which `psyche-train slice` wrote into its
    manifest; None if they are not there. A manifest that lies about them gives another hash.

    Raises:
        CheckpointError: the checkpoint is damaged.
    """
    outer: list[bytes] = []
    if source.tier > 0:
        manifest = read_manifest(source.path) if source.path.is_dir() else None
        if manifest is None or len(manifest.outer_sha256) != source.tier or source.tier > schema.max_tier:
            return None
        proof = manifest.outer_sha256
        if len(schema.tensors) > len(schema.family.tensors()):
            if manifest.folded is None:
                raise CheckpointError(
                    f"{source.path} lacks the momenta that belong to the weights: cut it again"
                )
            proof = manifest.folded.outer_sha256
        outer = [bytes.fromhex(digest) for digest in proof]
    with StoredWeights(source, schema, source.tier) as weights:
        return weights_hash(part_digests(schema, weights, source.tier) + outer)
