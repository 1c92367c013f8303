"""Every mutation of every scene, tried and held against what may be accepted."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.programs.adversary.account_mutations import account_mutations
from tests.programs.adversary.argument_mutations import argument_mutations
from tests.programs.adversary.equivalences import ACCEPTED, Pattern, Reason, matching
from tests.programs.adversary.known_faults import FAULTS
from tests.programs.adversary.lookalikes import lookalikes
from tests.programs.adversary.mutation import Mutations
from tests.programs.adversary.scenes import DERIVED, Scene
from tests.programs.adversary.unreachable import UNREACHABLE
from tests.programs.adversary.world import World

Family = Callable[[World, Scene, int], Mutations]
FAMILIES: dict[str, Family] = {
    "accounts": lambda world, scene, per_class: account_mutations(world, scene, per_class=per_class),
    "look-alikes": lambda world, scene, _: lookalikes(world, scene),
    "arguments": lambda _, scene, __: argument_mutations(scene, DERIVED.get(scene.call.name)),
}

ALLOWED = ACCEPTED + UNREACHABLE


@dataclass
class Report:
    """What was tried and what came of it."""

    tried: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By scene and family."""
    accepted: set[tuple[str, str, str, str]] = field(default_factory=set)
    """Scene, target, kind and detail, with or without a reason."""
    unexplained: list[str] = field(default_factory=list)
    """Accepted without a reason."""
    faults: list[str] = field(default_factory=list)
    refusals: Counter[tuple[str, str, str, str, bool]] = field(default_factory=Counter)
    """By scene, target, kind, error, and whether the error is the program's own."""
    used: set[Pattern] = field(default_factory=set)

    @property
    def num_tried(self) -> int:
        return sum(self.tried.values())

    def stale(self) -> list[Pattern]:
        """Patterns of the lists that nothing matched."""
        reasons: tuple[Reason, ...] = ALLOWED + FAULTS
        return [pattern for reason in reasons for pattern in reason.patterns if pattern not in self.used]


def attack(
    world: World, scenes: Mapping[str, Scene], *, per_class: int, report: Report | None = None
) -> Report:
    """Try everything; `per_class` as in `AccountMutations`, 0 for all accounts of the world."""
    report = report or Report()
    for name, scene in scenes.items():
        for family, generate in FAMILIES.items():
            for mutation in generate(world, scene, per_class):
                report.tried[name, family] += 1
                outcome, _ = world.attempt(mutation.instruction, mutation.placed)
                what = (mutation.scene, mutation.target, mutation.kind)
                if outcome.damage:
                    report.faults.append(f"{mutation.label}: {'; '.join(outcome.damage)}")
                if outcome.faults:
                    known = matching(FAULTS, mutation)
                    report.used |= set(known)
                    if not known:
                        report.faults.append(f"{mutation.label}: {'; '.join(outcome.faults)}")
                if outcome.error is not None:
                    report.refusals[*what, outcome.error, outcome.own] += 1
                    continue
                report.accepted.add((*what, mutation.detail))
                reasons = matching(ALLOWED, mutation)
                report.used |= set(reasons)
                if not reasons:
                    report.unexplained.append(mutation.label)
    world.check_unchanged()
    return report
