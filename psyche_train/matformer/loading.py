"""Read a tier's weights from a checkpoint directory or file in the transformers layout.

Strategies: `universal` takes the slice out of a full checkpoint, `sliced` reads a directory that was cut
beforehand, `auto` takes the sliced one if it is there. Only the slice is ever held in memory.

    CheckpointError (ValueError): a checkpoint that is missing, damaged, or not the run's model.
        DoubleSliceError: a slice of a slice was asked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from psyche_train.models.family import ModelError, ModelFamily
from psyche_train.models.registry import family_of
from psyche_train.models.schema import Schema, TierError

Strategy = Literal["universal", "sliced", "auto"]


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged, or not the run's model."""


class DoubleSliceError(CheckpointError):
    """A slice of a slice was asked for: the neurons of the tier are not in the file."""


@dataclass(frozen=True, slots=True)
class SliceSource:
    """A checkpoint and the width that it holds."""

    path: Path
    """A directory, or one `.safetensors` file."""
    tier: int
    base_intermediate_size: int


def find_source(path: Path, schema: Schema, tier: int, strategy: Strategy) -> SliceSource:
    """Choose what to read tier `tier` from.

    A directory that was cut beforehand is named ``<path>-tier<t>`` and lies beside the full one.

    Raises:
        CheckpointError: nothing is there. DoubleSliceError: what is there is another tier's slice.
    """
    beside = path.with_name(f"{path.name}-tier{tier}")
    if strategy == "sliced" and tier > 0 and not beside.is_dir() and inferred(path, schema).tier != tier:
        raise CheckpointError(
            f"{beside} is not there: cut it first, or load with strategy universal from the full checkpoint"
        )
    chosen = beside if strategy != "universal" and tier > 0 and beside.is_dir() else path
    source = inferred(chosen, schema)
    _check_not_sliced_twice(source, tier)
    return source


def inferred(path: Path, schema: Schema) -> SliceSource:
    """Tell the tier of a checkpoint: from its metadata, else from the ratio of its width to the model's.

    Raises:
        CheckpointError: it is not this model at any tier, or is an export.
    """
    base = int(schema.family.ffn_width)
    config_path = path / "config.json"
    if path.is_dir() and config_path.is_file():
        try:
            config = json.loads(config_path.read_text())
            width = int(config["intermediate_size"])
            base = int(config.get("matformer_base_intermediate_size", base))
            tier_said = int(config["matformer_tier"]) if "matformer_tier" in config else None
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{config_path} is not a model's configuration: {error!r}") from error
        if config.get("matformer_export"):
            raise CheckpointError(f"{path} is an export (the slice's factor is folded in): not for training")
        if tier_said is not None:
            if not 0 <= tier_said <= 16 or base >> tier_said != width:
                raise CheckpointError(f"{config_path}: tier {tier_said} of width {base} is not {width} wide")
            return _checked(SliceSource(path, tier_said, base), schema)
    else:
        width = _file_width(path, schema)
    for tier in range(schema.max_tier + 1):
        if base >> tier == width:
            return _checked(SliceSource(path, tier, base), schema)
    raise CheckpointError(f"{path} has a feed-forward width of {width}: no tier of {base}")


def read_slice(source: SliceSource, schema: Schema, tier: int) -> dict[str, Tensor]:
    """Return tier `tier`'s weights, ``name -> fp32 CPU tensor``; reads nothing outside the slice.

    Raises:
        DoubleSliceError: the source is a slice and not this tier's.
        CheckpointError: a tensor is missing, has another shape, or is not finite.
    """
    _check_not_sliced_twice(source, tier)
    weights: dict[str, Tensor] = {}
    with ExitStack() as stack:
        where: dict[str, Any] = {}
        for file in _files(source.path):
            try:
                handle = stack.enter_context(safe_open(file, framework="pt"))
            except (OSError, SafetensorError) as error:
                raise CheckpointError(f"{file} cannot be read: {error}") from error
            where.update(dict.fromkeys(handle.keys(), handle))
        for tensor in schema.tensors:
            if tensor.name not in where:
                raise CheckpointError(f"{source.path} lacks {tensor.name}")
            stored = where[tensor.name].get_slice(tensor.name)
            if tuple(stored.get_shape()) != tensor.shape_at(source.tier):
                raise CheckpointError(
                    f"{source.path}: {tensor.name} is {tuple(stored.get_shape())}, "
                    f"tier {source.tier} has {tensor.shape_at(source.tier)}"
                )
            values = tensor.read(stored, tier, source.tier).to(torch.float32).contiguous()
            if not bool(torch.isfinite(values).all()):
                raise CheckpointError(f"{source.path}: {tensor.name} holds NaN or infinity")
            weights[tensor.name] = values
    return weights


def read_family(path: Path) -> ModelFamily:
    """Read the family of a checkpoint directory's `config.json`, widened to tier 0.

    Raises:
        CheckpointError: there is no readable `config.json`, or no family can train such a model.
    """
    try:
        tables: Any = json.loads((path / "config.json").read_text())
        if not isinstance(tables, dict):
            raise ValueError("it is not a table")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} holds no readable config.json: {error}") from error
    try:
        return family_of(tables)
    except ModelError as error:
        raise CheckpointError(f"{path / 'config.json'}: {error}") from error


def _checked(source: SliceSource, schema: Schema) -> SliceSource:
    base = int(schema.family.ffn_width)
    if source.base_intermediate_size != base:
        raise CheckpointError(
            f"{source.path} was cut from a width of {source.base_intermediate_size}, the model has {base}"
        )
    return source


def _check_not_sliced_twice(source: SliceSource, tier: int) -> None:
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
    cut = next(tensor for tensor in schema.tensors if tensor.cut_axis is not None)
    for file in _files(path):
        try:
            with safe_open(file, framework="pt") as handle:
                if cut.name in handle.keys():  # noqa: SIM118 - not a dict
                    return int(handle.get_slice(cut.name).get_shape()[cut.cut_axis])
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{file} cannot be read: {error}") from error
    raise CheckpointError(f"{path} lacks {cut.name}")


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    files = sorted(path.glob("model*.safetensors"))
    if not files:
        raise CheckpointError(f"{path} holds no model*.safetensors")
    yield from files
    yield from sorted(path.glob("folded*.safetensors"))
