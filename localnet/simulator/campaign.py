"""Many schedules on several processes; each failure is made small and written down."""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from localnet.simulator.plan import Plan, draw
from localnet.simulator.schedule import Outcome, play
from localnet.simulator.shrink import shrink

AT_ONCE = 8
"""Schedules that a process is given at a time."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """How schedules are drawn from their seeds."""

    members: int | None = None
    faults: int | None = None
    kinds: tuple[str, ...] = ()

    def plan(self, seed: int) -> Plan:
        return draw(seed, members=self.members, faults=self.faults, kinds=self.kinds)


@dataclass(frozen=True, slots=True)
class Failure:
    """A schedule in which something was wrong."""

    seed: int
    kind: str
    message: str
    smallest: Plan
    plays: int


@dataclass(slots=True)
class Tally:
    """What a campaign saw."""

    schedules: int = 0
    awaits: int = 0
    cpu_s: float = 0.0
    simulated_s: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        self.schedules += other.schedules
        self.awaits += other.awaits
        self.cpu_s += other.cpu_s
        self.simulated_s += other.simulated_s
        self.faults += other.faults
        self.events += other.events
        self.failures += other.failures

    def note(self, outcome: Outcome) -> None:
        self.schedules += 1
        self.awaits += outcome.awaits
        self.cpu_s += outcome.cpu_s
        self.simulated_s += outcome.seconds
        self.faults += outcome.met
        self.events += outcome.events


def some(seeds: Sequence[int], drawing: Drawing, shrinks: bool = True) -> Tally:
    """Play the schedules of a few seeds in this process."""
    tally = Tally()
    for seed in seeds:
        outcome = play(drawing.plan(seed))
        tally.note(outcome)
        if outcome.violations:
            smallest, plays = shrink(outcome, play) if shrinks else (outcome, 0)
            first = outcome.violations[0]
            tally.failures.append(Failure(seed, first.kind, first.message, smallest.plan, plays))
    return tally


def many(
    first_seed: int,
    schedules: int,
    drawing: Drawing,
    *,
    workers: int,
    shrinks: bool = True,
    progress: Callable[[Tally], None] = lambda tally: None,
) -> Tally:
    """Play schedules in processes of their own; `progress` is told the sum so far, now and then."""
    total = Tally()
    if workers <= 1:
        for part in _parts(first_seed, schedules):
            total.add(some(part, drawing, shrinks))
            progress(total)
        return total
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_be_nice) as pool:
        parts = _parts(first_seed, schedules)
        pending: set[Future[Tally]] = {
            pool.submit(some, part, drawing, shrinks) for part in islice(parts, 2 * workers)
        }
        try:
            while pending:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                for future in done:
                    total.add(future.result())
                    pending |= {pool.submit(some, part, drawing, shrinks) for part in islice(parts, 1)}
                progress(total)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return total


def write(failure: Failure, folder: Path) -> Path:
    """Keep the smallest schedule of a failure."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"seed-{failure.seed}.json"
    path.write_text(failure.smallest.to_json() + "\n")
    return path


def _parts(first: int, count: int) -> Iterator[range]:
    for start in range(first, first + count, AT_ONCE):
        yield range(start, min(start + AT_ONCE, first + count))


def _be_nice() -> None:
    """A campaign gives way to whatever else the machine does."""
    os.nice(10)
