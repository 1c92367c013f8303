"""The two models of the page, as shapes: what their updates weigh follows from the codecs, nothing is allocated."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from psyche_train.bench.models import bench_spec
from psyche_train.fold.chunks import Grid, grids
from psyche_train.resolve import schema_of
from psyche_train.spec import TrainSpec
from psyche_train.strategies.bits import bytes_of
from psyche_train.strategies.header import MAX_HEADER_BYTES
from psyche_train.strategies.payload import PayloadLayout
from psyche_train.strategies.sparse_payload import SparseCodec

CHUNK: Final = 64
MODELS: Final[dict[str, dict[str, int]]] = {
    "1 B": {
        "hidden_size": 2048,
        "intermediate_size": 5632,
        "num_hidden_layers": 18,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "vocab_size": 32000,
    },
    "40 B": {
        "hidden_size": 8192,
        "intermediate_size": 24576,
        "num_hidden_layers": 53,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "vocab_size": 32000,
    },
}
"""Llama-shaped."""


@dataclass(frozen=True, slots=True)
class Strategy:
    """How members make updates, as the page compares them."""

    name: str
    kind: str
    """`distro` or `sparse`."""
    topk: int
    entropy: bool = False


STRATEGIES: Final = (
    Strategy("DisTrO, k = 4", "distro", 4),
    Strategy("DisTrO, k = 8", "distro", 8),
    Strategy("DisTrO, k = 32", "distro", 32),
    Strategy("SparseLoCo, k = 64", "sparse", 64),
)


@cache
def shape_grids(model: str, tier: int = 0) -> tuple[Grid, ...]:
    """The chunks of a tier of one of `MODELS`.

    Raises:
        KeyError: there is no such model.
    """
    tables: dict[str, Any] = bench_spec("20M").model_dump(exclude_unset=True)
    tables["checkpoint"] = {"Init": {"seed": 1, **MODELS[model]}}
    return grids(schema_of(TrainSpec.model_validate(tables)), tier, CHUNK)


@cache
def parameters(model: str, tier: int = 0) -> int:
    """Weights of a tier."""
    return sum(grid.num_chunks * grid.area for grid in shape_grids(model, tier))


@cache
def update_bytes(model: str, strategy: Strategy, tier: int = 0) -> int:
    """Of an update of which every chunk is full: the longest valid one, less the counts that only others have."""
    tables = shape_grids(model, tier)
    codec: PayloadLayout | SparseCodec
    if strategy.kind == "sparse":
        codec = SparseCodec(tables, strategy.topk)
    else:
        codec = PayloadLayout(tables, strategy.topk, strategy.entropy)
    counts = sum(bytes_of(grid.num_chunks * codec.kept(grid).bit_length()) for grid in tables)
    return codec.max_bytes - counts + MAX_HEADER_BYTES


@cache
def entries(model: str, strategy: Strategy, tier: int = 0) -> int:
    """Coefficients or entries that a full update sends."""
    return sum(grid.num_chunks * min(strategy.topk, grid.area) for grid in shape_grids(model, tier))
