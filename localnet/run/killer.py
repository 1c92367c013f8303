"""Which member dies when: `--kill-random N --every S`, the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kill:
    """Kill ``members`` (indices) at ``at_s`` seconds after the first round; start them again at ``restart_at_s``."""

    at_s: float
    restart_at_s: float
    members: tuple[int, ...]


def schedule(*, seed: int, num_members: int, num_killed: int, every_s: float) -> Iterator[Kill]:
    """An endless, deterministic series of kills.

    Each falls at a random moment of its period, so that over the seeds every phase is hit. The victims are back
    after 1 to 4 seconds, well before the next kill.

    Raises:
        ValueError: more members are to be killed than there are, or the period is too short.
    """
    if not 1 <= num_killed <= num_members:
        raise ValueError(f"--kill-random {num_killed}: allowed are 1 to {num_members}, the number of clients")
    if every_s < 6:
        raise ValueError(f"--every {every_s:g}: at least 6 seconds, a member needs that to come back")
    rng = random.Random(seed)
    period = 0
    while True:
        at_s = every_s * period + rng.uniform(0.0, every_s - 5.0)
        members = tuple(sorted(rng.sample(range(num_members), num_killed)))
        yield Kill(at_s=at_s, restart_at_s=at_s + rng.uniform(1.0, 4.0), members=members)
        period += 1
