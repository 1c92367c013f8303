"""Any causal language model of transformers, whole or as a MatFormer slice.

A slice is the same model with smaller feed-forward widths in its configuration. Which tensors that cuts is
found from the model itself (`psyche_train.models.ffn`) and checked against the shapes of the narrower model:
an architecture in which anything else changes with the width, or nothing does, trains at tier 0 only.

Code that comes with a checkpoint is never run, and nothing in a configuration chooses kernels. Dropout is
off: a repeated or resumed step is the same step. All parameters are fp32, whatever a checkpoint holds.
Buffers that are not saved with a model (rotary frequencies) are computed anew; those that are saved (a
router's `e_score_correction_bias`) are constants of the run: in digests and checkpoints, and never trained.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedConfig, PreTrainedModel

from psyche_train.models.family import MATFORMER_KEYS, ModelError, ModelFamily
from psyche_train.models.ffn import Ffn, find_ffns, scale_ffns
from psyche_train.models.tensors import Constant, Normal, TensorSpec

_WIDTHS = (
    "intermediate_size",
    "n_inner",
    "ffn_dim",
    "ffn_hidden_size",
    "moe_intermediate_size",
    "shared_expert_intermediate_size",
    "moe_shared_expert_intermediate_size",
)
"""Keys of a configuration that hold feed-forward widths; the first one there is the model's width."""
_REFUSED = {
    "auto_map": "code that comes with a checkpoint is not run",
    "quantization_config": "training needs whole weights: convert the checkpoint to bf16 or fp32 first",
    "quantization": "training needs whole weights: convert the checkpoint to bf16 or fp32 first",
}
_DROPPED = ("attn_implementation", "experts_implementation", "torch_dtype", "transformers_version")
_ATTENTION_OUTPUTS = (
    ".o_proj.weight",
    ".out_proj.weight",
    "attn.c_proj.weight",
    "attention.dense.weight",
    "self_attn.dense.weight",
)


class HfAuto(ModelFamily):
    """A model that `AutoModelForCausalLM` of the installed transformers knows."""

    architecture = "HfAuto"

    def __init__(self, tables: Mapping[str, Any]) -> None:
        self._config = _config_of(tables)
        self._class = _model_class(self._config)
        super().__init__(self._config.to_dict())

    @classmethod
    def fresh(cls, tables: Mapping[str, Any], max_seq_len: int) -> Self:
        """The family of fresh weights.

        Args:
            tables: `config.json`; the longest position defaults to `max_seq_len`.
        """
        given = _config_of(tables)
        key = given.attribute_map.get("max_position_embeddings", "max_position_embeddings")
        if key in tables or "max_position_embeddings" in tables or not hasattr(given, key):
            return cls(tables)
        return cls({**tables, key: max_seq_len})

    @classmethod
    def of_checkpoint(cls, tables: Mapping[str, Any]) -> Self:
        """The family of a `config.json`, that of a slice widened to tier 0."""
        return cls(widened(tables))

    @property
    def class_name(self) -> str:
        """The model class, part of the schema hash."""
        return self._class.__name__

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding."""
        return int(self._config.vocab_size)

    @property
    def ffn_width(self) -> int:
        """The first of the configuration's feed-forward widths; 0 if it has none."""
        return next(iter(self.widths.values()), 0)

    @property
    def widths(self) -> dict[str, int]:
        """Every feed-forward width of the configuration, under its key."""
        return _widths(self._config.to_dict())

    def width_of(self, tables: Mapping[str, Any]) -> int:
        """The feed-forward width that a `config.json` of this architecture says."""
        return next(iter(_widths(tables).values()), 0)

    def max_positions(self) -> int | None:
        """The longest sequence that the model's position embeddings reach; None if nothing says."""
        longest = getattr(self._config, "max_position_embeddings", None)
        return longest if isinstance(longest, int) else None

    def tensors(self) -> tuple[TensorSpec, ...]:
        """All parameters in schema order, tied ones once."""
        return self._tensors

    def constants(self) -> tuple[TensorSpec, ...]:
        """Saved buffers, in the order of their names."""
        parameters = {name for name, _ in self._skeleton.named_parameters(remove_duplicate=False)}
        saved = {name: value for name, value in self._skeleton.state_dict().items() if name not in parameters}
        other = [name for name, value in saved.items() if not value.is_floating_point()]
        if other:
            raise ModelError(f"{self.class_name} keeps {other[0]}, which is no floating-point tensor")
        return tuple(
            TensorSpec(name, tuple(saved[name].shape), None)
            for name in sorted(saved, key=lambda n: n.encode())
        )

    def cut_problem(self) -> str:
        """Why no slice of this model can be trained; empty if one can."""
        if not self._ffns or not self.widths:
            return f"{self.class_name} has no feed-forward layers of a known form"
        return self._shape_problem()

    def tables_at(self, width: int) -> dict[str, Any]:
        """The configuration of the same model with `width` feed-forward neurons; other widths likewise."""
        tables = self._config.to_dict()
        for key, full in self.widths.items():
            if full * width % self.ffn_width:
                raise ModelError(f"{key} = {full} cannot be cut as {self.ffn_width} to {width}")
            tables[key] = full * width // self.ffn_width
        return tables

    def build(
        self, width: int, weights: Mapping[str, Tensor], device: torch.device, *, factor: float = 1.0
    ) -> nn.Module:
        """Return a model in training mode that holds `weights` as its parameters (and constants)."""
        config = type(self._config)(**(self.tables_at(width) if self.ffn_width else self._config.to_dict()))
        model = self._empty(config)
        model.config._attn_implementation = "sdpa" if getattr(model, "_supports_sdpa", False) else "eager"
        model.to_empty(device=device)
        model.tie_weights()
        for parameter in model.parameters():
            parameter._is_hf_initialized = True  # type: ignore[attr-defined]
        model.initialize_weights()  # type: ignore[no-untyped-call]  # buffers only: parameters are marked
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(weights[name])
            for constant in self.constants():
                model.get_buffer(constant.name).copy_(weights[constant.name])
        if factor != 1.0:
            scale_ffns(model, factor)
        model.train()
        return model

    def takes_factor(self, tensor: TensorSpec) -> bool:
        """Whether an export multiplies this tensor by the factor: the down projections."""
        return tensor.name in self._downs

    def initial(self, tensor: TensorSpec) -> Normal | Constant:
        """As transformers draws it: matrices with the configuration's deviation, vectors as they are set.

        Those that write into the residual stream have the deviation divided by sqrt(2 x layers).
        """
        if tensor in self.constants():
            return Constant(0.0)
        if len(tensor.shape) < 2:
            value = self._vectors.get(tensor.name)
            return Constant(value) if value is not None else Normal(self._deviation)
        layers = getattr(self._config, "num_hidden_layers", 0)
        if layers and (tensor.name in self._downs or tensor.name.endswith(_ATTENTION_OUTPUTS)):
            return Normal(self._deviation / math.sqrt(2 * layers))
        return Normal(self._deviation)

    def save_tables(self, tables: Mapping[str, Any], folder: Path) -> None:
        """Write `config.json`."""
        type(self._config)(**tables).save_pretrained(folder)

    def load_converted(self, path: Path) -> dict[str, Tensor]:
        """Read a checkpoint whose tensors have other names or are apart (one file entry per expert).

        transformers' own loader does it, with the whole model in memory.

        Raises:
            ModelError: it cannot, or a tensor is not in the checkpoint.
        """
        try:
            loaded: Any = self._class.from_pretrained(
                path,
                dtype=torch.float32,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
            )
        except Exception as error:  # whatever the library raises for files that it cannot read
            raise ModelError(f"{path} cannot be loaded by transformers: {error}") from error
        model, report = loaded
        missing = sorted(report["missing_keys"])
        if missing:
            raise ModelError(f"{path} lacks {missing[0]}")
        state = model.state_dict()
        wanted = (*self.tensors(), *self.constants())
        return {tensor.name: state[tensor.name].detach().to(torch.float32) for tensor in wanted}

    @cached_property
    def _skeleton(self) -> PreTrainedModel:
        """The full model without values."""
        return self._empty(self._config)

    @cached_property
    def _ffns(self) -> list[Ffn]:
        return find_ffns(self._skeleton)

    @cached_property
    def _downs(self) -> frozenset[str]:
        return frozenset(ffn.down for ffn in self._ffns)

    @cached_property
    def _tensors(self) -> tuple[TensorSpec, ...]:
        cuts: dict[str, tuple[int, int]] = {}
        if self.widths:
            cuts = {name: cut for ffn in self._ffns for name, cut in ffn.cuts.items()}
        named = sorted(self._skeleton.named_parameters(), key=lambda item: item[0].encode())
        return tuple(
            TensorSpec(name, tuple(parameter.shape), *cuts.get(name, (None, 1))) for name, parameter in named
        )

    @property
    def _deviation(self) -> float:
        for key in ("initializer_range", "init_std"):
            value = getattr(self._config, key, None)
            if isinstance(value, int | float):
                return float(value)
        return 0.02

    @cached_property
    def _vectors(self) -> dict[str, float]:
        """The value that transformers gives each parameter of one dimension, where it is one value."""
        model = self._empty(self._config)
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if parameter.dim() < 2:
                    setattr(module, name, nn.Parameter(torch.full(parameter.shape, math.nan)))
        model.initialize_weights()  # type: ignore[no-untyped-call]
        values: dict[str, float] = {}
        for name, parameter in model.named_parameters():
            if parameter.dim() < 2:
                first = float(parameter.detach().flatten()[0])
                if math.isnan(first):  # set by a constructor: transformers leaves it alone
                    values[name] = 0.0 if name.endswith("bias") else 1.0
                elif bool((parameter == first).all()):
                    values[name] = first
        return values

    def _empty(self, config: PreTrainedConfig) -> PreTrainedModel:
        try:
            with torch.device("meta"):
                model: PreTrainedModel = self._class(config)
        except Exception as error:  # whatever a model's constructor makes of such a configuration
            raise ModelError(f"{self._class.__name__} cannot be built: {error!r}") from error
        return model

    def _shape_problem(self) -> str:
        """Compare with the model of half the width: exactly the known tensors must be halved."""
        if any(width % 2 for width in self.widths.values()):
            return ""  # only tier 0 divides anyway
        narrow = self._empty(type(self._config)(**self.tables_at(self.ffn_width // 2)))
        shapes = {name: tuple(parameter.shape) for name, parameter in narrow.named_parameters()}
        for tensor in self.tensors():
            if shapes.get(tensor.name) != tensor.shape_at(1):
                return (
                    f"{self.class_name}: at half the feed-forward width {tensor.name} has shape "
                    f"{shapes.get(tensor.name)}, not {tensor.shape_at(1)}"
                )
        return ""


def widened(tables: Mapping[str, Any]) -> dict[str, Any]:
    """A slice's `config.json` without its metadata and with the full model's feed-forward widths.

    Raises:
        ModelError: its width and that of the full model do not belong together.
    """
    full = {key: value for key, value in tables.items() if key not in MATFORMER_KEYS}
    widths, base = _widths(full), tables.get("matformer_base_intermediate_size")
    width = next(iter(widths.values()), 0)
    if base is None or base == width:
        return full
    if not isinstance(base, int) or not width or base % width:
        raise ModelError(f"a feed-forward width of {width} cannot be a slice of {base!r}")
    return {**full, **{key: value * (base // width) for key, value in widths.items()}}


def _config_of(tables: Mapping[str, Any]) -> PreTrainedConfig:
    for key, reason in _REFUSED.items():
        if tables.get(key):
            raise ModelError(f"the configuration has {key}: {reason}")
    kind = tables.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise ModelError(f"model_type = {kind!r} is none that the installed transformers knows")
    kept = {key: value for key, value in tables.items() if key not in _DROPPED and not key.startswith("_")}
    for key in [key for key in kept if key.endswith(("dropout", "pdrop"))]:
        kept[key] = 0.0
    kept |= {"use_cache": False, "dtype": "float32"}
    try:
        config: PreTrainedConfig = CONFIG_MAPPING[kind](**kept)
        off = {
            key: 0.0
            for key, value in config.to_dict().items()
            if key.endswith(("dropout", "pdrop")) and value
        }
        return CONFIG_MAPPING[kind](**{**kept, **off}) if off else config
    except Exception as error:  # every configuration class has its own checks
        raise ModelError(f"the configuration does not fit model_type {kind}: {error}") from error


def _model_class(config: PreTrainedConfig) -> type[PreTrainedModel]:
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ModelError(f"transformers has no causal language model of type {config.model_type!r}")
    found: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    if not isinstance(getattr(config, "vocab_size", None), int):
        raise ModelError(f"a model of type {config.model_type!r} has no vocab_size of its own: text only")
    model_class: type[PreTrainedModel] = found[0] if isinstance(found, tuple | list) else found
    return model_class


def _widths(tables: Mapping[str, Any]) -> dict[str, int]:
    widths = {
        key: tables[key]
        for key in _WIDTHS
        if isinstance(tables.get(key), int) and not isinstance(tables[key], bool) and tables[key] > 0
    }
    if "n_inner" in tables and tables["n_inner"] is None and isinstance(tables.get("n_embd"), int):
        widths["n_inner"] = 4 * tables["n_embd"]  # what GPT-2 and GPT-J make of it
    return {key: widths[key] for key in _WIDTHS if key in widths}
