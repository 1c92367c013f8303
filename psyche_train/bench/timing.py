"""Times of several things measured in turns, so that a busy machine slows all of them alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch


def nothing() -> None:
    """Do nothing: the preparation of a part that needs none."""


@dataclass(frozen=True, slots=True)
class Part:
    """One thing to measure."""

    run: Callable[[], object]
    before: Callable[[], object] = nothing
    """Called before every `run`, not timed."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Times of one part over all rounds, in seconds."""

    median_s: float
    low_s: float
    """First quartile."""
    high_s: float
    """Third quartile."""
    cpu_s: float
    """Median of the CPU time of the whole process, all threads: what a loaded machine does not stretch."""

    @classmethod
    def of(cls, wall_s: list[float], cpu_s: list[float]) -> Timing:
        """Summarise at least one round."""
        quartiles = statistics.quantiles(wall_s, n=4) if len(wall_s) > 1 else wall_s * 3
        return cls(statistics.median(wall_s), quartiles[0], quartiles[2], statistics.median(cpu_s))


def interleave(
    parts: Mapping[str, Part], *, rounds: int, warmup: int = 1, device: torch.device | None = None
) -> dict[str, Timing]:
    """Run every part once per round, in order, and time it.

    Args:
        rounds: that count.
        warmup: that come first and do not.
        device: a CUDA device whose queue is waited for before and after each part.
    """

    def wait() -> None:
        if device is not None and device.type == "cuda":
            torch.cuda.synchronize(device)

    wall: dict[str, list[float]] = {name: [] for name in parts}
    busy: dict[str, list[float]] = {name: [] for name in parts}
    for round_number in range(warmup + rounds):
        for name, part in parts.items():
            part.before()
            wait()
            started, cpu = time.perf_counter(), time.process_time()
            part.run()
            wait()
            if round_number >= warmup:
                wall[name].append(time.perf_counter() - started)
                busy[name].append(time.process_time() - cpu)
    return {name: Timing.of(wall[name], busy[name]) for name in parts}
