"""A small GPT of our own with the switches that paid in the modded-nanoGPT speed runs.

After https://github.com/KellerJordan/modded-nanogpt: rotary positions, QK-norm, RMSNorm without weights,
squared ReLU, zero-initialised projections, value residual, value embeddings, the embedding fed to every
layer, U-net skips, logit soft-cap, untied head; each a switch. Departures: fp32 parameters, one scalar per
mix instead of two, a tanh soft-cap.

It is a transformers model of type `psyche_nanogpt`, so checkpoints have the usual layout.
`AutoModelForCausalLM` opens them once `psyche_train.models.nanogpt` is imported; without that import
transformers does not know the type.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import CausalLMOutput

from psyche_train.models.family import ModelError
from psyche_train.models.hf import HfAuto
from psyche_train.models.tensors import Constant, Normal, TensorSpec

# Shape letters: B = batch, S = sequence, H = heads, D = head size, E = hidden size.

MODEL_TYPE = "psyche_nanogpt"


class NanoGPTConfig(PreTrainedConfig):  # type: ignore[no-untyped-call]
    """Sizes and switches; the defaults are the speed runs' where they are not sizes."""

    model_type = MODEL_TYPE

    vocab_size: int = 256
    hidden_size: int = 128
    intermediate_size: int = 512
    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    max_position_embeddings: int = 128
    initializer_range: float = 0.02
    rotary: bool = True
    """Rotary positions; False: a learned embedding."""
    rope_theta: float = 10_000.0
    qk_norm: bool = True
    activation: str = "relu2"
    """"relu2", "gelu" or "silu"."""
    norm_weights: bool = False
    zero_init: bool = True
    """The projections into the residual stream begin at zero."""
    value_residual: bool = True
    """Every layer's values are mixed with the first layer's."""
    value_embeddings: bool = False
    """A second embedding of the tokens is added to the values of the first and last layer."""
    input_residual: bool = True
    """Every layer also sees the embedding."""
    skips: bool = False
    """The second half of the layers adds what the first half put out, last to first."""
    logit_softcap: float = 0.0
    """Logits are kept within this bound by a tanh; 0: off."""
    tie_word_embeddings: bool = False


class NanoGPT(HfAuto):
    """The family of `NanoGPTForCausalLM`."""

    architecture = "NanoGPT"

    def __init__(self, tables: Mapping[str, Any]) -> None:
        kind = tables.get("model_type", MODEL_TYPE)
        if kind != MODEL_TYPE:
            raise ModelError(f"the model is of type {kind!r}, not {MODEL_TYPE}: try HfAuto")
        super().__init__({**tables, "model_type": MODEL_TYPE, "architectures": ["NanoGPTForCausalLM"]})

    @classmethod
    def fresh(cls, tables: Mapping[str, Any], max_seq_len: int) -> Self:
        """The family of fresh weights.

        Raises:
            ModelError: an unknown key, a value of the wrong kind, or sizes that do not fit.
        """
        tables = {"max_position_embeddings": max_seq_len, **tables}
        _check(tables)
        return cls(tables)

    def initial(self, tensor: TensorSpec) -> Normal | Constant:
        """Matrices by `initializer_range`; projections into the residual stream zero, or divided by
        sqrt(2 x layers); mixes as `_mix` says.
        """
        if len(tensor.shape) < 2:
            return Constant(_vector(tensor.name))
        config = self._config
        if tensor.name.endswith((".o_proj.weight", ".down_proj.weight")):
            if config.zero_init:
                return Constant(0.0)
            return Normal(config.initializer_range / math.sqrt(2 * config.num_hidden_layers))
        return Normal(float(config.initializer_range))


def _vector(name: str) -> float:
    """First value of a one-dimensional parameter."""
    if name.endswith(".value_mix"):
        return 0.5
    return 0.0 if name.endswith((".input_mix", ".skip_mix")) else 1.0


def _check(tables: Mapping[str, Any]) -> None:
    defaults = {
        name: getattr(NanoGPTConfig, name) for name in NanoGPTConfig.__annotations__ if name != "model_type"
    }
    for key, value in tables.items():
        if key == "model_type":
            continue
        if key not in defaults:
            raise ModelError(f"config.{key} is no key of NanoGPT; it has {', '.join(sorted(defaults))}")
        kinds = (int, float) if isinstance(defaults[key], float) else type(defaults[key])
        if not isinstance(value, kinds) or isinstance(value, bool) != isinstance(defaults[key], bool):
            raise ModelError(f"config.{key} = {value!r} is not of the kind of {defaults[key]!r}")
    sizes = {**defaults, **tables}
    for key in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"):
        if not 1 <= sizes[key] <= 2**24:
            raise ModelError(f"config.{key} = {sizes[key]} is outside 1..{2**24}")
    if sizes["hidden_size"] % (2 * sizes["num_attention_heads"]):
        raise ModelError(
            f"config.hidden_size = {sizes['hidden_size']} must divide by 2 x num_attention_heads = "
            f"{2 * sizes['num_attention_heads']} (rotary embeddings pair the entries of a head)"
        )
    if sizes["activation"] not in _ACTIVATIONS:
        raise ModelError(f"config.activation = {sizes['activation']!r}: choose {', '.join(_ACTIVATIONS)}")
    if sizes["initializer_range"] <= 0 or sizes["rope_theta"] <= 0 or sizes["logit_softcap"] < 0:
        raise ModelError(
            "config.initializer_range and rope_theta must be above zero, logit_softcap not below"
        )


def _relu2(x: Tensor) -> Tensor:
    return F.relu(x).square()


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"relu2": _relu2, "gelu": F.gelu, "silu": F.silu}


class _Norm(nn.Module):
    """RMSNorm, with a weight or without."""

    def __init__(self, config: NanoGPTConfig, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size)) if config.norm_weights else None

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), None if self.weight is None else self.weight.to(x.dtype))


class _Mlp(nn.Module):
    def __init__(self, config: NanoGPTConfig) -> None:
        super().__init__()
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)
        self.activation = _ACTIVATIONS[config.activation]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(self.activation(self.up_proj(x)))
        return out


class _Attention(nn.Module):
    def __init__(self, config: NanoGPTConfig, layer: int) -> None:
        super().__init__()
        self.heads, self.qk_norm = config.num_attention_heads, config.qk_norm
        size = config.hidden_size
        self.q_proj = nn.Linear(size, size, bias=False)
        self.k_proj = nn.Linear(size, size, bias=False)
        self.v_proj = nn.Linear(size, size, bias=False)
        self.o_proj = nn.Linear(size, size, bias=False)
        self.value_mix = nn.Parameter(torch.full((1,), 0.5)) if config.value_residual and layer else None

    def forward(
        self,
        x_BSE: Tensor,
        rotation: tuple[Tensor, Tensor] | None,
        first_values: Tensor | None,
        added_values: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Return the output and this layer's own values, ``[B, H, S, D]``."""
        split = (*x_BSE.shape[:2], self.heads, -1)
        q, k, v = (
            projection(x_BSE).view(split).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        if added_values is not None:
            v = v + added_values.view(split).transpose(1, 2)
        own = v
        if self.value_mix is not None and first_values is not None:
            v = v + self.value_mix.to(v.dtype) * (first_values - v)
        if self.qk_norm:
            q, k = F.rms_norm(q, (q.shape[-1],)), F.rms_norm(k, (k.shape[-1],))
        if rotation is not None:
            q, k = _rotate(q, *rotation), _rotate(k, *rotation)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.o_proj(out.transpose(1, 2).flatten(2)), own


class _Block(GradientCheckpointingLayer):  # type: ignore[no-untyped-call]
    def __init__(self, config: NanoGPTConfig, layer: int) -> None:
        super().__init__()
        self.attention = _Attention(config, layer)
        self.mlp = _Mlp(config)
        self.attention_norm = _Norm(config, config.hidden_size)
        self.mlp_norm = _Norm(config, config.hidden_size)
        self.input_mix = nn.Parameter(torch.zeros(1)) if config.input_residual and layer else None
        late = config.skips and layer >= (config.num_hidden_layers + 1) // 2
        self.skip_mix = nn.Parameter(torch.zeros(1)) if late else None

    def forward(
        self,
        x_BSE: Tensor,
        embedded_BSE: Tensor,
        skipped: Tensor | None,
        rotation: tuple[Tensor, Tensor] | None,
        first_values: Tensor | None,
        added_values: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        if self.skip_mix is not None and skipped is not None:
            x_BSE = x_BSE + self.skip_mix.to(x_BSE.dtype) * skipped
        if self.input_mix is not None:
            x_BSE = x_BSE + self.input_mix.to(x_BSE.dtype) * embedded_BSE
        attended, values = self.attention(self.attention_norm(x_BSE), rotation, first_values, added_values)
        x_BSE = x_BSE + attended
        return x_BSE + self.mlp(self.mlp_norm(x_BSE)), values


class NanoGPTForCausalLM(PreTrainedModel, GenerationMixin):  # type: ignore[no-untyped-call]
    """The model; sequences are whole and unpadded, and there is no key-value cache."""

    config_class = NanoGPTConfig
    _supports_sdpa = True
    supports_gradient_checkpointing = True
    _tied_weights_keys = {"lm_head.weight": "embed_tokens.weight"}  # noqa: RUF012 - transformers names it so

    def __init__(self, config: NanoGPTConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.embed_positions = (
            None if config.rotary else nn.Embedding(config.max_position_embeddings, config.hidden_size)
        )
        self.embed_values = (
            nn.Embedding(config.vocab_size, config.hidden_size) if config.value_embeddings else None
        )
        self.layers = nn.ModuleList([_Block(config, layer) for layer in range(config.num_hidden_layers)])
        self.embed_norm = _Norm(config, config.hidden_size)
        self.norm = _Norm(config, config.hidden_size)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()  # type: ignore[no-untyped-call]

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: fresh weights come from the run's generator, see `NanoGPT.initial`."""

    def get_input_embeddings(self) -> nn.Module:
        """The embedding of the tokens."""
        return self.embed_tokens

    def get_output_embeddings(self) -> nn.Module:
        """The head."""
        head: nn.Module = self.lm_head
        return head

    def forward(
        self, input_ids: Tensor, labels: Tensor | None = None, attention_mask: Tensor | None = None, **_: Any
    ) -> CausalLMOutput:
        """Return logits ``[B, S, vocabulary]`` in fp32, and the loss if `labels` are given.

        Raises:
            ValueError: the sequences are padded.
        """
        if attention_mask is not None and not self.training and not bool(attention_mask.all()):
            raise ValueError("NanoGPT takes no padded sequences: give them one by one")
        x_BSE = self.embed_tokens(input_ids)
        rotation = None
        if self.embed_positions is not None:
            x_BSE = x_BSE + self.embed_positions(torch.arange(input_ids.shape[1], device=input_ids.device))
        else:
            rotation = self._rotation(input_ids.shape[1], x_BSE)
        x_BSE = embedded_BSE = self.embed_norm(x_BSE)
        added = None if self.embed_values is None else self.embed_values(input_ids)
        first_values, last = None, len(self.layers) - 1
        outputs: list[Tensor] = []
        for layer, block in enumerate(self.layers):
            skipped = outputs[last - layer] if last - layer < len(outputs) else None
            x_BSE, values = block(
                x_BSE, embedded_BSE, skipped, rotation, first_values, added if layer in (0, last) else None
            )
            outputs.append(x_BSE)
            first_values = values if first_values is None else first_values
        logits = self.lm_head(self.norm(x_BSE)).float()
        if cap := self.config.logit_softcap:
            logits = cap * torch.tanh(logits / cap)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return CausalLMOutput(loss=loss, logits=logits)

    def prepare_inputs_for_generation(  # type: ignore[override]
        self, input_ids: Tensor, **_: Any
    ) -> dict[str, Any]:
        """Every step sees the whole sequence."""
        return {"input_ids": input_ids[:, -self.config.max_position_embeddings :]}

    def _rotation(self, length: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines ``[S, D / 2]``; computed each time, so that no buffer has to be kept."""
        half = self.config.hidden_size // self.config.num_attention_heads // 2
        steps = torch.arange(half, dtype=torch.float32, device=like.device) / half
        angles = torch.outer(
            torch.arange(length, dtype=torch.float32, device=like.device), self.config.rope_theta**-steps
        )
        return angles.cos().to(like.dtype), angles.sin().to(like.dtype)


def _rotate(x_BHSD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    left, right = x_BHSD.chunk(2, dim=-1)
    return torch.cat([left * cos + right * sin, right * cos - left * sin], dim=-1).to(x_BHSD.dtype)


AutoConfig.register(MODEL_TYPE, NanoGPTConfig)
AutoModelForCausalLM.register(NanoGPTConfig, NanoGPTForCausalLM)
