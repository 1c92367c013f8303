"""The bounds that the design sets, and how far away from them the table is."""

from collections.abc import Iterator
from typing import NamedTuple

from tests.programs.costs.table import CAPACITIES, Table

LARGEST_TRANSACTION = 1232
TICKING_UNITS = 200_000
"""What a client asks for with every instruction that may make transitions."""


class Reach(NamedTuple):
    """How far one limit is exhausted."""

    what: str
    bound: int
    most: int
    where: str

    @property
    def holds(self) -> bool:
        return self.most <= self.bound


def reaches(table: Table) -> Iterator[Reach]:
    """Every limit with the largest figure that it applies to."""
    yield _most(table, "Any instruction, compute units", TICKING_UNITS, "units")
    yield _most(table, "`join`, compute units", 40_000, "units", group="coordinator.join")
    for duty in ("commit", "witness"):
        what = f"`{duty}` with nothing due, compute units"
        yield _most(table, what, 15_000, "units", group=f"coordinator.{duty}", case="nothing due")
    yield _most(table, "Any transaction, bytes", LARGEST_TRANSACTION, "bytes")
    for at, bound in zip(CAPACITIES, (8_000, 72_000), strict=True):
        (size,) = table.accounts["RunState"].values()
        most = size["bytes"][CAPACITIES.index(at)] or 0
        yield Reach(f"`RunState` for {at} members, bytes", bound, most, "")


def _most(
    table: Table, what: str, bound: int, kind: str, *, group: str | None = None, case: str | None = None
) -> Reach:
    found = [
        (max(value or 0 for value in entry[kind]), f"`{its_group}` {its_case}".strip())
        for its_group, cases in table.instructions.items()
        for its_case, entry in cases.items()
        if group in (None, its_group) and case in (None, its_case)
    ]
    return Reach(what, bound, *max(found))
