"""The results that exist, one JSON file a run, and the statistics over seeds."""

from __future__ import annotations

import json
import math
import os
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.learning.rows import Row, Scale, identity

_T_95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""Two-sided 95 % points of Student's t by degrees of freedom."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over seeds and half the width of its 95 % interval (t distribution)."""

    mean: float
    half: float
    """Infinite for a single value."""
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Estimate:
        """Of at least one value."""
        mean = statistics.fmean(values)
        if len(values) == 1:
            return cls(mean, math.inf, 1)
        freedom = min(len(values) - 1, max(_T_95))
        return cls(mean, _T_95[freedom] * statistics.stdev(values) / math.sqrt(len(values)), len(values))

    def text(self, digits: int, factor: float = 1.0, unit: str = "") -> str:
        """`mean ± half`, or the mean alone where there is one value."""
        half = "" if math.isinf(self.half) else f" ± {self.half * factor:.{digits}f}"
        return f"{self.mean * factor:.{digits}f}{half}{unit}"


class Results:
    """The results in one folder.

    Args:
        folder: made if it is missing.
    """

    def __init__(self, folder: Path, scale: Scale, seeds: Sequence[int]) -> None:
        self.folder, self.scale, self.seeds = folder, scale, tuple(seeds)
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, row: Row, seed: int) -> Path:
        """Where a run's result is or will be."""
        return self.folder / f"{identity(row, self.scale, seed)}.json"

    def get(self, row: Row, seed: int) -> dict[str, Any] | None:
        """A run's result, if it is there."""
        path = self.path(row, seed)
        if not path.is_file():
            return None
        result: dict[str, Any] = json.loads(path.read_text())
        return result

    def put(self, row: Row, seed: int, result: dict[str, Any]) -> None:
        """Keep a result; readers see it whole or not at all."""
        path = self.path(row, seed)
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(result, indent=1) + "\n")
        temporary.replace(path)

    def of(self, row: Row) -> dict[int, dict[str, Any]]:
        """``seed -> result`` of a row, as far as they are there."""
        found = {seed: self.get(row, seed) for seed in self.seeds}
        return {seed: result for seed, result in found.items() if result is not None}

    def losses(self, row: Row, tier: int) -> dict[int, float]:
        """``seed -> validation loss`` at a tier's width."""
        return {
            seed: result["loss"][str(tier)]
            for seed, result in self.of(row).items()
            if str(tier) in result["loss"]
        }

    def excess(self, row: Row, other: Row, tier: int = 0, other_tier: int = 0) -> Estimate | None:
        """How far a row's loss lies above another's, relative, seed by seed; None without a common seed."""
        mine, theirs = self.losses(row, tier), self.losses(other, other_tier)
        ratios = [mine[seed] / theirs[seed] - 1 for seed in mine if seed in theirs]
        return Estimate.of(ratios) if ratios else None

    def helpers(self, mixed: Row, same: Row, lone: Row) -> Estimate | None:
        """What two sliced members add to a lone full one, as a share of what two more full ones add."""
        a, b, c = (self.losses(row, 0) for row in (mixed, same, lone))
        shares = [(c[seed] - a[seed]) / (c[seed] - b[seed]) for seed in a if seed in b and seed in c]
        return Estimate.of(shares) if shares else None
