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

from psyche_train.models.family import ModelFamily
from psyche_train.models.tensors import TensorSpec, TierError

__all__ = ["Schema", "TensorSpec", "TierError"]


@dataclass(frozen=True, slots=True)
class Schema:
    """All parameters of a run's model."""

    tensors: tuple[TensorSpec, ...]
    max_tier: int
    family: ModelFamily
    """The architecture at full width."""
    constants: tuple[TensorSpec, ...] = ()
    """What is saved and hashed with the parameters and never trained."""

    @classmethod
    def of(cls, family: ModelFamily, max_tier: int) -> Schema:
        """Return the schema of a family.

        Raises:
            TierError: the feed-forward width does not divide by ``2**max_tier``.
        """
        family.check_tier(max_tier)
        return cls(family.tensors(), max_tier, family, family.constants())

    @property
    def stored(self) -> tuple[TensorSpec, ...]:
        """Everything that a checkpoint holds: the parameters, then the constants."""
        return (*self.tensors, *self.constants)

    def num_parameters(self, tier: int = 0) -> int:
        """Number of parameters of a slice, tied ones once."""
        return sum(torch.Size(tensor.shape_at(tier)).numel() for tensor in self.tensors)

    def sha256(self, strategy: Mapping[str, Any]) -> bytes:
        """The schema hash: the same for every tier, because it is taken at full width.

        Args:
            strategy: what the payload's layout depends on besides the shapes (kind, chunk, top-k).
        """
        content = {
            "architecture": self.family.class_name,
            "max_tier": self.max_tier,
            "tensors": [_described(tensor) for tensor in self.tensors],
            "strategy": dict(strategy),
        }
        if self.constants:
            content["constants"] = [_described(tensor) for tensor in self.constants]
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).digest()

    def model_sha256(self) -> bytes:
        """Hash of class, names, full shapes and cut axes: the same for all tiers, runs and strategies of a model."""
        content = [self.family.class_name, *[_described(tensor) for tensor in self.stored]]
        return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).digest()


def _described(tensor: TensorSpec) -> list[Any]:
    described = [tensor.name, list(tensor.shape), tensor.cut_axis]
    return described if tensor.groups == 1 else [*described, tensor.groups]
