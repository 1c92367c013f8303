"""Bytes of an update per parameter and step, counted as the goal counts them."""

from __future__ import annotations

from dataclasses import dataclass

from psyche_train.bench.models import distro_of, random_body
from psyche_train.fold.chunks import Grid, grids
from psyche_train.resolve import schema_of
from psyche_train.spec import TrainSpec
from psyche_train.strategies.payload import PayloadLayout


@dataclass(frozen=True, slots=True)
class PayloadBytes:
    """Sizes of one full member's update without its header."""

    parameters: int
    body_bytes: int
    """Of all tensors."""
    full_parameters: int
    """Parameters of tensors that are made of full chunks."""
    full_bytes: int
    """Body of an update of these tensors alone."""

    @property
    def per_parameter(self) -> float:
        """Bytes per parameter and step, tensors too small for a full chunk not counted."""
        return self.full_bytes / max(1, self.full_parameters)


def payload_bytes(spec: TrainSpec, topk: int, *, entropy: bool) -> PayloadBytes:
    """Encode an update of random places and count."""
    optimizer = distro_of(spec)
    all_grids = grids(schema_of(spec), 0, optimizer.compression_chunk)
    full = tuple(grid for grid in all_grids if grid.area == optimizer.compression_chunk**2)
    return PayloadBytes(
        _parameters(all_grids),
        _length(all_grids, topk, entropy),
        _parameters(full),
        _length(full, topk, entropy),
    )


def _parameters(chosen: tuple[Grid, ...]) -> int:
    return sum(grid.num_chunks * grid.area for grid in chosen)


def _length(chosen: tuple[Grid, ...], topk: int, entropy: bool) -> int:
    if not chosen:
        return 0
    return len(PayloadLayout(chosen, topk, entropy).encode(random_body(chosen, topk, 0)))
