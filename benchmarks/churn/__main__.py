"""Play the scenarios of churn and of bad networks: `python -m benchmarks.churn [--only NAME] [--list]`.

Each is played by real `psyche-chain join` processes on an embedded chain, and ends with a comparison of weights,
log, pay and samples. Prints one line each and a table at the end; exits 1 if any promise was broken.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from benchmarks.churn import network, scenarios
from benchmarks.churn.checks import Problem
from benchmarks.churn.scenarios import SCENARIOS, Scenario
from benchmarks.churn.stage import Stage, open_stage
from psyche_chain.errors import PsycheError
from psyche_train.cli.shell import first_error

assert scenarios
assert network

NETWORK = [name for name, found in SCENARIOS.items() if found.play.__module__ == network.__name__]
Result = tuple[str, str, str, float]
"""Name, "ok" or "FAILED", what was seen, seconds."""


@asynccontextmanager
async def one_stage(folder: Path, seed: int, kind: str) -> AsyncIterator[Stage]:
    """A stage on which every member trains."""
    async with open_stage(folder, seed=seed, kind=kind) as stage:
        await stage.all_train(240)
        yield stage


async def play(stage: Stage, found: Scenario) -> Result:
    """Play one scenario on a stage and compare everything afterwards."""
    began = time.monotonic()
    try:
        await stage.all_train()
        seen = await found.play(stage)
        broken = await stage.settle()
        await stage.all_train()
    except (Problem, PsycheError, OSError, AssertionError) as error:
        return found.name, "FAILED", str(error) or repr(error), time.monotonic() - began
    return found.name, "FAILED" if broken else "ok", "; ".join([*broken, seen]), time.monotonic() - began


async def play_all(chosen: Sequence[Scenario], out: Path, *, seed: int, kind: str) -> list[Result]:
    """Play the scenarios on one stage after the other: a new one after each that failed."""
    results: list[Result] = []
    left = list(chosen)
    number = 0
    while left:
        number += 1
        try:
            async with one_stage(out / f"stage-{number}", seed, kind) as stage:
                while left:
                    result = await play(stage, left.pop(0))
                    results.append(result)
                    _show(result)
                    if result[1] != "ok":
                        break
        except (Problem, PsycheError, BaseExceptionGroup) as error:
            if isinstance(error, BaseExceptionGroup) and not error.split((Problem, PsycheError))[0]:
                raise
            print(f"the stage could not be set: {first_error(error)}", flush=True)
            if not results or len(results) + len(left) == len(chosen):
                raise SystemExit(1) from None
    return results


def _show(result: Result) -> None:
    name, outcome, seen, seconds = result
    print(f"{name:24} {outcome:7} {seconds:5.0f} s  {seen}", flush=True)


def main() -> int:
    """Parse the command line and play."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.churn", description=__doc__)
    parser.add_argument("--only", action="append", metavar="NAME", help="this scenario; may be repeated")
    parser.add_argument("--network", action="store_true", help="only the scenarios of bad networks")
    parser.add_argument("--list", action="store_true", help="show the scenarios")
    parser.add_argument(
        "--packets", action="store_true", help="lose real packets: network namespaces, as root"
    )
    parser.add_argument("--seed", type=int, default=0, help="of everything that the network draws")
    parser.add_argument("--out", type=Path, help="folder of the stages, which is kept; else a temporary one")
    args = parser.parse_args()
    if args.list:
        for found in SCENARIOS.values():
            print(f"{found.name:24} {found.about}")
        return 0
    names = args.only or (NETWORK if args.network else list(SCENARIOS))
    if unknown := [name for name in names if name not in SCENARIOS]:
        parser.error(f"no scenario is called {unknown[0]!r}; --list shows them")
    if args.packets:
        from localnet.faults.packets import why_not

        if reason := why_not():
            parser.error(f"--packets: {reason}")
    out = args.out or Path(tempfile.mkdtemp(prefix="churn-"))
    try:
        results = trio.run(
            lambda: play_all(
                [SCENARIOS[n] for n in names],
                out,
                seed=args.seed,
                kind="packets" if args.packets else "proxy",
            )
        )
    except KeyboardInterrupt:
        return 130
    except BaseExceptionGroup as error:  # trio hands an interrupt on in a group
        if not error.split(KeyboardInterrupt)[0]:
            raise
        return 130
    finally:
        if args.out is None:
            shutil.rmtree(out, ignore_errors=True)
    print(f"\n{'scenario':24} outcome   time  what was seen")
    for result in results:
        _show(result)
    bad = sum(result[1] != "ok" for result in results)
    print(f"{len(results) - bad} of {len(results)} scenarios kept every promise")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
