"""One episode: a world and its model, side by side, for a bounded number of transactions."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.programs.fuzz import coordinator, outside, steering, treasurer
from tests.programs.fuzz.check import Broken, check_everything, check_outcome, check_touched
from tests.programs.fuzz.generate import PEOPLE, Generator
from tests.programs.fuzz.log import PHASES
from tests.programs.fuzz.model import Expected, Model
from tests.programs.fuzz.names import Keyring
from tests.programs.fuzz.world import Outcome, World

HANDLED = (coordinator, steering, treasurer, outside)  # importing them registers what instructions do
START = (1_000_000, 100)
"""Unix time and slot at which every world begins."""
Item = dict[str, Any]


@dataclass
class Tally:
    """What was reached: (instruction, phase, outcome) and how often; transactions; differing error names."""

    cells: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    names: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    transactions: int = 0
    most_units: dict[str, int] = field(default_factory=dict)

    def add(self, other: "Tally") -> None:
        self.cells.update(other.cells)
        self.names.update(other.names)
        self.transactions += other.transactions
        for name, units in other.most_units.items():
            self.most_units[name] = max(units, self.most_units.get(name, 0))


class Episode:
    """Feeds the same transactions to chain and model.

    Args:
        deep_every: transactions between two checks of every account.
        world: the chain to play on, used again and emptied first; a new one without it.
        make_model: builds the model; tests pass one that is wrong.
    """

    def __init__(
        self,
        deep_every: int = 250,
        world: World | None = None,
        make_model: Callable[[list[str], Keyring], Model] = Model,
    ) -> None:
        self.world = world or World()
        self.model = make_model(PEOPLE, self.world.keys)
        self.world.begin(self.model)
        self.lamports = self.model.total()
        self.known: set[str] = set()
        self.tally = Tally()
        self.deep_every = deep_every
        self.move_clock(0, 0)

    def move_clock(self, seconds: int, slots: int) -> None:
        model = self.model
        model.now = min(model.now + seconds, 1 << 60) if model.slot else START[0]
        model.slot = model.slot + slots if model.slot else START[1]
        model.slot_hash = self.world.set_clock(model.now, model.slot)

    def play(self, item: Item) -> bool:
        """One move of the clock or one transaction, with its checks; whether it did anything but pay a fee.

        Raises:
            Broken: chain and model differ, or a sum does not hold.
        """
        if "clock" in item:
            self.move_clock(*item["clock"])
            return True
        model, tally = self.model, self.tally
        phases = [self.phase(op) for op in item["ops"]]
        expected = model.apply(item)
        outcome = self.world.send(item)
        tally.transactions += 1
        self.known |= model.touched
        check_outcome(item, expected, outcome)
        check_touched(model, self.world)
        self.count(item, phases, expected, outcome)
        if tally.transactions % self.deep_every == 0:
            self.check()
        return expected.ok

    def check(self) -> None:
        """The deep check."""
        check_everything(self.model, self.world, self.known, self.lamports)

    def phase(self, op: Item) -> str:
        """The phase of the run that an operation is about."""
        acc = op["acc"]
        account = self.model.accounts.get(acc.get("run_state") or "")
        phase = getattr(account.data, "phase", None) if account is not None else None
        if phase is not None:
            return PHASES[phase]
        return "none" if "run_state" in acc else "-"

    def count(self, item: Item, phases: list[str], expected: Expected, outcome: Outcome) -> None:
        cells, ops = self.tally.cells, item["ops"]
        for at, (op, phase) in enumerate(zip(ops, phases, strict=True)):
            name = op["ix"]
            if name == "treasurer.update_pool":
                name += "." + op["args"]["action"][0]
            if not outcome.error:
                cells[name, phase, "ok"] += 1
                if len(ops) == 1 and outcome.units > self.tally.most_units.get(name, 0):
                    self.tally.most_units[name] = outcome.units
            elif at == outcome.at:
                cells[name, phase, outcome.error] += 1
                if expected.name and expected.name != outcome.error:
                    self.tally.names[name, expected.name, outcome.error] += 1
            elif outcome.at < 0:
                cells[name, "-", outcome.error] += 1


@dataclass
class Failure:
    """A broken invariant and what led to it."""

    kind: str
    detail: str
    items: list[Item]
    effective: list[Item]
    """The items without those that were refused, the last one aside."""
    seed: str = ""


def run(items: Iterable[Item], **options: Any) -> tuple[Failure | None, Tally]:
    """Plays recorded items to the end or to the first thing that is broken."""
    episode = Episode(**options)
    return follow(episode, items), episode.tally


def follow(episode: Episode, items: Iterable[Item]) -> Failure | None:
    """Feeds items to an episode until one breaks something."""
    done: list[Item] = []
    effective: list[Item] = []
    try:
        for item in items:
            done.append(item)
            if episode.play(item):
                effective.append(item)
        episode.check()
    except Broken as broken:
        last = [] if effective and effective[-1] is done[-1] else done[-1:]
        return Failure(broken.kind, broken.detail, done, effective + last)
    return None


def generated(model: Model, seed: str, transactions: int) -> Iterator[Item]:
    """What a seed makes up, as the model develops."""
    generator = Generator(model, seed)
    count = 0
    while count < transactions:
        item = generator.next()
        count += "ops" in item
        yield item


def explore(seed: str, transactions: int, **options: Any) -> tuple[Failure | None, Tally]:
    """A fresh episode out of a seed."""
    episode = Episode(**options)
    failure = follow(episode, generated(episode.model, seed, transactions))
    if failure is not None:
        failure.seed = seed
    return failure, episode.tally
