"""Write a tier as an ordinary Hugging Face model, for `transformers`, vLLM and whatever reads their layout.

A slice multiplies the output of its feed-forward neurons by 2 ** (tier x ffn_rescale). On export that factor
goes into the projection behind them; for whole exponents it is a power of two, so nothing is rounded and the
exported model gives the same fp32 logits, bit for bit. An export says in its `config.json` that it is one, and
is refused for training: its bits are no longer tier 0's prefix.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from psyche_train._durable import sync_path
from psyche_train.checkpoints.errors import CheckpointError, disk
from psyche_train.checkpoints.files import CONFIG, SHARD_BYTES, copy_tokenizer, write_json, write_weights
from psyche_train.checkpoints.manifest import POSITION, STATE, read_manifest
from psyche_train.checkpoints.tensors import Entry
from psyche_train.matformer.loading import find_source, inferred, read_config, read_family
from psyche_train.matformer.stored import StoredWeights
from psyche_train.models.family import MATFORMER_KEYS
from psyche_train.models.schema import Schema

DtypeName = Literal["fp32", "bf16", "fp16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True)
class Export:
    """What was written."""

    path: Path
    tier: int
    width: int
    factor: float
    dtype: str
    parameters: int
    num_bytes: int
    """Of the weights."""
    tokenizer: bool
    """There was one to copy."""
    exact: bool
    """No value was rounded."""


def export_model(
    checkpoint: Path,
    out: Path,
    *,
    tier: int | None = None,
    dtype: DtypeName = "fp32",
    ffn_rescale: float | None = None,
    shard_bytes: int = SHARD_BYTES,
    progress: Callable[[str], None] = lambda what: None,
) -> Export:
    """Write a tier of a checkpoint as an ordinary model; one tensor is in memory at a time.

    Args:
        checkpoint: full or a slice.
        out: must not be there yet; it appears when it is whole.
        tier: None takes the tier that the checkpoint holds.
        ffn_rescale: exponent of the run; None takes the checkpoint's own, or 1.

    Raises:
        TierError, DoubleSliceError: the checkpoint does not hold the tier.
        CheckpointError: it is damaged or itself an export; `out` is there; a value does not fit the type.
    """
    if out.exists():
        raise CheckpointError(f"{out} is there already: move it away, or choose another output directory")
    family = read_family(checkpoint)
    schema = Schema.of(family, 0)
    tier = inferred(checkpoint, schema).tier if tier is None else tier
    family.check_tier(tier)
    source = find_source(checkpoint, schema, tier, "auto")
    if (manifest := read_manifest(source.path)) is not None:
        progress("comparing the checkpoint with its manifest")
        manifest.verify(source.path, set(manifest.files) - {STATE, POSITION})
    tables = read_config(source.path)
    if ffn_rescale is None:
        ffn_rescale = _number(tables.get("matformer_ffn_rescale", 1.0), source.path)
    factor = 2.0 ** (tier * ffn_rescale)
    kind = DTYPES[dtype]
    takes_factor = {tensor.name for tensor in schema.tensors if family.takes_factor(tensor)}
    entries = [Entry(tensor.name, kind, tensor.shape_at(tier)) for tensor in schema.stored]
    beside = out.with_name(f".new-{out.name}")
    with disk(beside, "cannot create"):
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
    try:
        with StoredWeights(source, schema, tier) as weights:

            def fetch(name: str) -> Tensor:
                values = weights[name]
                if name in takes_factor:
                    values = values * factor
                values = values.to(kind)
                if not bool(torch.isfinite(values).all()):
                    raise CheckpointError(f"{name} holds values that {dtype} cannot: export as bf16 or fp32")
                return values

            progress(f"writing {out}")
            files = write_weights(beside, entries, fetch, shard_bytes=shard_bytes)
        width = family.ffn_width >> tier
        described = {"tier": tier, "base_intermediate_size": family.ffn_width, "ffn_rescale": ffn_rescale}
        write_json(beside / CONFIG, _config(tables, family.tables_at(width), dtype, described))
        tokenizer = copy_tokenizer(source.path, beside) or copy_tokenizer(checkpoint, beside)
        with disk(beside, "cannot finish"):
            for path in [*beside.iterdir(), beside]:
                sync_path(path)
            beside.rename(out)
            sync_path(out.resolve().parent)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    return Export(
        path=out,
        tier=tier,
        width=width,
        factor=factor,
        dtype=dtype,
        parameters=schema.num_parameters(tier),
        num_bytes=sum(entry.num_bytes for name, entry in files.items() if name.endswith(".safetensors")),
        tokenizer=bool(tokenizer),
        exact=dtype == "fp32" and (tier * ffn_rescale).is_integer(),
    )


def _config(
    stored: dict[str, Any], narrow: dict[str, Any], dtype: DtypeName, described: dict[str, Any]
) -> dict[str, Any]:
    """The configuration of a plain model: the stored one at the width, without what only training needs."""
    tables = {key: narrow.get(key, value) for key, value in stored.items() if key not in MATFORMER_KEYS}
    for key in ("use_cache", "torch_dtype"):
        tables.pop(key, None)
    tables["dtype"] = str(DTYPES[dtype]).removeprefix("torch.")
    tables["matformer_export"] = described
    return tables


def _number(value: Any, path: Path) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 8:
        raise CheckpointError(
            f"{path / CONFIG}: matformer_ffn_rescale = {str(value)[:80]!r}, 0 to 8 is needed"
        )
    return float(value)
