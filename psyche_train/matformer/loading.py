"""Read a tier's weights from a checkpoint directory or file in the transformers layout.

Strategies: `universal` takes the slice out of a full checkpoint, `sliced` reads a directory that was cut
beforehand, `auto` takes the sliced one if it is there. Only the slice is ever held in memory.

| the checkpoint holds | asked for | universal | auto | sliced |
|---|---|---|---|---|
| tier 0 | tier 0 | it | it | it |
| tier 0 | tier t | its prefix | the one cut beforehand, else its prefix | the one cut beforehand |
| tier s > 0 | tier s | refused: not full | it | it |
| tier s > 0 | tier t > s | refused | refused: a slice of a slice | refused |
| tier s > 0 | tier t < s | refused | refused: it lacks neurons | refused |

A slice that was cut beforehand is `<path>/tier<t>` or, beside it, `<path>-tier<t>`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from psyche_train.checkpoints.errors import CheckpointError, DoubleSliceError
from psyche_train.checkpoints.files import CONFIG, WeightFiles
from psyche_train.checkpoints.manifest import read_manifest
from psyche_train.checkpoints.tensors import read_json
from psyche_train.models.family import ModelFamily
from psyche_train.models.registry import family_of
from psyche_train.models.schema import Schema, TierError

__all__ = [
    "CheckpointError",
    "DoubleSliceError",
    "SliceSource",
    "Strategy",
    "check_not_sliced_twice",
    "find_source",
    "inferred",
    "read_config",
    "read_family",
    "slice_directories",
]

Strategy = Literal["universal", "sliced", "auto"]

MAX_CONFIG_BYTES = 4 << 20
MAX_INFERRED_TIER = 16
_MOST = {
    "num_hidden_layers": 2048,
    "num_layers": 2048,
    "n_layer": 2048,
    "num_experts": 4096,
    "num_local_experts": 4096,
    "n_routed_experts": 4096,
    "hidden_size": 2**20,
    "intermediate_size": 2**31,
    "n_inner": 2**31,
    "moe_intermediate_size": 2**31,
    "vocab_size": 2**24,
}
"""Larger numbers in a `config.json` are no model but an attempt to fill the memory of whoever reads it."""


@dataclass(frozen=True, slots=True)
class SliceSource:
    """A checkpoint and the width that it holds."""

    path: Path
    """A directory, or one `.safetensors` file."""
    tier: int
    base_intermediate_size: int


def slice_directories(path: Path, tier: int) -> tuple[Path, Path]:
    """Where a slice that was cut beforehand is looked for: in the checkpoint, and beside it."""
    return path / f"tier{tier}", path.with_name(f"{path.name}-tier{tier}")


def find_source(path: Path, schema: Schema, tier: int, strategy: Strategy) -> SliceSource:
    """Choose what to read tier `tier` from, as the table above says.

    Raises:
        CheckpointError: nothing is there, or what is there is not this tier's slice of this model.
        DoubleSliceError: it is another tier's slice. TierError: the tier has more neurons than the slice.
    """
    cut = None
    if tier > 0 and strategy != "universal":
        cut = next((folder for folder in slice_directories(path, tier) if folder.is_dir()), None)
    if cut is not None:
        source = inferred(cut, schema)
        if source.tier != tier:
            raise CheckpointError(
                f"{cut} holds tier {source.tier}, its name says tier {tier}: remove it, or cut it again with "
                f"psyche-train slice {path} --tiers {tier}"
            )
        return source
    source = inferred(path, schema)
    if strategy == "universal" and source.tier > 0:
        raise DoubleSliceError(
            f"{path} is already the slice of tier {source.tier}, strategy universal cuts full checkpoints only: "
            "use strategy auto or sliced for this slice, or load tier 0's checkpoint"
        )
    if strategy == "sliced" and source.tier != tier:
        raise CheckpointError(
            f"{slice_directories(path, tier)[1]} is not there: cut it with psyche-train slice {path} "
            f"--tiers {tier}, or load with strategy universal from the full checkpoint"
        )
    check_not_sliced_twice(source, tier)
    return source


def inferred(path: Path, schema: Schema) -> SliceSource:
    """Tell the tier of a checkpoint: from its metadata, else from the ratio of its width to the model's.

    Raises:
        CheckpointError: it is not this model at any tier, or is an export.
    """
    base = schema.family.ffn_width
    if path.is_dir():
        tables = read_config(path)
        said_base, said_tier = _metadata(path, tables)
        width = schema.family.width_of(tables)
        if said_base not in (None, base):
            raise CheckpointError(f"{path} was cut from a width of {said_base}, the model has {base}")
        if not base:  # no layer that could be cut
            return SliceSource(path, 0, 0)
        manifest = read_manifest(path)
        if manifest is not None and manifest.schema_sha256 != schema.model_sha256().hex():
            raise CheckpointError(
                f"{path} has schema {manifest.schema_sha256[:16]}, the model has "
                f"{schema.model_sha256().hex()[:16]}: it is the checkpoint of another model"
            )
        if said_tier is not None:
            if base >> said_tier != width or base % 2**said_tier:
                raise CheckpointError(
                    f"{path / CONFIG}: tier {said_tier} of width {base} is not {width} wide"
                )
            return SliceSource(path, said_tier, base)
    elif not base:
        return SliceSource(path, 0, 0)
    else:
        width = _file_width(path, schema)
    for tier in range(MAX_INFERRED_TIER + 1):
        if base % 2**tier == 0 and base >> tier == width:
            return SliceSource(path, tier, base)
    raise CheckpointError(
        f"{path} has a feed-forward width of {width}: no tier of {base}, which must be a power of two times it"
    )


def read_config(path: Path) -> dict[str, Any]:
    """Read a checkpoint directory's `config.json`.

    Raises:
        CheckpointError: there is none, or it belongs to an export.
    """
    if not (path / CONFIG).is_file():
        raise CheckpointError(f"{path} holds no {CONFIG}: it is not a checkpoint in the transformers layout")
    tables = read_json(path / CONFIG, MAX_CONFIG_BYTES)
    if tables.get("matformer_export"):
        raise CheckpointError(f"{path} is an export (the slice's factor is folded in): not for training")
    return tables


def read_family(path: Path, architecture: str | None = None) -> ModelFamily:
    """Read the family of a checkpoint directory's `config.json`, widened to tier 0.

    Args:
        architecture: the specification's; None takes the one that fits.

    Raises:
        CheckpointError: there is no readable `config.json`, or no family can train such a model.
    """
    return family_of_config(read_config(path), path, architecture)


def family_of_config(tables: Mapping[str, Any], path: Path, architecture: str | None = None) -> ModelFamily:
    """The family of a parsed `config.json`, widened to tier 0.

    Args:
        path: the directory that errors name.

    Raises:
        CheckpointError: as `read_family`.
    """
    _metadata(path, tables)
    for key, most in _MOST.items():
        if tables.get(key) is not None and (type(tables[key]) is not int or not 0 <= tables[key] <= most):
            raise CheckpointError(
                f"{path / CONFIG}: {key} = {str(tables[key])[:80]!r}, a number up to {most} is needed"
            )
    try:
        return family_of(tables, architecture)
    except Exception as error:  # transformers has no common type of error for a configuration that is none
        raise CheckpointError(f"{path / CONFIG} is no configuration of a model: {error}") from error


def _metadata(path: Path, tables: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Width at tier 0 and tier, as far as a configuration says them."""

    def number(key: str, limit: int) -> int | None:
        value = tables.get(key)
        if value is None and key not in tables:
            return None
        if type(value) is not int or not 0 <= value <= limit:
            raise CheckpointError(
                f"{path / CONFIG}: {key} = {str(value)[:80]!r}, a number up to {limit} is needed"
            )
        return value

    return (
        number("matformer_base_intermediate_size", 2**31),
        number("matformer_tier", MAX_INFERRED_TIER),
    )


def check_not_sliced_twice(source: SliceSource, tier: int) -> None:
    """Refuse to take a tier's slice from another tier's slice.

    Raises:
        DoubleSliceError: the tier has fewer neurons than the slice. TierError: it has more.
    """
    if tier < source.tier:
        raise TierError(
            f"{source.path} holds only tier {source.tier}, tier {tier} needs more neurons: "
            "load a full checkpoint, or join at the checkpoint's tier"
        )
    if source.tier not in (0, tier):
        raise DoubleSliceError(
            f"{source.path} is already the slice of tier {source.tier}; cutting it again to tier {tier} is "
            "refused: load tier 0's checkpoint"
        )


def _file_width(path: Path, schema: Schema) -> int:
    cut = next((tensor for tensor in schema.tensors if tensor.cut_axis is not None), None)
    if cut is None:
        return schema.family.ffn_width
    with WeightFiles(path) as files:
        shape = files.entry(cut.name).shape
    if cut.cut_axis is None or len(shape) != len(cut.shape):
        raise CheckpointError(f"{path}: {cut.name} is {shape}, the model's is {cut.shape}")
    return schema.family.ffn_width * shape[cut.cut_axis] // cut.shape[cut.cut_axis]
