"""Whether the updates of a run fit into blobs, which is all that members can hand to one another."""

from __future__ import annotations

import torch

from psyche_train.blobs import MAX_BLOB_BYTES
from psyche_train.models.schema import Schema
from psyche_train.spec import SpecError, TrainSpec
from psyche_train.strategies.choose import strategy_of
from psyche_train.strategies.header import MAX_HEADER_BYTES

_GIB = 1 << 30
_ADVICE = {
    "Distro": "lower compression_topk, or make the model smaller",
    "SparseLoCo": "lower compression_topk, or make the model smaller",
    "AdamW": "choose optimizer.Distro or optimizer.SparseLoCo, which send a part of it, or make the model smaller",
}


def largest_update(spec: TrainSpec, schema: Schema) -> int:
    """Length in bytes of the longest valid update of any tier; from shapes alone."""
    nobody = strategy_of(spec, schema, schema.max_tier, torch.device("meta"))
    return MAX_HEADER_BYTES + max(codec.max_bytes for codec in nobody.codecs)


def check_update_size(spec: TrainSpec, schema: Schema) -> None:
    """Refuse a run whose updates may be longer than the longest blob.

    Raises:
        SpecError: names the key, both lengths, and what to do.
    """
    if (length := largest_update(spec, schema)) <= MAX_BLOB_BYTES:
        return
    kind, chosen = spec.optimizer.kind, spec.optimizer.chosen
    topk = getattr(chosen, "compression_topk", None)
    what = "whole gradients" if topk is None else f"with compression_topk = {topk}"
    raise SpecError(
        f"optimizer.{kind}: an update of this model ({what}) has up to {length / _GIB:,.1f} GiB, and members can hand "
        f"over at most {MAX_BLOB_BYTES / _GIB:,.0f} GiB at once: {_ADVICE[kind]}"
    )
