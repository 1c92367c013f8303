"""Simulated time: the clock jumps to the next thing that happens, and a sleep costs one step of a task.

Trio's own mock clock finds out that nothing is runnable by an idle round of the loop before every jump, and its
`sleep` is a cancel scope that expires. Both together were half of the cost of a schedule.
"""

from __future__ import annotations

import heapq
import itertools
import math

import trio

MAX_IDLE = 30
"""Real seconds in which nothing happens and nothing is waited for."""


class SimClock(trio.abc.Clock):
    """Time of one run; it begins at 0 and does not move while a task is runnable."""

    def __init__(self) -> None:
        self._now = 0.0
        self._sleepers: list[tuple[float, int, list[trio.lowlevel.Task]]] = []
        """When, a number that makes these comparable, and who; nobody if the sleep was cancelled."""
        self._numbers = itertools.count()
        self._idle = 0

    def start_clock(self) -> None:
        """Time begins with the first task."""

    def current_time(self) -> float:
        return self._now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Trio asks how long to wait because nothing is runnable: wake who is next instead."""
        sleepers = self._sleepers
        while sleepers and not sleepers[0][2]:
            heapq.heappop(sleepers)
        until = min(deadline, sleepers[0][0] if sleepers else math.inf)
        if until == math.inf:  # only trio's own wake-ups are left, at the end of the run
            self._idle += 1
            if self._idle > MAX_IDLE:
                raise RuntimeError("nothing will ever happen in this schedule: its tasks wait for each other")
            return 1.0
        self._now = max(self._now, until)
        while sleepers and sleepers[0][0] <= self._now:
            for task in heapq.heappop(sleepers)[2]:
                trio.lowlevel.reschedule(task)
        return 0.0

    async def sleep(self, seconds: float) -> None:
        """As `trio.sleep`."""
        if not seconds >= 0:
            raise ValueError("`seconds` must be a number that is not negative")
        await trio.lowlevel.checkpoint_if_cancelled()
        who = [trio.lowlevel.current_task()]
        heapq.heappush(self._sleepers, (self._now + seconds, next(self._numbers), who))

        def wake(_: object) -> trio.lowlevel.Abort:
            who.clear()
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(wake)
