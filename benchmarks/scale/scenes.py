"""Which exchanges are simulated for the page, on all cores; what cannot fit a round is not simulated."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.scale.exchange import RULES, Exchange, simulate
from benchmarks.scale.model import DEFAULT, LINES, MODELS, ROOT, ROUND_S, SIZES, exchange_of
from benchmarks.scale.shapes import Strategy

MIXED = (0, 1, 1)
"""Tiers, in turns."""
MANY = 256
"""Members of which one exchange takes a minute to simulate."""
KEPT = ROOT / "docs" / "scale" / "simulated.json"
"""Exchanges that were simulated before, by the hash of all that they depend on."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One row of the page."""

    members: int
    model: str
    line: str
    strategy: Strategy = DEFAULT
    tiers: tuple[int, ...] = (0,)

    def exchange(self, measured: dict[str, Any], seed: int) -> Exchange:
        """What is simulated."""
        return exchange_of(
            self.members, self.line, self.model, self.strategy, measured, tiers=self.tiers, seed=seed
        )


@dataclass(frozen=True, slots=True)
class Played:
    """A scene and how long its exchange takes, in seconds."""

    scene: Scene
    bound_s: float
    """What the lines allow."""
    all_s: float
    """Until everybody has everything; the bound, where that is beyond two rounds and nothing was simulated."""
    simulated: bool
    first_s: float = 0.0
    """Until the first member has everything."""
    repeated: float = 1.0
    """Bytes that were received for each byte that was needed."""
    cpu_s: float = 0.0
    """Of the busiest network process."""

    def table(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def scenes(sizes: Iterable[int] = SIZES) -> list[Scene]:
    """All rows: full members on every line, mixed tiers on symmetric ones; of many members the plain ones only."""
    return [
        Scene(members, model, line, tiers=tiers)
        for model in MODELS
        for members in sizes
        for line in LINES
        for tiers in ((0,), MIXED)
        if "/" not in line or (tiers == (0,) and members < MANY)
        if tiers == (0,) or members < MANY
    ]


def play(exchange: Exchange) -> dict[str, float]:
    """Simulate one exchange."""
    outcome = simulate(exchange)
    needed = (len(exchange.blobs) - 1) * sum(exchange.blobs)
    return {
        "all_s": outcome.all_s,
        "first_s": min(outcome.done_s),
        "repeated": sum(outcome.bytes_in) / max(1, needed),
        "cpu_s": max(outcome.cpu_s),
    }


def play_all(chosen: list[Scene], measured: dict[str, Any], seed: int, kept: Path = KEPT) -> list[Played]:
    """Simulate scenes side by side, the largest first, but for those that were simulated before.

    What lines cannot carry within two rounds is not simulated.
    """
    known: dict[str, dict[str, float]] = json.loads(kept.read_text()) if kept.is_file() else {}
    asked = [scene.exchange(measured, seed) for scene in chosen]
    names = [_name(exchange) for exchange in asked]
    fits = [exchange.bound_s() <= 2 * ROUND_S for exchange in asked]
    order = sorted(range(len(chosen)), key=lambda at: -chosen[at].members)
    wanted = {names[at]: asked[at] for at in order if fits[at] and names[at] not in known}
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        futures = {pool.submit(play, exchange): name for name, exchange in wanted.items()}
        for done in as_completed(futures):
            known[futures[done]] = done.result()
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
    return [
        Played(scene, exchange.bound_s(), simulated=True, **known[name])
        if fit
        else Played(scene, exchange.bound_s(), exchange.bound_s(), False)
        for scene, exchange, name, fit in zip(chosen, asked, names, fits, strict=True)
    ]


def _name(exchange: Exchange) -> str:
    return hashlib.sha256(f"{RULES} {exchange!r}".encode()).hexdigest()[:16]
