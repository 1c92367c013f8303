"""The table of costs: what was measured, what is written down, and where the two differ."""

import json
from pathlib import Path
from typing import Any

TABLE = Path(__file__).parents[1] / "costs.json"
CAPACITIES = (16, 256)
TOLERANCE = 0.03
"""Share by which compute units may differ from the table: compilers and layouts move them a little."""
RENEW = "If this is meant: python -m tests.programs.costs --write (it renews docs/costs.md, too)"

Entry = dict[str, list[int | None]]


class Table:
    """Compute units and bytes of every instruction, and the size of every account, per capacity.

    `instructions["coordinator.commit"]["nothing due"]` is `{"units": [at 16, at 256], "bytes": [..]}`, the most
    that was seen of each; `accounts["RunState"][""]` is `{"bytes": [..], "lamports": [..]}`.
    """

    def __init__(self, instructions: Any = None, accounts: Any = None) -> None:
        self.instructions: dict[str, dict[str, Entry]] = instructions or {}
        self.accounts: dict[str, dict[str, Entry]] = accounts or {}

    @classmethod
    def load(cls) -> "Table":
        return cls(**json.loads(TABLE.read_text()))

    def text(self) -> str:
        """As it is committed: one case a line."""
        parts = []
        for part in ("instructions", "accounts"):
            groups = []
            for group, cases in sorted(getattr(self, part).items()):
                lines = [f"   {json.dumps(case)}: {json.dumps(entry)}" for case, entry in cases.items()]
                groups.append(f"  {json.dumps(group)}: {{\n" + ",\n".join(lines) + "\n  }")
            parts.append(f" {json.dumps(part)}: {{\n" + ",\n".join(groups) + "\n }")
        return "{\n" + ",\n".join(parts) + "\n}\n"

    def note(self, group: str, case: str, capacity: int, *, part: str = "instructions", **seen: int) -> None:
        """Keep the largest figure of each kind."""
        entry = getattr(self, part).setdefault(group, {}).setdefault(case, {})
        at = CAPACITIES.index(capacity)
        for kind, value in seen.items():
            cell = entry.setdefault(kind, [None] * len(CAPACITIES))
            cell[at] = max(cell[at] or 0, value)

    def figures(self) -> dict[tuple[str, str, str, int], int | None]:
        """Every figure by group, case, kind and capacity."""
        return {
            (group, case, kind, capacity): value
            for groups in (self.instructions, self.accounts)
            for group, cases in groups.items()
            for case, entry in cases.items()
            for kind, cell in entry.items()
            for capacity, value in zip(CAPACITIES, cell, strict=True)
        }


def differences(recorded: Table, measured: Table) -> list[str]:
    """What is missing, new, or differs: compute units by more than the tolerance, bytes and lamports at all."""
    old, new = recorded.figures(), measured.figures()
    found = [f"{name(key)}: not measured any more" for key in old if key not in new]
    found += [f"{name(key)}: not in the table" for key in new if key not in old]
    for key in old.keys() & new.keys():
        was, now = old[key], new[key]
        slack = TOLERANCE * (was or 0) if key[2] == "units" else 0
        if (was is None) != (now is None) or abs((now or 0) - (was or 0)) > slack:
            found.append(f"{name(key)}: {was} in the table, {now} now")
    return sorted(found)


def name(key: tuple[str, str, str, int]) -> str:
    group, case, kind, capacity = key
    return f"{group} ({case}), {kind} at {capacity} members"
