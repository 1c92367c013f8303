"""Llama through transformers, whole or as a MatFormer slice.

A slice is the same model with a smaller `intermediate_size`; the output of its feed-forward layers is
multiplied by ``2 ** (tier * ffn_rescale)``, so that slice and full model put out the same scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from psyche_train.models.schema import check_tier
from psyche_train.spec import InitCheckpoint


def config_of(init: InitCheckpoint, max_seq_len: int) -> LlamaConfig:
    """The full-width transformers configuration of fresh weights."""
    return LlamaConfig(
        vocab_size=init.vocab_size,
        hidden_size=init.hidden_size,
        intermediate_size=init.intermediate_size,
        num_hidden_layers=init.num_hidden_layers,
        num_attention_heads=init.num_attention_heads,
        num_key_value_heads=init.num_key_value_heads,
        head_dim=init.hidden_size // init.num_attention_heads,
        max_position_embeddings=max_seq_len,
        rms_norm_eps=init.rms_norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": init.rope_theta},
        tie_word_embeddings=init.tie_word_embeddings,
        initializer_range=init.initializer_range,
        use_cache=False,
        bos_token_id=None,
        eos_token_id=None,
        architectures=["LlamaForCausalLM"],
        dtype="float32",
    )


def slice_config(config: LlamaConfig, tier: int, ffn_rescale: float) -> LlamaConfig:
    """The configuration of one tier's slice, with the metadata that its checkpoints carry.

    Args:
        config: at full width.
    """
    check_tier(config.intermediate_size, tier)
    tables: dict[str, Any] = config.to_dict()
    tables["matformer_base_intermediate_size"] = config.intermediate_size
    tables["matformer_tier"] = tier
    tables["matformer_ffn_rescale"] = ffn_rescale
    tables["intermediate_size"] = config.intermediate_size >> tier
    return LlamaConfig(**tables)


def build_model(config: LlamaConfig, weights: Mapping[str, Tensor], device: torch.device) -> LlamaForCausalLM:
    """Return a model that holds `weights` (fp32, at the configuration's width) as its parameters.

    Args:
        config: as `slice_config` returns it.
        weights: ``name -> tensor``, tied tensors once.
    """
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    model.config._attn_implementation = "sdpa"
    model.to_empty(device=device)
    rotary = type(model.model.rotary_emb)
    model.model.rotary_emb = rotary(config=model.config).to(device)  # its buffers were on "meta"
    model.tie_weights()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])
    factor = 2.0 ** (config.matformer_tier * config.matformer_ffn_rescale)
    if factor != 1.0:
        for layer in model.model.layers:
            layer.mlp.register_forward_hook(_Scale(factor))
    model.train()
    return model


class _Scale:
    """Forward hook that multiplies a module's output by a constant."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, _module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output * self.factor
