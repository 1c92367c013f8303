"""What is wrong with a member, or with the whole run, at a moment."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import trio

from localnet.simulator.plan import Fault


@dataclass(slots=True)
class Weather:
    """Faults that last, each until a time of trio's clock."""

    until: dict[str, float] = field(default_factory=dict)
    rng: random.Random = field(default_factory=lambda: random.Random(0))

    def begin(self, fault: Fault) -> None:
        """A fault begins; one of its kind that lasts longer stays."""
        end = trio.current_time() + fault.for_s
        self.until[fault.kind] = max(end, self.until.get(fault.kind, end))
        self.rng = random.Random(fault.arg)

    def has(self, kind: str, chance: float = 1.0) -> bool:
        """Whether a fault lasts now and, where it meets only some cases, meets this one."""
        end = self.until.get(kind)
        return end is not None and trio.current_time() < end and (chance >= 1.0 or self.rng.random() < chance)

    def left_s(self, kind: str) -> float:
        """Seconds until a fault is over."""
        return max(0.0, self.until.get(kind, 0.0) - trio.current_time())
