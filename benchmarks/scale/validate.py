"""Real network processes and the simulation, side by side."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

import trio

from benchmarks.scale.exchange import Costs, Exchange, Line, simulate
from benchmarks.scale.model import MBIT
from benchmarks.scale.real import exchange, members

ONE_WAY_S = 0.025
REVEAL_S = 0.05
CASES: tuple[tuple[int, float, float, int], ...] = (
    (6, 4.0, 4.0, 1_000_000),
    (4, 4.0, 8.0, 1_000_000),
)
"""Members, megabits a second up and down, bytes of an update."""
ROUNDS = 2


async def real_rounds(
    count: int, line: Line, size: int, rounds: int = ROUNDS
) -> tuple[list[float], list[float]]:
    """Seconds until everybody had everything, and bytes received for one that was needed, round by round."""
    with tempfile.TemporaryDirectory() as folder:
        async with members(Path(folder), [line] * count, ONE_WAY_S) as clients:
            await trio.sleep(2)
            found = [await exchange(clients, [size] * count, number=n + 1) for n in range(rounds)]
    needed = (count - 1) * size
    return [f.all_s for f in found], [statistics.fmean(f.bytes_in) / needed for f in found]


def compare(
    count: int, line: Line, size: int, measured: dict[str, Any], rounds: int = ROUNDS
) -> dict[str, Any]:
    """One case, real and simulated."""
    real_s, repeated = trio.run(real_rounds, count, line, size, rounds)
    network = measured["network"]
    costs = Costs(network["stream_s"], network["byte_s"])
    asked = Exchange((line,) * count, (size,) * count, one_way_s=ONE_WAY_S, spread_s=REVEAL_S, costs=costs)
    return {
        "members": count,
        "up": line.up,
        "down": line.down,
        "bytes": size,
        "bound_s": asked.bound_s(),
        "real_s": statistics.median(real_s),
        "real_low_s": min(real_s),
        "real_high_s": max(real_s),
        "real_repeated": statistics.median(repeated),
        "simulated_s": simulate(asked).all_s,
    }


def validate(measured: dict[str, Any]) -> list[dict[str, Any]]:
    """All cases; about two minutes, mostly waiting."""
    return [compare(count, Line(up * MBIT, down * MBIT), size, measured) for count, up, down, size in CASES]
