"""Open a checkpoint for inference: of training (full or a slice), an export, or any Hugging Face model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from psyche_train.inference.tokens import Tokens, tokens_of
from psyche_train.matformer.loading import CheckpointError, inferred, read_family
from psyche_train.matformer.stored import read_slice
from psyche_train.models.schema import Schema, TierError


@dataclass(frozen=True, slots=True)
class OpenModel:
    """A model that can be asked."""

    path: Path
    model: nn.Module
    """Called with ``input_ids``; in evaluation mode, its weights are not to be trained."""
    tier: int
    parameters: int
    vocab_size: int
    context: int
    """Tokens that it was trained to see."""
    factor: float
    """What its feed-forward output is multiplied by."""
    is_export: bool
    """An ordinary model of one width."""

    def tokens(self) -> Tokens:
        """The tokenizer that lies with the model.

        Raises:
            ConfigError: there is none.
        """
        return tokens_of(self.path, self.vocab_size)


def open_checkpoint(path: Path, *, tier: int | None, device: torch.device) -> OpenModel:
    """Open the checkpoint in a directory.

    Args:
        tier: of a training checkpoint, one that it holds; None: as wide as it is.

    Raises:
        CheckpointError: it is damaged, or no model that is known here.
        TierError: it does not hold that tier.
    """
    config = _config(path)
    if config.get("matformer_export") or ("matformer_tier" not in config and not tier):
        return _ordinary(path, config, tier, device)
    return _of_training(path, config, tier, device)


def _of_training(path: Path, config: dict[str, Any], tier: int | None, device: torch.device) -> OpenModel:
    family = read_family(path)
    held = int(config.get("matformer_tier", 0))
    asked = held if tier is None else tier
    schema = Schema.of(family, max(asked, held))
    weights = read_slice(inferred(path, schema), schema, asked)
    factor = 2.0 ** (asked * float(config.get("matformer_ffn_rescale", 1.0)))
    model = family.build(family.ffn_width >> asked, weights, device, factor=factor)
    return _opened(path, model, config, asked, factor, is_export=False)


def _ordinary(path: Path, config: dict[str, Any], tier: int | None, device: torch.device) -> OpenModel:
    if tier:
        raise TierError(f"{path} is an export of one width: give no tier, or the checkpoint it was made from")
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            path, local_files_only=True, trust_remote_code=False, dtype=torch.float32, use_safetensors=True
        )
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, SafetensorError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path} cannot be opened as a model: {first}") from error
    return _opened(path, model.to(device), config, int(config.get("matformer_tier", 0)), 1.0, is_export=True)


def _opened(
    path: Path, model: nn.Module, config: dict[str, Any], tier: int, factor: float, *, is_export: bool
) -> OpenModel:
    model.eval().requires_grad_(False)
    vocab_size = int(config["vocab_size"])
    return OpenModel(
        path=path,
        model=model,
        tier=tier,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        vocab_size=vocab_size,
        context=int(config.get("max_position_embeddings") or config.get("max_seq_len") or 1024),
        factor=factor,
        is_export=is_export,
    )


def _config(path: Path) -> dict[str, Any]:
    try:
        config: Any = json.loads((path / "config.json").read_text())
        if not isinstance(config, dict) or not isinstance(config.get("vocab_size"), int):
            raise ValueError("it names no vocab_size")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path / 'config.json'} is not a model's configuration: {error}") from error
    return config
