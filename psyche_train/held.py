"""What a member holds of all that members share: weights and folded state, taken, changed and hashed together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from psyche_train.fold.digest import part_digests
from psyche_train.jobs import TrainerError
from psyche_train.matformer.holding import Holding
from psyche_train.models.schema import Schema
from psyche_train.strategies.base import Strategy


class HeldWeights:
    """Either all of one position, or refused: nobody gets to see weights that are partly another position's.

    Args:
        schema: of all that members share (`psyche_train.resolve.with_folded`).
        tier: whose slice is held.
        training: keeps the folded state.
        make: builds what holds the weights, from the first ones that are taken.
    """

    def __init__(
        self,
        schema: Schema,
        tier: int,
        training: Strategy[Any],
        make: Callable[[Mapping[str, Tensor]], Holding],
    ) -> None:
        self._schema, self._tier, self._training, self._make = schema, tier, training, make
        self._holding: Holding | None = None
        self._digests: list[bytes] | None = None
        self.half_folded = False
        """A change failed in its middle: weights are taken before anything else."""

    def loaded(self) -> Holding:
        """The weights.

        Raises:
            TrainerError: there are none, or they are nobody's.
        """
        if self._holding is None:
            raise TrainerError("the trainer holds no weights yet: call load, restore or reset first")
        if self.half_folded:
            raise TrainerError(
                "a fold failed half-way, these weights are nobody's: call load, restore or reset first"
            )
        return self._holding

    def take(self, shared: Mapping[str, Tensor]) -> None:
        """Take weights and folded state, bit for bit; what fails leaves nothing, or what is `half_folded`."""
        with self.changing():
            if self._holding is None:
                holding = self._make(shared)
            else:
                holding = self._holding
                holding.copy_weights(shared)
            self._training.take_folded(shared)
            self._holding = holding
            self.changed()

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Around a change in place: half of one is refused to everybody afterwards."""
        self.half_folded = self._holding is not None
        yield
        self.half_folded = False

    def refuse(self) -> None:
        """Refuse what is held, if anything is, until all of another position has been taken."""
        self.half_folded = self._holding is not None

    def tensors(self) -> dict[str, Tensor]:
        """``name -> fp32`` of everything, the weights first, in schema order."""
        return {**self.loaded().stored, **self._training.folded}

    def digests(self) -> list[bytes]:
        """``[g_T, ..., g_tier]`` of everything (see `psyche_train.fold.digest`); kept until the next change."""
        shared = self.tensors()
        if self._digests is None:
            self._digests = part_digests(self._schema, shared, self._tier)
        return self._digests

    def changed(self) -> None:
        """Something was changed: the digests are taken anew when they are asked for."""
        self._digests = None
