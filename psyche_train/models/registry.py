"""Which family a specification or a checkpoint names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from psyche_train.models.family import ModelError, ModelFamily
from psyche_train.models.llama import HfLlama
from psyche_train.spec import InitCheckpoint


def fresh_family(init: InitCheckpoint, max_seq_len: int) -> ModelFamily:
    """The family that `[model.LLM.checkpoint.Init]` describes."""
    return HfLlama.fresh(init, max_seq_len)


def family_of(tables: Mapping[str, Any]) -> ModelFamily:
    """The family of a `config.json`, widened to tier 0.

    Raises:
        ModelError: no family can train such a model.
    """
    if tables.get("model_type") != "llama":
        raise ModelError(f"the model is of type {tables.get('model_type')!r}, not llama")
    return HfLlama.of_checkpoint(tables)
