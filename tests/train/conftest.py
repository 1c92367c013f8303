"""Small runs for the tests: a model of some thousand parameters on invented tokens, one thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from psyche_train.spec import TrainSpec

torch.set_num_threads(1)


def tables(**changes: Any) -> dict[str, Any]:
    """`[model.LLM]` of a tiny run; `changes` replace whole tables."""
    return {
        "max_seq_len": 16,
        "checkpoint": {
            "Init": {
                "seed": 7,
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 1,
                "vocab_size": 160,
                "tie_word_embeddings": False,
            }
        },
        "data_location": {"Dummy": {"num_tokens": 100_000}},
        "lr_schedule": {"Constant": {"base_lr": 0.004}},
        "optimizer": {"Distro": {"compression_chunk": 16, "compression_topk": 4, "weight_decay": 0.1}},
        "matformer": {"max_tier": 2},
        **changes,
    }


@pytest.fixture
def make_spec() -> Callable[..., TrainSpec]:
    """Return a function that makes a tiny specification with some tables replaced."""

    def make(**changes: Any) -> TrainSpec:
        return TrainSpec.model_validate(tables(**changes))

    return make


@pytest.fixture
def spec() -> TrainSpec:
    """The tiny specification."""
    return TrainSpec.model_validate(tables())
