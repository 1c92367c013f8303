"""Which windows are trained and which are held out: integers only, no memory however many there are.

Windows form blocks of 32; of every ``round(1 / validation_fraction)`` blocks the last is held out, so that the
held-out text is like the trained one and never trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

BLOCK = 32
DUMMY_HIGHEST = 96 + 32
"""No token of the `Dummy` source is higher."""

Int = TypeVar("Int", int, npt.NDArray[np.int64])


@dataclass(frozen=True, slots=True)
class Split:
    """The division of one source's windows."""

    num_windows: int
    period: int
    """One block of so many is held out."""

    @classmethod
    def of(cls, num_tokens: int, window: int, validation_fraction: float) -> Split:
        """Cut `num_tokens` into windows of `window` that do not overlap.

        Raises:
            ValueError: nothing would be left to train on, or nothing to validate with.
        """
        split = cls(num_tokens // window, round(1 / validation_fraction))
        if split.num_train == 0 or split.num_held_out == 0:
            needed = (BLOCK * (split.period - 1) + 1) * window
            raise ValueError(
                f"{num_tokens} tokens are too few for windows of {window} with {validation_fraction} of them "
                f"held out: use at least {needed} tokens, shorter sequences or a larger validation_fraction"
            )
        return split

    @property
    def num_train(self) -> int:
        """Windows that are trained."""
        cycle, trained = BLOCK * self.period, BLOCK * (self.period - 1)
        return self.num_windows // cycle * trained + min(self.num_windows % cycle, trained)

    @property
    def num_held_out(self) -> int:
        """Windows that are not."""
        return self.num_windows - self.num_train

    def train_window(self, place: Int) -> Int:
        """Window of the n-th trained place."""
        trained = BLOCK * (self.period - 1)
        return place // trained * (BLOCK * self.period) + place % trained

    def held_out_window(self, place: Int) -> Int:
        """Window of the n-th held-out place."""
        return place // BLOCK * (BLOCK * self.period) + BLOCK * (self.period - 1) + place % BLOCK
