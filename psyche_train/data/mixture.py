"""Which source a mixture's n-th sample comes from: integers only, the same on every machine.

Among the first n samples, source i has more than ``n w_i / W - 1`` and fewer than ``n w_i / W + 1`` (W is the sum
of the weights), for every n. Its j-th sample has to fall in the places ``[floor(j W / w), ceil((j + 1) W / w))``;
the earliest such deadline first, ties to the earlier source, meets them all (unit jobs with integer windows
whose fluid schedule is feasible). The pattern repeats after W places, so any place is found without counting.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from math import gcd

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]


class Interleave:
    """The order in which the sources of given weights take turns.

    Args:
        weights: whole numbers of at least 1.
    """

    def __init__(self, weights: Sequence[int]) -> None:
        if not weights or any(weight < 1 for weight in weights):
            raise ValueError(f"weights are {list(weights)}: each must be at least 1")
        common = gcd(*weights)
        self.weights = [weight // common for weight in weights]
        self.period = sum(self.weights)
        self._source = np.array(_pattern(self.weights, self.period), dtype=np.int64)
        self._rank = np.empty(self.period, dtype=np.int64)
        for i in range(len(self.weights)):
            places = np.flatnonzero(self._source == i)
            self._rank[places] = np.arange(len(places))
        self._weights = np.array(self.weights, dtype=np.int64)

    def __call__(self, numbers: Int64s) -> tuple[Int64s, Int64s]:
        """Return the source of each sample, and which sample of that source it is."""
        passes, places = numbers // self.period, numbers % self.period
        source = self._source[places]
        return source, passes * self._weights[source] + self._rank[places]


def _pattern(weights: Sequence[int], period: int) -> list[int]:
    """One period: earliest deadline first among what may be placed."""
    waiting = [(0, i, 0) for i in range(len(weights))]
    """(first place, source, which of its samples)."""
    ready: list[tuple[int, int, int]] = []
    """(deadline, source, which of its samples)."""
    heapq.heapify(waiting)
    pattern = []
    for place in range(period):
        while waiting and waiting[0][0] <= place:
            _, i, j = heapq.heappop(waiting)
            heapq.heappush(ready, (-(-(j + 1) * period // weights[i]), i, j))
        deadline, i, j = heapq.heappop(ready)
        assert place < deadline
        pattern.append(i)
        if j + 1 < weights[i]:
            heapq.heappush(waiting, ((j + 1) * period // weights[i], i, j + 1))
    return pattern
