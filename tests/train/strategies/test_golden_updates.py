"""One file per strategy and format version: bytes, what they mean, and the hash after folding them.

The bytes and the fold are what members of one run must agree on. ``WRITE_FIXTURE=1`` writes the files again; do
that only together with a new format version.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from psyche_train.fold.chunks import Grid
from psyche_train.fold.digest import part_digests, weights_hash
from psyche_train.fold.exact import Signs
from psyche_train.models.initial import initial_weights
from psyche_train.resolve import schema_of, with_folded
from psyche_train.strategies.choose import strategy_of
from psyche_train.strategies.header import VERSION, UpdateHeader
from psyche_train.strategies.sparse_payload import LARGE, MINUS, SparseValues
from psyche_train.strategies.update import Update, UpdateFormat

FOLDER = Path(__file__).resolve().parents[2] / "golden" / "updates"
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "distro": {
        "Distro": {"compression_chunk": 4, "compression_topk": 3, "weight_decay": 0.1, "votes": "tokens"}
    },
    "distro-entropy": {
        "Distro": {"compression_chunk": 4, "compression_topk": 3, "entropy": True, "votes": "senders"}
    },
    "sparseloco": {
        "SparseLoCo": {
            "compression_chunk": 4,
            "compression_topk": 3,
            "outer_lr": 0.7,
            "outer_momentum": 0.9,
            "nesterov": True,
            "votes": "tokens",
        }
    },
    "adamw": {"AdamW": {"weight_decay": 0.1}},
}
INIT = {
    "seed": 5,
    "hidden_size": 8,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "vocab_size": 12,
}
SCHEMA = bytes(range(32))
STEP, LR = 6, 0.01
SENDERS = ((0, 48), (1, 16))
"""Tier and tokens of the two updates."""


def numbers(count: int, below: int, seed: int) -> np.ndarray:
    """Integers that look arbitrary and are the same everywhere."""
    return (np.arange(1, count + 1, dtype=np.int64) * 7919 + seed * 104729) * 2654435761 % 2**32 % below


def distro_tensor(grid: Grid, kept: int, seed: int) -> Signs:
    keys, _ = entries(grid, kept, seed)
    return Signs(keys, np.where(numbers(len(keys), 2, seed) > 0, 1, -1).astype(np.int8))


def sparse_tensor(grid: Grid, kept: int, seed: int) -> SparseValues:
    keys, counts = entries(grid, kept, seed)
    low = 0x3A00 + numbers(grid.num_chunks, 200, seed)
    scales = np.stack([low, low + numbers(grid.num_chunks, 200, seed + 1)], axis=1)
    scales[counts == 0] = 0
    codes = numbers(len(keys), MINUS + LARGE + 1, seed)
    return SparseValues(keys, codes.astype(np.uint8), scales.astype(np.uint16))


def dense_tensor(grid: Grid, kept: int, seed: int) -> np.ndarray:
    count = int(np.prod(grid.shape))
    values = (numbers(count, 2**20, seed) - 2**19).astype(np.float32) * np.float32(2.0**-24)
    return values.reshape(grid.shape)


def entries(grid: Grid, kept: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Some keys of every chunk but the first, and how many per chunk."""
    chosen = [
        np.unique(numbers(kept, grid.area, seed + chunk))[: kept if seed % 3 else kept - 1]
        + chunk * grid.area
        for chunk in range(grid.num_chunks)
    ]
    if seed % 3 == 0:
        chosen[0] = chosen[0][:0]
    return np.concatenate(chosen), np.array([len(keys) for keys in chosen])


MAKERS = {
    "distro": distro_tensor,
    "distro-entropy": distro_tensor,
    "sparseloco": sparse_tensor,
    "adamw": dense_tensor,
}


def meaning(tensor: Any) -> Any:
    """A tensor of a decoded body as JSON."""
    match tensor:
        case Signs(keys, signs):
            return {"keys": keys.tolist(), "signs": signs.tolist()}
        case SparseValues(keys, codes, scales):
            return {"keys": keys.tolist(), "codes": codes.tolist(), "scales": scales.tolist()}
        case _:
            return {"shape": list(tensor.shape), "bits": tensor.view(np.uint32).reshape(-1).tolist()}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_bytes_meaning_and_fold_are_those_of_the_golden_file(kind, make_spec):
    spec = make_spec(
        checkpoint={"Init": INIT},
        data_location={"Local": {"path": "no tokens are read here"}},
        optimizer=OPTIMIZERS[kind],
        matformer={"max_tier": 1},
        max_seq_len=8,
    )
    schema = schema_of(spec)
    strategy = strategy_of(spec, schema, 0, torch.device("cpu"))
    form = UpdateFormat(
        strategy=strategy.code, schema=SCHEMA, codecs=strategy.codecs, tokens_per_sample=spec.max_seq_len
    )
    updates = []
    for slot, (tier, tokens) in enumerate(SENDERS):
        grids = strategy.shares.trained(tier, 0, 0)
        body = tuple(MAKERS[kind](grid, min(3, grid.area), slot * 100 + i) for i, grid in enumerate(grids))
        header = UpdateHeader(
            run=bytes(range(100, 132)),
            epoch=2,
            round=STEP + 3,
            step=STEP,
            slot=slot,
            tier=tier,
            schema=SCHEMA,
            loss=2.75,
            tokens=tokens,
            intervals=(range(40, 40 + tokens // 8),),
        )
        updates.append(Update(header, body))
    blobs = [form.encode(update) for update in updates]
    decoded = [form.decode(blob) for blob in blobs]
    weights = initial_weights(schema, INIT["seed"], 0)
    for _ in range(2):  # the second fold meets momenta that are not zero
        strategy.fold(weights, decoded, step=STEP, lr=LR)
    shared = with_folded(schema, spec)
    digests = part_digests(shared, {**weights, **strategy.folded}, 0)
    found = {
        "version": VERSION,
        "strategy": strategy.code,
        "updates": [blob.hex() for blob in blobs],
        "tensors": [grid.name for grid in strategy.shares.trained(0, 0, 0)],
        "meaning": [[meaning(tensor) for tensor in update.body] for update in decoded],
        "parts_after_two_folds": [digest.hex() for digest in digests],
        "hash_after_two_folds": weights_hash(digests).hex(),
    }
    path = FOLDER / f"{kind}-v{VERSION}.json"
    if os.environ.get("WRITE_FIXTURE") == "1":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, separators=(",", ":")).replace("],[", "],\n[") + "\n")
    assert found == json.loads(path.read_text())
    assert [[meaning(t) for t in update.body] for update in updates] == found["meaning"]
