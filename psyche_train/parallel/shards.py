"""Which rank owns which tensors, the same on every rank."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from torch import Tensor

from psyche_train.models.schema import Schema

T = TypeVar("T")


class Shards:
    """A run's tensors, divided among ranks: the largest first, each to the rank that has least.

    Args:
        tier: whose sizes count.
    """

    def __init__(self, schema: Schema, tier: int, ranks: int) -> None:
        sizes = [math.prod(tensor.shape_at(tier)) for tensor in schema.tensors]
        loads, self.places = [0] * ranks, [0] * len(sizes)
        for place in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
            owner = min(range(ranks), key=lambda rank: (loads[rank], rank))
            self.places[place] = owner
            loads[owner] += sizes[place]
        self.names = [tensor.name for tensor in schema.tensors]
        self.owners = dict(zip(self.names, self.places, strict=True))
        """Tensor -> rank, in schema order."""
        self.schemas = tuple(
            replace(
                schema,
                tensors=tuple(tensor for tensor in schema.tensors if self.owners[tensor.name] == rank),
            )
            for rank in range(ranks)
        )
        """Every rank's part of the schema, in schema order."""

    def body_of(self, body: Sequence[T], rank: int) -> tuple[T, ...]:
        """A rank's part of an update's body, which has one entry per tensor."""
        return tuple(entry for entry, owner in zip(body, self.places, strict=True) if owner == rank)

    def joined(self, bodies: Sequence[Sequence[T]]) -> tuple[T, ...]:
        """The inverse of `body_of`, from every rank's part."""
        parts = [iter(body) for body in bodies]
        return tuple(next(parts[owner]) for owner in self.places)

    def state_of(self, flat: Mapping[str, Tensor], rank: int) -> dict[str, Tensor]:
        """A rank's part of tensors named ``kind/.../name``; what belongs to no tensor goes to every rank."""
        return {
            key: value for key, value in flat.items() if self.owners.get(key.rsplit("/", 1)[-1], rank) == rank
        }


Body = tuple[Any, ...]
