"""What a campaign says while it goes on, and in the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

from localnet.simulator.campaign import write
from localnet.simulator.places import places
from localnet.simulator.tally import Failure, Tally

EVERY_S = 20.0
"""Between two lines; on a terminal it is one line that changes."""
ON_TERMINAL_S = 0.5


class Shown:
    """Writes to stderr how far a campaign is, and each failure as it comes; keeps the failed schedules."""

    def __init__(self, count: int, out: Path, *, quiet: bool) -> None:
        self._count, self._out, self._quiet = count, out, quiet
        self._began = self._last = time.monotonic()
        self._told = 0
        self._live = sys.stderr.isatty()

    def __call__(self, tally: Tally) -> None:
        for failure in tally.failures[self._told :]:
            path = write(failure, self._out)
            if not self._quiet:
                self._say("\n".join(failed(failure, path)), end="\n")
        self._told = len(tally.failures)
        now = time.monotonic()
        if self._quiet or now < self._last + (ON_TERMINAL_S if self._live else EVERY_S):
            return
        self._last = now
        rate = tally.schedules / (now - self._began)
        left_min = (self._count - tally.schedules) / rate / 60
        line = (
            f"{tally.schedules} of {self._count} schedules, {rate:.2f}/s, about {left_min:.0f} min left, "
            f"{len(tally.failures)} failed"
        )
        self._say(line, end="" if self._live else "\n")

    def _say(self, text: str, end: str) -> None:
        sys.stderr.write(("\r\x1b[K" if self._live else "") + text + end)
        sys.stderr.flush()


def failed(failure: Failure, path: Path) -> Iterator[str]:
    """What failed, and how it is played again."""
    smallest = failure.smallest
    yield f"seed {failure.seed} failed, {failure.kind}: {failure.message}"
    yield (
        f"  shrunk to {len(smallest.faults)} faults, {len(smallest.tiers)} members, {smallest.total_steps} "
        f"steps in {failure.plays} plays; play it again with:"
    )
    yield f"  psyche-localnet simulate --replay {path} --trace"


def table(tally: Tally, count: int) -> Iterator[str]:
    """The sum of a campaign."""
    if tally.interrupted:
        yield f"interrupted after {tally.schedules} of {count} schedules"
    rate = tally.schedules / tally.cpu_s if tally.cpu_s else 0.0
    yield (
        f"{tally.schedules} schedules, {len(tally.failures)} failed; {tally.awaits:,} await points, "
        f"{tally.simulated_s / 3600:.1f} simulated hours, {rate:.2f} schedules per CPU second"
    )
    for failure in tally.failures:
        yield f"seed {failure.seed} failed, {failure.kind}: {failure.message}"
    if tally.faults:
        yield f"{'fault':<16}{'began':>7}  at await points of the client"
    by_kind: dict[str, set[str]] = {}
    for kind, place in tally.places:
        by_kind.setdefault(kind, set()).add(place)
    for kind, times in sorted(tally.faults.items()):
        yield f"{kind:<16}{times:>7}  {len(by_kind.get(kind, ())) or '-'}"
    met = {place for _, place in tally.places}
    yield f"faults began at {len(met)} of the {len(places())} await points of the client"
    yield (
        f"rounds folded {tally.events['fold']}, checkpoints taken {tally.events['restore']}, "
        f"rewinds {tally.events['rewind']}"
    )


def summary(tally: Tally, out: Path) -> dict[str, object]:
    """The same for scripts."""
    hits: dict[str, dict[str, int]] = {}
    for (kind, place), times in sorted(tally.places.items()):
        hits.setdefault(place, {})[kind] = times
    return {
        "schedules": tally.schedules,
        "interrupted": tally.interrupted,
        "failures": [
            {
                "seed": f.seed,
                "kind": f.kind,
                "message": f.message,
                "replay": str(out / f"seed-{f.seed}.json"),
            }
            for f in tally.failures
        ],
        "await_points": tally.awaits,
        "simulated_seconds": round(tally.simulated_s, 1),
        "cpu_seconds": round(tally.cpu_s, 2),
        "faults": dict(tally.faults),
        "places": hits,
        "events": dict(tally.events),
    }
