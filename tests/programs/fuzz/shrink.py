"""A failing episode made small: delta debugging over its recorded items, and the file that `--replay` runs."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from tests.programs.fuzz.episode import Failure, Item, run
from tests.programs.fuzz.world import World


class Search:
    """The smallest failure so far, and how often a smaller one may still be tried."""

    def __init__(self, failure: Failure, max_replays: int, options: dict[str, Any]) -> None:
        self.best = failure
        self.replays_left = max_replays
        self.options = options

    @property
    def is_over(self) -> bool:
        return self.replays_left <= 0

    def attempt(self, items: list[Item]) -> bool:
        """Whether these items break the same invariant; then they are the best so far."""
        if not items or self.is_over:
            return False
        self.replays_left -= 1
        found, _ = run(items, **self.options)
        if found is None or found.kind != self.best.kind:
            return False
        found.seed = self.best.seed
        self.best = found
        return True


def shrink(failure: Failure, max_replays: int = 400, **options: Any) -> Failure:
    """The same kind of failure from as few items as can be found.

    First goes what was refused, what is about other runs and whole kinds of instructions, then items in ever smaller
    pieces, then instructions out of transactions; whatever still breaks the same invariant is kept. A replay that
    breaks earlier cuts off what comes after.
    """
    search = Search(failure, max_replays, {"world": World()} | options)
    search.attempt(failure.effective)
    last = search.best.items[-1].get("ops", ())
    for state in sorted({op["acc"].get("run_state") for op in last} - {None}):
        search.attempt([i for i in search.best.items if _concerns(i, state)])
    search.attempt(search.best.effective)
    kinds = Counter(op["ix"] for item in search.best.items for op in item.get("ops", ()))
    for kind, _ in kinds.most_common():
        search.attempt([i for i in search.best.items if not _is_of(i, kind)])
    _pieces(search)
    _instructions(search)
    return search.best


def _is_of(item: Item, kind: str) -> bool:
    return any(op["ix"] == kind for op in item.get("ops", ()))


def _pieces(search: Search) -> None:
    """Takes out pieces, from the end, halving their size while nothing more can go."""
    size = max(len(search.best.items) // 2, 1)
    while not search.is_over:
        before = len(search.best.items)
        at = before - size
        while at > -size and not search.is_over:
            items = search.best.items
            search.attempt(items[: max(at, 0)] + items[max(at + size, 0) :])
            at = min(at, len(search.best.items)) - size
        if size == 1 and len(search.best.items) == before:
            return
        size = max(min(size, len(search.best.items)) // 2, 1)


def _instructions(search: Search) -> None:
    """Takes single instructions out of transactions that have several."""
    for at in range(len(search.best.items) - 1, -1, -1):
        for i in range(len(search.best.items[at].get("ops", ())) - 1, -1, -1):
            items = search.best.items
            ops = items[at].get("ops", []) if at < len(items) else []
            if len(ops) > 1 and i < len(ops):
                search.attempt([*items[:at], items[at] | {"ops": ops[:i] + ops[i + 1 :]}, *items[at + 1 :]])


def _concerns(item: Item, state: str) -> bool:
    """Whether an item may matter to the run with this log: another run's instructions do not."""
    if "clock" in item:
        return True
    named = {op["acc"].get("run_state") or op["acc"].get("new") for op in item["ops"]}
    return state in named or named == {None}


def save(failure: Failure, path: Path) -> None:
    """Write a failure as a file that can be replayed anywhere."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = {"kind": failure.kind, "seed": failure.seed, "detail": failure.detail}
    lines = ",\n  ".join(json.dumps(item) for item in failure.items)
    path.write_text(json.dumps(head, indent=1)[:-2] + ',\n "items": [\n  ' + lines + "\n ]\n}\n")


def load(path: Path) -> list[Item]:
    """The items of such a file."""
    items: list[Item] = json.loads(path.read_text())["items"]
    return items
