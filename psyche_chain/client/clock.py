"""The chain's clock, between two looks at it."""

from __future__ import annotations

from collections import deque

import trio

WINDOW_S = 15.0


class ChainClock:
    """Estimates the chain's time from whole seconds that were read now and then.

    The chain shows floor(time), some time ago: every reading is a lower bound on `chain time - own time`,
    and the largest of the last readings is the best estimate. It never runs ahead of the chain.
    """

    def __init__(self) -> None:
        self._offsets: deque[tuple[float, float]] = deque(maxlen=256)

    def observe(self, unix_s: int) -> None:
        """Note a reading of the chain's Unix time."""
        now = trio.current_time()
        self._offsets.append((now, unix_s - now))
        while self._offsets[0][0] < now - WINDOW_S:
            self._offsets.popleft()

    def now(self) -> float:
        """The chain's Unix time in seconds; at least one reading must have been noted."""
        return trio.current_time() + max(offset for _, offset in self._offsets)
