"""What a campaign plays and what it saw: plain data that goes between processes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from localnet.simulator.plan import Plan, draw
from localnet.simulator.schedule import Outcome


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
    places: Counter[tuple[str, str]] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    interrupted: bool = False
    failures: list[Failure] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Add what another process saw."""
        self.schedules += other.schedules
        self.awaits += other.awaits
        self.cpu_s += other.cpu_s
        self.simulated_s += other.simulated_s
        self.faults += other.faults
        self.places += other.places
        self.events += other.events
        self.failures += other.failures

    def note(self, outcome: Outcome) -> None:
        """Count what happened in a schedule."""
        self.awaits += outcome.awaits
        self.cpu_s += outcome.cpu_s
        self.simulated_s += outcome.seconds
        self.faults += outcome.met
        self.places += outcome.places
        self.events += outcome.events
