"""Make a schedule that fails smaller, as long as it fails in the same way.

Fewer faults first, then shorter and earlier ones, then fewer members and rounds: each proposal is played, and
kept if its first violation is of the same kind.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from localnet.simulator.plan import EVERYBODY, Plan
from localnet.simulator.schedule import Outcome

MAX_PLAYS = 120


def shrink(
    outcome: Outcome, play: Callable[[Plan], Outcome], *, max_plays: int = MAX_PLAYS
) -> tuple[Outcome, int]:
    """The smallest schedule that was found, and how many were played to find it."""
    best, plays = outcome, 0
    improved = True
    while improved and plays < max_plays:
        improved = False
        for proposal in _proposals(best.plan):
            if plays >= max_plays:
                break
            plays += 1
            found = play(proposal)
            if found.signature == outcome.signature:
                best, improved = found, True
                break
    return best, plays


def _proposals(plan: Plan) -> Iterator[Plan]:
    faults = plan.faults
    half = len(faults) // 2
    if half > 1:
        yield replace(plan, faults=faults[:half])
        yield replace(plan, faults=faults[half:])
    for index in range(len(faults)):
        yield replace(plan, faults=faults[:index] + faults[index + 1 :])
    last = len(plan.tiers) - 1
    if last >= 1 and all(f.member != last for f in faults):
        yield replace(plan, tiers=plan.tiers[:-1], weights=plan.weights[:-1], late_s=plan.late_s[:-1])
    if any(plan.late_s):
        yield replace(plan, late_s=())
    if any(weight != 1 for weight in plan.weights):
        yield replace(plan, weights=(1,) * len(plan.weights))
    if plan.total_steps > 2:
        yield replace(plan, total_steps=plan.total_steps // 2)
        yield replace(plan, total_steps=plan.total_steps - 1)
    if plan.witness_nodes:
        yield replace(plan, witness_nodes=0)
    for index, fault in enumerate(faults):
        shorter = [replace(fault, for_s=round(fault.for_s / 2, 1))] if fault.for_s > 1.0 else []
        everybody = [replace(fault, member=0)] if fault.member not in (0, EVERYBODY) else []
        for smaller in (*shorter, *everybody):
            yield replace(plan, faults=(*faults[:index], smaller, *faults[index + 1 :]))
