"""Who goes first: updates before checkpoints and data, rare blobs before common ones, few streams a peer.

`FairShare` divides one direction of the link, `Slots` the streams to each peer. Both are deterministic: they
look at nothing but what they are told and the clock of trio.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import trio

WEIGHT = 8
"""Bytes of updates that move for one byte of a checkpoint or of data, while both want the link."""
STALLED_S = 0.25
"""A bulk transfer does not wait for updates that have not moved for so long: their peer is slow, not our link."""
PATIENCE_S = 1.0
"""Nor longer than this in all, so that bulk moves a frame a second at the least."""


class FairShare:
    """One direction of the link, shared between urgent transfers (updates) and bulk (checkpoints, data).

    Bulk has the whole link while nothing is urgent. Otherwise each `n` bytes of it wait until `WEIGHT * n`
    bytes of urgent transfers moved, or none moved for `STALLED_S`, or `PATIENCE_S` passed: a weighted share
    that starves neither. Bulk transfers take turns in the order in which they came.
    """

    def __init__(self) -> None:
        self._urgent = 0
        self._moved = 0
        self._changed = trio.Event()
        self._turn = trio.StrictFIFOLock()

    @property
    def contended(self) -> bool:
        """Whether an urgent transfer is in progress: bulk should move in small steps."""
        return self._urgent > 0

    @contextmanager
    def urgent(self) -> Iterator[None]:
        """An urgent transfer is in progress while the context is open."""
        self._urgent += 1
        try:
            yield
        finally:
            self._urgent -= 1
            self._notify()

    def moved(self, count: int) -> None:
        """An urgent transfer moved `count` bytes."""
        self._moved += count
        self._notify()

    async def give_way(self, count: int) -> None:
        """Wait until bulk may move `count` bytes."""
        if not self._urgent and not self._turn.statistics().tasks_waiting:
            return
        async with self._turn:
            owed = self._moved + WEIGHT * count
            with trio.move_on_after(PATIENCE_S):
                while self._urgent and self._moved < owed:
                    with trio.move_on_after(STALLED_S) as stalled:
                        await self._changed.wait()
                    if stalled.cancelled_caught:
                        break

    def _notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


class Slots:
    """The few streams that run to each peer at once.

    Who waits for the same peer is let in by urgency, then the blob that fewest others hold, then by order.

    Args:
        each: streams to one peer.
        bulk: how many of them may be bulk.
    """

    def __init__(self, each: int, bulk: int) -> None:
        self._each, self._bulk = each, bulk
        self._taken: Counter[tuple[bytes, bool]] = Counter()
        self._waiting: dict[bytes, list[_Waiter]] = {}
        self._order = itertools.count()

    def load(self, peer: bytes) -> int:
        """Streams to a peer that run or wait."""
        return self._running(peer) + len(self._waiting.get(peer, ()))

    @asynccontextmanager
    async def take(self, peer: bytes, *, bulk: bool, holders: Callable[[], int]) -> AsyncIterator[None]:
        """Wait for a stream to a peer, and hold it while the context is open.

        Args:
            bulk: a checkpoint or data: goes after updates and never has all the streams.
            holders: how many members are known to hold the blob; asked whenever a stream becomes free.
        """
        waiter = _Waiter(bulk, holders, next(self._order))
        self._waiting.setdefault(peer, []).append(waiter)
        self._grant(peer)
        try:
            await waiter.granted.wait()
            yield
        finally:
            if waiter.granted.is_set():
                self._taken[peer, bulk] -= 1
                self._taken += Counter()  # forget zeros
            else:
                self._waiting[peer].remove(waiter)
            self._grant(peer)
            if not self._waiting.get(peer, True):
                del self._waiting[peer]

    def _running(self, peer: bytes) -> int:
        return self._taken[peer, False] + self._taken[peer, True]

    def _grant(self, peer: bytes) -> None:
        waiting = self._waiting.get(peer, [])
        while self._running(peer) < self._each:
            room = self._taken[peer, True] < self._bulk
            ready = [waiter for waiter in waiting if room or not waiter.bulk]
            if not ready:
                return
            first = min(ready, key=lambda waiter: (waiter.bulk, waiter.holders(), waiter.order))
            waiting.remove(first)
            self._taken[peer, first.bulk] += 1
            first.granted.set()


class _Waiter:
    """Somebody who waits for a stream."""

    def __init__(self, bulk: bool, holders: Callable[[], int], order: int) -> None:
        self.bulk, self.holders, self.order = bulk, holders, order
        self.granted = trio.Event()


class Rates:
    """How fast each peer delivered lately."""

    def __init__(self) -> None:
        self._rates: dict[bytes, float] = {}

    def note(self, peer: bytes, count: int, seconds: float) -> None:
        """A peer delivered `count` bytes in so many seconds."""
        rate = count / max(seconds, 1e-6)
        known = self._rates.get(peer)
        self._rates[peer] = rate if known is None else 0.5 * known + 0.5 * rate

    def of(self, peer: bytes) -> float | None:
        """Bytes a second, or None before it delivered anything."""
        return self._rates.get(peer)

    def forget(self, keep: Callable[[bytes], bool]) -> None:
        """Drop peers that are not kept."""
        self._rates = {peer: rate for peer, rate in self._rates.items() if keep(peer)}
