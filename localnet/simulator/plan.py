"""What one schedule is: the run, its members, and the faults, all of them drawn from a seed.

A plan is plain data and goes through JSON unchanged, so that a schedule that failed can be kept, shortened by
hand or by `shrink`, and played again.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final

from psyche_chain.errors import ConfigError

EVERYBODY: Final = -1

KINDS: Final[Mapping[str, tuple[float, float]]] = {
    "crash": (0, 180),
    "cancel": (0, 90),
    "leave": (0, 150),
    "wipe": (5, 60),
    "sleep": (5, 180),
    "slow": (5, 90),
    "rpc_down": (1, 150),
    "rpc_stale": (5, 90),
    "tx_lost": (5, 60),
    "tx_late": (5, 60),
    "answer_lost": (5, 60),
    "tx_again": (5, 60),
    "net_down": (5, 150),
    "net_lossy": (5, 90),
    "net_slow": (5, 90),
    "net_error": (1, 40),
    "hoard": (5, 60),
    "garbage": (5, 60),
    "forge": (5, 90),
    "broke": (5, 150),
    "disk_full": (5, 60),
    "trainer_error": (5, 40),
    "slow_training": (10, 90),
    "partition": (5, 90),
    "halt": (2, 60),
    "drift": (10, 120),
    "pause": (0, 60),
    "damage": (0, 0),
    "rpc_liar": (5, 90),
}
"""Kind of fault -> shortest and longest duration in seconds of simulated time. docs/simulator.md says what
each one does."""

REACH: Final = 1500
"""Await points of a member within which a fault begins; a run without faults has about half as many."""

LOSSES: Final = frozenset({"wipe", "damage"})
"""Faults that take from a disk what others may not have; a schedule draws one of them at most."""

GLOBAL: Final = frozenset({"partition", "halt", "drift", "pause"})
"""Faults that meet the whole run, and no member alone."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong."""

    kind: str
    member: int
    """Number of the member, or `EVERYBODY`."""
    at: int
    """It begins when the member's tasks have yielded so many times (all members' tasks, for `EVERYBODY`)."""
    for_s: float
    """How long it lasts; of a member that ends: how long until it is started again."""
    arg: int = 0
    """Seed of what the fault itself draws."""
    place: str = ""
    """An await point of the client (see `places`): from `at` on the fault waits for a task that waits there. The
    member is then whoever comes there first, if it is `EVERYBODY`."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"no fault is called {self.kind}", f"there are {', '.join(KINDS)}")
        if self.place and self.kind in GLOBAL:
            raise ConfigError(f"{self.kind} meets the whole run, at no place", "leave the place away")


@dataclass(frozen=True, slots=True)
class Plan:
    """One schedule."""

    seed: int
    tiers: tuple[int, ...]
    weights: tuple[int, ...]
    """What each member's share of a round and its pay are in proportion to."""
    total_steps: int = 8
    epoch_time_s: int = 100
    min_clients: int = 1
    witness_nodes: int = 0
    max_failed_warmups: int = 3
    batch: int = 24
    round_rate: int = 1_000_003
    train_s: float = 4.0
    """How long a training takes, about."""
    poll_s: float = 1.0
    late_s: tuple[float, ...] = ()
    """How much later than the first each member is started for the first time; empty: all within seconds."""
    faults: tuple[Fault, ...] = ()

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    def _check(self) -> None:
        numbers = [
            getattr(self, f.name)
            for f in fields(self)
            if f.name not in ("tiers", "weights", "late_s", "faults")
        ]
        if not all(isinstance(n, int | float) for n in (*numbers, *self.tiers, *self.weights, *self.late_s)):
            raise ConfigError("this is no schedule: a number is missing", "take one that the simulator wrote")
        is_crew = 1 <= len(self.tiers) == len(self.weights) <= 8 and set(self.tiers) <= {0, 1, 2}
        if not is_crew or 0 not in self.tiers or not all(1 <= w <= 10 for w in self.weights):
            raise ConfigError(
                "a schedule has 1 to 8 members, each with a tier of 0 to 2 and a weight of 1 to 10",
                "one of them must have tier 0",
            )
        if min(self.total_steps, self.epoch_time_s, self.min_clients, self.max_failed_warmups) < 1:
            raise ConfigError(
                "steps, epoch time, members and failed warmups are at least 1", "change the file"
            )
        if self.late_s and (
            len(self.late_s) != len(self.tiers) or not all(0 <= s < 1e4 for s in self.late_s)
        ):
            raise ConfigError("every member has a time at which it comes, or none has", "change the file")
        if min(self.train_s, self.poll_s) <= 0 or self.batch < 1 or self.witness_nodes < 0:
            raise ConfigError("times and batch are more than 0", "change the file")

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read a plan.

        Raises:
            ConfigError: it is not one.
        """
        try:
            raw: dict[str, Any] = json.loads(text)
            unknown = set(raw) - {f.name for f in fields(cls)}
            if unknown:
                raise ValueError(f"unknown keys {sorted(unknown)}")
            raw["faults"] = tuple(Fault(**fault) for fault in raw.get("faults", ()))
            lists: dict[str, Any] = {
                name: tuple(raw[name]) for name in ("tiers", "weights", "late_s") if name in raw
            }
            plan = cls(**raw | lists)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigError(f"this is no schedule: {error}", "take one that the simulator wrote") from error
        plan._check()
        return plan


def draw(
    seed: int, *, members: int | None = None, faults: int | None = None, kinds: tuple[str, ...] = ()
) -> Plan:
    """The schedule of a seed.

    Args:
        seed: of everything.
        members: instead of a number that is drawn.
        faults: instead of a number that is drawn.
        kinds: draw from these kinds of fault only.
    """
    rng = random.Random(f"plan {seed}")
    count = members or rng.choice((3, 3, 4, 4, 5, 6))
    top = rng.choice((1, 1, 2))
    tiers = (0, *(rng.choice((0, 1, 1, top)) for _ in range(count - 1)))
    comes = random.Random(f"late {seed}")
    late = tuple(round(comes.uniform(20.0, 150.0), 1) if comes.random() < 0.15 else 0.0 for _ in tiers)
    number = rng.choice((0, 1, 2, 2, 3, 3, 4, 5, 6, 8)) if faults is None else faults
    return Plan(
        seed=seed,
        tiers=tiers,
        weights=tuple(rng.choice((1, 1, 2, 3)) for _ in tiers),
        total_steps=rng.randint(4, 9),
        epoch_time_s=rng.choice((40, 60, 90, 1000)),
        min_clients=rng.choice((1, 1, 2)),
        witness_nodes=rng.choice((0, 0, 2, 3)),
        max_failed_warmups=rng.choice((1, 3)),
        batch=rng.choice((8, 24, 37)),
        round_rate=rng.choice((1_000_003, 7, 12_000)),
        train_s=rng.choice((1.0, 4.0, 8.0)),
        poll_s=rng.choice((0.7, 1.0, 2.0)),
        late_s=late if number and sum(not s for s in late) >= 2 and not late[0] else (),
        faults=tuple(sorted(_faults(rng, number, count, kinds), key=lambda f: (f.at, f.member, f.kind))),
    )


def _faults(rng: random.Random, number: int, members: int, kinds: tuple[str, ...]) -> list[Fault]:
    allowed = kinds or tuple(KINDS)
    found: list[Fault] = []
    for _ in range(number):
        kind = rng.choice(allowed)
        if kind in LOSSES and any(f.kind in LOSSES for f in found):
            kind = "crash"  # two lost disks may be both that had the weights: nobody could go on
        shortest, longest = KINDS[kind]
        member = EVERYBODY if kind in GLOBAL else rng.randrange(members)
        reach = REACH * (members if member == EVERYBODY else 1)
        found.append(
            Fault(
                kind=kind,
                member=member,
                at=int(reach ** rng.uniform(0.3, 1.0)) if rng.random() < 0.5 else rng.randrange(reach),
                for_s=round(rng.uniform(shortest, longest), 1),
                arg=rng.randrange(1 << 30),
            )
        )
    return found
