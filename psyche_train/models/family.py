"""What the engine asks of a model, whatever its architecture.

A family is one architecture with one full-width configuration. It knows the parameters and which part of
each a MatFormer slice holds, builds the model at a width, multiplies the output of its feed-forward layers,
and says how that factor is folded into an export and how fresh weights are drawn. `Schema.family` is the
run's; `psyche_train.models.registry` finds the family of a specification or a checkpoint.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from psyche_train.models.tensors import Constant, Normal, TensorSpec, TierError

MATFORMER_KEYS = ("matformer_base_intermediate_size", "matformer_tier", "matformer_ffn_rescale")
"""What the `config.json` of a checkpoint says about its slice, besides the architecture's own keys."""


class ModelFamily(ABC):
    """One architecture at one full-width configuration.

    Args:
        tables: `config.json` at full width, without `MATFORMER_KEYS`.

    Raises:
        ModelError: it is not a configuration of this architecture.
    """

    architecture: ClassVar[str]
    """Name in the specification, as "HfLlama"."""

    def __init__(self, tables: Mapping[str, Any]) -> None:
        self.tables: Mapping[str, Any] = dict(tables)

    @classmethod
    @abstractmethod
    def of_checkpoint(cls, tables: Mapping[str, Any]) -> Self:
        """Return the family of a `config.json`, that of a slice widened to tier 0.

        Raises:
            ModelError: it is not a configuration of this architecture.
        """

    @property
    @abstractmethod
    def class_name(self) -> str:
        """The model class, part of the schema hash."""

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Rows of the embedding."""

    @property
    @abstractmethod
    def ffn_width(self) -> int:
        """Neurons of a feed-forward layer at full width; 0 if there is no such number."""

    @property
    @abstractmethod
    def widths(self) -> Mapping[str, int]:
        """Every feed-forward width of the configuration, under its key; tiers must divide them all."""

    @abstractmethod
    def width_of(self, tables: Mapping[str, Any]) -> int:
        """The feed-forward width that a `config.json` of this architecture says; 0 if it says none."""

    @abstractmethod
    def cut_problem(self) -> str:
        """Why no slice of this model can be trained; empty if one can."""

    @abstractmethod
    def tensors(self) -> tuple[TensorSpec, ...]:
        """All parameters in schema order (by name, as UTF-8 bytes), tied ones once."""

    def constants(self) -> tuple[TensorSpec, ...]:
        """Values that are saved with the model and never trained; every tier has them whole."""
        return ()

    def load_converted(self, path: Path) -> dict[str, Tensor]:
        """Read a checkpoint whose tensors are stored under other names than the model's.

        Returns:
            ``name -> fp32 CPU tensor`` of all parameters and constants, at the checkpoint's width.

        Raises:
            ModelError: there is no way to.
        """
        raise ModelError(f"{path} does not hold the tensors of {self.class_name}")

    @abstractmethod
    def tables_at(self, width: int) -> dict[str, Any]:
        """The configuration of the same model with `width` feed-forward neurons, without metadata."""

    @abstractmethod
    def build(
        self, width: int, weights: Mapping[str, Tensor], device: torch.device, *, factor: float = 1.0
    ) -> nn.Module:
        """Return a model in training mode that holds `weights` as its parameters.

        Args:
            width: feed-forward neurons, as in `tables_at`.
            weights: ``name -> fp32`` at that width, tied tensors once, and `constants`; copied.
            factor: what the neurons of a feed-forward layer put out is multiplied by it; an output bias,
                which every width has whole, is not.
        """

    @abstractmethod
    def takes_factor(self, tensor: TensorSpec) -> bool:
        """Whether an export multiplies this tensor by the factor, so that it needs none at run time."""

    @abstractmethod
    def initial(self, tensor: TensorSpec) -> Normal | Constant:
        """How a parameter of a fresh model is drawn."""

    @abstractmethod
    def save_tables(self, tables: Mapping[str, Any], folder: Path) -> None:
        """Write `config.json` as the architecture's own library does."""

    def tables_of_tier(self, tier: int, ffn_rescale: float) -> dict[str, Any]:
        """The configuration that a slice's checkpoint carries: that of its width, with the metadata."""
        self.check_tier(tier)
        values = (self.ffn_width, tier, ffn_rescale)
        return {**self.tables_at(self.ffn_width >> tier), **dict(zip(MATFORMER_KEYS, values, strict=True))}

    def check_tier(self, tier: int) -> None:
        """Refuse a tier that does not divide the feed-forward width.

        Raises:
            TierError: names the tier and the width.
        """
        if tier == 0:
            return
        if problem := self.cut_problem():
            raise TierError(f"{problem}: only tier 0 can train this model; set matformer.max_tier = 0")
        for key, width in self.widths.items():
            if tier < 0 or width % 2**tier:
                raise TierError(
                    f"tier {tier} needs a feed-forward width that divides by {2 ** max(tier, 0)}, "
                    f"the model's {key} is {width}: choose a lower tier or another width"
                )


class ModelError(ValueError):
    """A configuration that no model can be built from."""
