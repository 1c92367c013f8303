"""The models that are measured: Llama-shaped, of about 1, 20 and 124 million parameters."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from psyche_train.fold.chunks import Grid
from psyche_train.fold.exact import Signs
from psyche_train.spec import DistroOptimizer, TrainSpec

SIZES: Final[dict[str, dict[str, int]]] = {
    "tiny": {"hidden": 32, "ffn": 64, "layers": 2, "heads": 2, "kv": 1, "vocab": 256, "seq": 16},
    "1M": {"hidden": 128, "ffn": 512, "layers": 4, "heads": 4, "kv": 2, "vocab": 256, "seq": 128},
    "20M": {"hidden": 512, "ffn": 1536, "layers": 6, "heads": 8, "kv": 4, "vocab": 1024, "seq": 512},
    "124M": {"hidden": 768, "ffn": 2048, "layers": 12, "heads": 12, "kv": 12, "vocab": 50304, "seq": 1024},
}
"""Name -> shape; `tiny` is for tests, 124M ties its embeddings and is shaped as GPT-2 is."""


def bench_spec(size: str, *, topk: int = 4, entropy: bool = False, max_tier: int = 2) -> TrainSpec:
    """The specification of one of `SIZES`, with chunks of 64 x 64 and DisTrO as it is by default.

    Raises:
        ValueError: there is no such size.
    """
    if size not in SIZES:
        raise ValueError(f"no size {size!r}: choose {', '.join(SIZES)}")
    shape = SIZES[size]
    tables: dict[str, Any] = {
        "max_seq_len": shape["seq"],
        "checkpoint": {
            "Init": {
                "seed": 1,
                "hidden_size": shape["hidden"],
                "intermediate_size": shape["ffn"],
                "num_hidden_layers": shape["layers"],
                "num_attention_heads": shape["heads"],
                "num_key_value_heads": shape["kv"],
                "vocab_size": shape["vocab"],
                "tie_word_embeddings": size == "124M",
            }
        },
        "data_location": {"Dummy": {"num_tokens": 10_000_000}},
        "lr_schedule": {"Constant": {"base_lr": 0.002}},
        "optimizer": {
            "Distro": {
                "compression_topk": topk,
                "entropy": entropy,
                "clip_grad_norm": 1.0,
                "weight_decay": 0.1,
            }
        },
        "matformer": {"max_tier": max_tier},
    }
    return TrainSpec.model_validate(tables)


def distro_of(spec: TrainSpec) -> DistroOptimizer:
    """The run's `[optimizer.Distro]`.

    Raises:
        ValueError: it trains by another strategy.
    """
    if spec.optimizer.Distro is None:
        raise ValueError(f"the run trains by {spec.optimizer.kind}: only DisTrO is measured part by part")
    return spec.optimizer.Distro


def random_body(grids: tuple[Grid, ...], topk: int, seed: int) -> tuple[Signs, ...]:
    """An update that sends `topk` coefficients of every chunk, anywhere: the least that members can agree.

    So it costs the fold the most.
    """
    generator = np.random.default_rng(seed)
    body = []
    for grid in grids:
        kept = min(topk, grid.area)
        # k numbers with repetition, sorted, plus 0 .. k-1: k different numbers
        index_CK = np.sort(generator.integers(0, grid.area - kept + 1, (grid.num_chunks, kept)), axis=1)
        index_CK += np.arange(kept)
        keys = (np.arange(grid.num_chunks)[:, None] * grid.area + index_CK).reshape(-1)
        body.append(Signs(keys, generator.choice(np.array([-1, 1], dtype=np.int8), len(keys))))
    return tuple(body)
