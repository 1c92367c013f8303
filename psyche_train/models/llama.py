"""Llama through transformers, whole or as a MatFormer slice, with the specification's own keys."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

from transformers import LlamaConfig

from psyche_train.models.family import ModelError
from psyche_train.models.hf import HfAuto
from psyche_train.models.tensors import Constant, Normal, TensorSpec
from psyche_train.spec import InitCheckpoint

_RESIDUAL_OUTPUTS = (".o_proj.weight", ".down_proj.weight")


class HfLlama(HfAuto):
    """`transformers.LlamaForCausalLM`."""

    architecture = "HfLlama"

    def __init__(self, tables: Mapping[str, Any]) -> None:
        if tables.get("model_type") != "llama":
            raise ModelError(f"the model is of type {tables.get('model_type')!r}, not llama: try HfAuto")
        super().__init__(tables)

    @classmethod
    def of_keys(cls, init: InitCheckpoint, max_seq_len: int) -> Self:
        """The family of fresh weights that `[model.LLM.checkpoint.Init]` describes."""
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
