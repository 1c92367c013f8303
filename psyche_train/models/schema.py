"""The parameters of a model in schema order, at every width.

The schema is what all members of a run agree on before they exchange anything: names, full shapes and which
axis a MatFormer slice cuts. Order is by name, as UTF-8 bytes. Tied tensors appear once, under the name that
`named_parameters` gives them first.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

_CUT_ROWS = (".mlp.gate_proj.weight", ".mlp.up_proj.weight", ".mlp.gate_proj.bias", ".mlp.up_proj.bias")
_CUT_COLUMNS = (".mlp.down_proj.weight",)


class TierError(ValueError):
    """A tier that the model's width, the run or a checkpoint cannot serve."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One parameter."""

    name: str
    shape: tuple[int, ...]
    """At full width."""
    cut_axis: int | None
    """Axis of the feed-forward neurons; None for tensors that every tier holds whole."""

    def shape_at(self, tier: int) -> tuple[int, ...]:
        """Shape of tier `tier`'s slice: the first ``1 / 2**tier`` along `cut_axis`."""
        if self.cut_axis is None:
            return self.shape
        sizes = list(self.shape)
        sizes[self.cut_axis] >>= tier
        return tuple(sizes)

    def slice_at(self, tier: int) -> tuple[slice, ...]:
        """Index of tier `tier`'s slice in the full tensor."""
        return tuple(slice(0, size) for size in self.shape_at(tier))


@dataclass(frozen=True, slots=True)
class Schema:
    """All parameters of a run's model."""

    tensors: tuple[TensorSpec, ...]
    max_tier: int
    config: LlamaConfig
    """At full width."""

    @classmethod
    def of(cls, config: LlamaConfig, max_tier: int) -> Schema:
        """Return the schema of a full-width configuration.

        Raises:
            TierError: the feed-forward width does not divide by ``2**max_tier``.
        """
        check_tier(config.intermediate_size, max_tier)
        with torch.device("meta"):
            model = LlamaForCausalLM(config)
        tensors = tuple(
            TensorSpec(name, tuple(parameter.shape), _cut_axis(name))
            for name, parameter in sorted(model.named_parameters(), key=lambda item: item[0].encode())
        )
        return cls(tensors, max_tier, config)

    def num_parameters(self, tier: int = 0) -> int:
        """Number of parameters of a slice, tied ones once."""
        return sum(torch.Size(tensor.shape_at(tier)).numel() for tensor in self.tensors)

    def sha256(self, strategy: Mapping[str, Any]) -> bytes:
        """The schema hash: the same for every tier, because it is taken at full width.

        Args:
            strategy: what the payload's layout depends on besides the shapes (kind, chunk, top-k).
        """
        content = {
            "architecture": "LlamaForCausalLM",
            "max_tier": self.max_tier,
            "tensors": [[tensor.name, list(tensor.shape), tensor.cut_axis] for tensor in self.tensors],
            "strategy": dict(strategy),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).digest()

    def model_sha256(self) -> bytes:
        """Hash of names, full shapes and cut axes: the same for all tiers, runs and strategies of a model."""
        content = [[tensor.name, list(tensor.shape), tensor.cut_axis] for tensor in self.tensors]
        return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).digest()


def check_tier(intermediate_size: int, tier: int) -> None:
    """Refuse a tier that does not divide the feed-forward width.

    Raises:
        TierError: names the tier and the width.
    """
    if tier < 0 or intermediate_size % 2**tier:
        raise TierError(
            f"tier {tier} needs a feed-forward width that divides by {2 ** max(tier, 0)}, "
            f"the model's is {intermediate_size}: choose a lower tier or another width"
        )


def _cut_axis(name: str) -> int | None:
    if name.endswith(_CUT_ROWS):
        return 0
    return 1 if name.endswith(_CUT_COLUMNS) else None
