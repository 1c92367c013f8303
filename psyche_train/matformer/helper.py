"""Helper mode: a member of a tier above 0 also trains a changing sample of the neurons outside its slice.

The sample consists of whole blocks of neurons, a block being as wide as the chunks of the fold along the
axis that slices cut. All members of a tier train the same blocks of a layer in the same round; every member
computes them with integers and SHA-256 alone from the spec hash, the tier, the layer and the rotation:

    rotation   the round's epoch, or with `helper_rotation_rounds` its number divided by that
    cycle      rotation div ceil(m / k), with m blocks outside the slice and k of them sampled
    order      the m blocks, ascending by SHA-256("psyche-helper-v1" | spec hash 32 B | tier u8 | layer u32 |
               cycle u64 | block u32), little-endian; block 0 is the layer's first neurons
    sample     places j k ... j k + k - 1 modulo m of that order, with j = rotation mod ceil(m / k)

So the sample is as large in every round, and every block has been trained once a cycle is over. A helper
folds the full model, because what it samples next must be current; it trains at the width of slice and
sample.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable
from functools import lru_cache

from psyche_train.checkpoints.errors import CheckpointError
from psyche_train.fold.chunks import Grid, edge_of, grids
from psyche_train.models.schema import Schema, TierError
from psyche_train.spec import TrainSpec

_KEY = struct.Struct("<BIQI")


class Helper:
    """Which blocks of neurons members train, for every tier and round of a run.

    Args:
        spec_hash: 32 bytes.
        fraction: `helper_fraction`, above 0; k is ``floor(fraction * m + 1/2)``.
        rotation_rounds: `helper_rotation_rounds`.
        compression_chunk: longest edge of a chunk.

    Raises:
        TierError: some tier's sample has no block; says what would give one.
    """

    def __init__(
        self,
        schema: Schema,
        spec_hash: bytes,
        *,
        fraction: float,
        rotation_rounds: int,
        compression_chunk: int,
    ) -> None:
        self.schema = schema
        self.fraction = fraction
        self.rotation_rounds = rotation_rounds
        self._spec_hash = spec_hash
        self._chunk = compression_chunk
        width = schema.family.ffn_width
        self.edge = _edge(schema, compression_chunk)
        """Neurons of a block."""
        self.num_blocks = width // self.edge
        """Blocks of a layer at full width."""
        for tier in range(1, schema.max_tier + 1):
            if self.num_sampled(tier) == 0:
                outside = self.num_blocks - self.num_own(tier)
                raise TierError(
                    f"matformer.helper_fraction = {fraction} of the {outside} blocks of {self.edge} neurons "
                    f"outside tier {tier} is not one block: raise it to at least {0.5 / outside:.3g}, lower "
                    "optimizer's compression_chunk, or set it to 0"
                )
        self.grids: Callable[[int, int], tuple[Grid, ...]] = lru_cache(maxsize=16)(self._grids)
        """``(tier, rotation) -> grids`` of what a member of a tier trains, in schema order."""

    def rotation(self, epoch: int, round_number: int) -> int:
        """The number of the sample that a round's members train."""
        return round_number // self.rotation_rounds if self.rotation_rounds else epoch

    def num_own(self, tier: int) -> int:
        """Blocks of a layer that belong to the tier's slice."""
        return self.num_blocks >> tier

    def num_sampled(self, tier: int) -> int:
        """Blocks of a layer that a member samples besides; 0 at tier 0."""
        return int(self.fraction * (self.num_blocks - self.num_own(tier)) + 0.5)

    def width(self, tier: int) -> int:
        """Neurons of a layer that a member trains."""
        return self.edge * (self.num_own(tier) + self.num_sampled(tier))

    def sample(self, tier: int, layer: int, rotation: int) -> tuple[int, ...]:
        """The blocks outside the slice that a layer's members of a tier train, ascending."""
        first, num_sampled = self.num_own(tier), self.num_sampled(tier)
        outside = self.num_blocks - first
        if num_sampled == 0:
            return ()
        cycle, turn = divmod(rotation, -(-outside // num_sampled))
        prefix = b"psyche-helper-v1" + self._spec_hash

        def key(block: int) -> bytes:
            return hashlib.sha256(prefix + _KEY.pack(tier, layer, cycle, block)).digest()

        order = sorted(range(first, self.num_blocks), key=key)
        start = turn * num_sampled
        return tuple(sorted(order[(start + i) % outside] for i in range(num_sampled)))

    def held(self, tier: int, layer: int, rotation: int) -> tuple[int, ...]:
        """All blocks that a layer's members of a tier train, ascending: the slice, then the sample."""
        return tuple(range(self.num_own(tier))) + self.sample(tier, layer, rotation)

    def _grids(self, tier: int, rotation: int) -> tuple[Grid, ...]:
        if tier == 0:
            return grids(self.schema, 0, self._chunk)
        held: dict[int, tuple[int, ...]] = {}
        cut = [tensor for tensor in self.schema.tensors if tensor.cut_axis is not None]
        for tensor in cut:
            layer = layer_of(tensor.name)
            if layer not in held:
                held[layer] = self.held(tier, layer, rotation)
        by_name = {tensor.name: held[layer_of(tensor.name)] for tensor in cut}
        return grids(self.schema, tier, self._chunk, by_name)


class Shares:
    """What members of every tier hold, and what their updates cover, as chunk grids.

    Without helper mode both are the tier's slice. With it, members of tiers above 0 hold everything, and their
    updates cover slice and sample.

    Raises:
        TierError: helper mode does not fit the model, see `Helper`.
    """

    def __init__(self, spec: TrainSpec, schema: Schema) -> None:
        self._spec = spec
        self.helper = helper_of(spec, schema)
        chunk = spec.optimizer.chosen.compression_chunk
        self._slices = tuple(grids(schema, tier, chunk) for tier in range(schema.max_tier + 1))

    @property
    def layout(self) -> dict[str, list[int]]:
        """What the size of an update depends on besides the shapes: blocks sampled per tier, if any are."""
        if self.helper is None:
            return {}
        return {"helper": [self.helper.num_sampled(tier) for tier in range(len(self._slices))]}

    def held_tier(self, tier: int) -> int:
        """The tier whose slice a member holds: 0 for a helper."""
        return held_tier(self._spec, tier)

    def num_trained(self, tier: int) -> int:
        """Parameters that a member's updates cover."""
        return sum(math.prod(grid.shape) for grid in self.trained(tier, 0, 0))

    def own(self, tier: int) -> tuple[Grid, ...]:
        """Grids of a tier's slice, in schema order."""
        return self._slices[tier]

    def held(self, tier: int) -> tuple[Grid, ...]:
        """Grids of what a member folds, in schema order."""
        return self._slices[self.held_tier(tier)]

    def trained(self, tier: int, epoch: int, round_number: int) -> tuple[Grid, ...]:
        """Grids of what a member's update of a round covers; equal in size in every round."""
        if self.helper is None or tier == 0:
            return self._slices[tier]
        return self.helper.grids(tier, self.helper.rotation(epoch, round_number))


def held_tier(spec: TrainSpec, tier: int) -> int:
    """The tier whose slice a member of a run holds: its own, and 0 in helper mode."""
    return 0 if spec.matformer.helper_fraction > 0 else tier


def check_slices_do(spec: TrainSpec, tier: int, found: str) -> None:
    """Refuse a slice where a member holds the full model.

    Args:
        found: the sentence that says what is a slice.

    Raises:
        CheckpointError: `tier` is above 0 and the run is in helper mode.
    """
    if held_tier(spec, tier) != tier:
        raise CheckpointError(
            f"{found}, and this run is in helper mode (matformer.helper_fraction): its members hold the full "
            "model. Load tier 0's checkpoint, with strategy universal or auto"
        )


def helper_of(spec: TrainSpec, schema: Schema) -> Helper | None:
    """The run's helper mode; None if it is off.

    Raises:
        TierError: it does not fit the model, see `Helper`.
    """
    matformer = spec.matformer
    if matformer.helper_fraction == 0:
        return None
    return Helper(
        schema,
        spec.sha256,
        fraction=matformer.helper_fraction,
        rotation_rounds=matformer.helper_rotation_rounds,
        compression_chunk=spec.optimizer.chosen.compression_chunk,
    )


def layer_of(name: str) -> int:
    """The layer of a parameter: the first part of its name that is a number, 0 if there is none."""
    return next((int(part) for part in name.split(".") if part.isdecimal()), 0)


def _edge(schema: Schema, compression_chunk: int) -> int:
    """The chunk edge along the neurons, which all tensors that slices cut must share."""
    cut = [tensor for tensor in schema.tensors if tensor.cut_axis is not None]
    edges = {edge_of(tensor, schema.max_tier, compression_chunk) for tensor in cut}
    if len(edges) != 1:
        raise TierError(
            "helper mode needs feed-forward layers of one width, and so one chunk edge along their neurons: "
            f"this model has {sorted(edges) or 'none'}. Set matformer.helper_fraction to 0"
        )
    return edges.pop()
