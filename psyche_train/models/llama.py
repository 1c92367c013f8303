"""Llama through transformers, whole or as a MatFormer slice.

A slice is the same model with a smaller `intermediate_size`; what its feed-forward neurons put out is
multiplied by ``2 ** (tier * ffn_rescale)``, so that slice and full model have the same scale.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from psyche_train.models.family import ModelError, ModelFamily
from psyche_train.models.tensors import Constant, Normal, TensorSpec
from psyche_train.spec import InitCheckpoint

_CUT_ROWS = (".mlp.gate_proj.weight", ".mlp.up_proj.weight", ".mlp.gate_proj.bias", ".mlp.up_proj.bias")
_CUT_COLUMNS = (".mlp.down_proj.weight",)
_RESIDUAL_OUTPUTS = (".o_proj.weight", ".down_proj.weight")


class HfLlama(ModelFamily):
    """`transformers.LlamaForCausalLM`."""

    architecture = "HfLlama"

    def __init__(self, tables: Mapping[str, Any]) -> None:
        if tables.get("model_type", "llama") != "llama":
            raise ModelError(f"the model is of type {tables['model_type']!r}, not llama")
        super().__init__({**tables, "use_cache": False})
        self._config = LlamaConfig(**self.tables)

    @classmethod
    def fresh(cls, init: InitCheckpoint, max_seq_len: int) -> Self:
        """The family of fresh weights."""
        config = LlamaConfig(
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
        return cls(config.to_dict())

    @property
    def class_name(self) -> str:
        """The model class, part of the schema hash."""
        return "LlamaForCausalLM"

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding."""
        return int(self._config.vocab_size)

    @property
    def ffn_width(self) -> int:
        """Neurons of a feed-forward layer at full width."""
        return int(self._config.intermediate_size)

    def tensors(self) -> tuple[TensorSpec, ...]:
        """All parameters in schema order, tied ones once."""
        with torch.device("meta"):
            model = LlamaForCausalLM(self._config)
        return tuple(
            TensorSpec(name, tuple(parameter.shape), _cut_axis(name))
            for name, parameter in sorted(model.named_parameters(), key=lambda item: item[0].encode())
        )

    def tables_at(self, width: int) -> dict[str, Any]:
        """The configuration of the same model with `width` feed-forward neurons."""
        return {**self._config.to_dict(), "intermediate_size": width}

    def build(
        self, width: int, weights: Mapping[str, Tensor], device: torch.device, *, factor: float = 1.0
    ) -> nn.Module:
        """Return a model in training mode that holds `weights` as its parameters."""
        with torch.device("meta"):
            model = LlamaForCausalLM(LlamaConfig(**self.tables_at(width)))
        model.config._attn_implementation = "sdpa"
        model.to_empty(device=device)
        rotary = type(model.model.rotary_emb)
        model.model.rotary_emb = rotary(config=model.config).to(device)  # its buffers were on "meta"
        model.tie_weights()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(weights[name])
        if factor != 1.0:
            for layer in model.model.layers:
                layer.mlp.down_proj.register_forward_pre_hook(_Scale(factor))
        model.train()
        return model

    def takes_factor(self, tensor: TensorSpec) -> bool:
        """Whether an export multiplies this tensor by the factor."""
        return tensor.name.endswith(_CUT_COLUMNS)

    def initial(self, tensor: TensorSpec) -> Normal | Constant:
        """Matrices have standard deviation `initializer_range`, those that write into the residual stream
        that divided by sqrt(2 x layers); norms are one, biases zero.
        """
        if len(tensor.shape) == 1:
            return Constant(0.0 if tensor.name.endswith(".bias") else 1.0)
        deviation = float(self._config.initializer_range)
        if tensor.name.endswith(_RESIDUAL_OUTPUTS):
            deviation /= math.sqrt(2 * self._config.num_hidden_layers)
        return Normal(deviation)

    def save_tables(self, tables: Mapping[str, Any], folder: Path) -> None:
        """Write `config.json`."""
        LlamaConfig(**tables).save_pretrained(folder)


class _Scale:
    """Forward pre-hook of a projection: multiplies its input, and so its output without the bias."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, _module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0] * self.factor, *inputs[1:])


def _cut_axis(name: str) -> int | None:
    if name.endswith(_CUT_ROWS):
        return 0
    return 1 if name.endswith(_CUT_COLUMNS) else None
