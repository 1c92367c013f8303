"""Many schedules on several processes; each failure is made small and written down."""

from __future__ import annotations

import contextlib
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import trio

from localnet.simulator.crew import Crew
from localnet.simulator.plan import Plan
from localnet.simulator.schedule import Outcome, play
from localnet.simulator.shrink import shrink
from localnet.simulator.tally import Drawing, Failure, Tally

LIMIT_CPU_S = 60.0
"""Of one schedule: they take less than a second, hardly one more than three."""


class TooLong(Exception):
    """A schedule does not come to its end, although simulated time passes or because none does."""


def some(seeds: Sequence[int], drawing: Drawing, shrinks: bool = True) -> Tally:
    """Play the schedules of a few seeds in this process."""
    total = Tally()
    for seed in seeds:
        total.add(one(seed, drawing, shrinks))
    return total


def one(seed: int, drawing: Drawing, shrinks: bool = True) -> Tally:
    """Play the schedule of a seed; an error of the simulator itself is a failure like others."""
    tally = Tally(schedules=1)
    plan = drawing.plan(seed)
    try:
        outcome = _within_limit(plan)
    except Exception as error:
        tally.failures.append(Failure(seed, "simulator", _innermost(error), plan, 0))
        return tally
    tally.note(outcome)
    if outcome.violations:
        smallest, plays = outcome, 0
        if shrinks:
            with contextlib.suppress(TooLong, trio.TrioInternalError):
                smallest, plays = shrink(outcome, _within_limit)
        first = outcome.violations[0]
        tally.failures.append(Failure(seed, first.kind, first.message, smallest.plan, plays))
    return tally


def _within_limit(plan: Plan) -> Outcome:
    """Play; raise `TooLong` in it after `LIMIT_CPU_S` of this process' time."""
    if threading.current_thread() is not threading.main_thread():
        return play(plan)

    def end(*_: object) -> None:
        raise TooLong(f"no end after {LIMIT_CPU_S:.0f} s of CPU time")

    before = signal.signal(signal.SIGPROF, end)
    signal.setitimer(signal.ITIMER_PROF, LIMIT_CPU_S, 1.0)
    try:
        return play(plan)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, before)


def _innermost(error: BaseException) -> str:
    """What went wrong and where, of an error that others are wrapped around."""
    while error.__cause__ is not None or isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0] if isinstance(error, BaseExceptionGroup) else error.__cause__ or error
    last = traceback.extract_tb(error.__traceback__)[-1:]
    return f"{error!r}" + "".join(f" at {Path(f.filename).name}:{f.lineno}" for f in last)


def many(
    first_seed: int,
    schedules: int,
    drawing: Drawing,
    *,
    workers: int,
    shrinks: bool = True,
    progress: Callable[[Tally], None] = lambda tally: None,
) -> Tally:
    """Play schedules in processes of their own; `progress` is told the sum so far after each.

    Interrupted, it returns what was done until then. A process that dies costs the schedule that it played,
    which counts as a failure, and no other.
    """
    total = Tally()
    try:
        if workers <= 1:
            for seed in range(first_seed, first_seed + schedules):
                total.add(one(seed, drawing, shrinks))
                progress(total)
        else:
            seeds = deque(range(first_seed, first_seed + schedules))
            with Crew(workers, drawing, shrinks) as crew:
                while total.schedules < schedules:
                    crew.give(seeds)
                    for tally in crew.take():
                        total.add(tally)
                        progress(total)
    except KeyboardInterrupt:
        total.interrupted = True
    return total


def write(failure: Failure, folder: Path) -> Path:
    """Keep the smallest schedule of a failure."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"seed-{failure.seed}.json"
    path.write_text(failure.smallest.to_json() + "\n")
    return path
