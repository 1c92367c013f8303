"""Which family a specification or a checkpoint names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from psyche_train.models.family import ModelError, ModelFamily
from psyche_train.models.hf import HfAuto
from psyche_train.models.llama import HfLlama
from psyche_train.models.nanogpt import MODEL_TYPE, NanoGPT
from psyche_train.spec import InitCheckpoint

_FAMILIES: dict[str, type[HfAuto]] = {family.architecture: family for family in (HfLlama, HfAuto, NanoGPT)}


def fresh_family(architecture: str, init: InitCheckpoint, max_seq_len: int) -> ModelFamily:
    """The family that `[model.LLM.checkpoint.Init]` describes.

    Raises:
        ModelError: it describes no model of the architecture, or one that cannot see a whole sample.
    """
    if init.config is None:
        return HfLlama.of_keys(init, max_seq_len)
    return _reaching(_FAMILIES[architecture].fresh(init.config, max_seq_len), max_seq_len)


def family_of(tables: Mapping[str, Any], architecture: str | None = None) -> HfAuto:
    """The family of a `config.json`, widened to tier 0.

    Args:
        architecture: the specification's; None takes the one that fits.

    Raises:
        ModelError: no family can train such a model.
    """
    if architecture is None:
        own = {"llama": HfLlama.architecture, MODEL_TYPE: NanoGPT.architecture}
        architecture = own.get(str(tables.get("model_type")), HfAuto.architecture)
    return _FAMILIES[architecture].of_checkpoint(tables)


def _reaching(family: HfAuto, max_seq_len: int) -> HfAuto:
    longest = family.max_positions()
    if longest is not None and longest < max_seq_len:
        raise ModelError(f"max_position_embeddings = {longest} is less than max_seq_len = {max_seq_len}")
    return family
