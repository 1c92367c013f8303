"""Whole runs in which one member is killed at a random moment and started again: `make kill-seeds`.

Every run must end with equal weights on all members and on the chain, and with every token accounted for.
Prints one line per seed and exits 1 if any run broke a promise.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import trio

from localnet.run.plan import RunPlan, parse_tiers
from localnet.run.session import run_plan
from psyche_chain.config import load_config
from psyche_chain.errors import PsycheError
from psyche_train.cli.shell import first_error


def one(seed: int, config: Path, tiers: str, out: Path, every_s: float) -> list[str]:
    """Run once; return what went wrong."""
    loaded = load_config(config)
    plan = RunPlan(
        config=loaded,
        config_path=config,
        tiers=parse_tiers(tiers, len(tiers.split(","))),
        out=out / f"seed-{seed}",
        headless=True,
        kill_random=1,
        every_s=every_s,
        max_kills=1,
        seed=seed,
        timeout_s=600.0,
    )
    try:
        summary = trio.run(run_plan, plan)
    except (PsycheError, BaseExceptionGroup) as error:
        return [str(first_error(error))]
    found = list(summary.problems)
    if summary.kills != 1:
        found.append(f"{summary.kills} members were killed, one was wanted: make the run longer")
    return found


def main() -> int:
    """Parse the command line and run all seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="number of runs")
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--config", type=Path, default=Path("config/kill.toml"))
    parser.add_argument("--tiers", default="0,1,1")
    parser.add_argument(
        "--every",
        type=float,
        default=20.0,
        help="the kill falls in the first so many seconds of training, less 5",
    )
    parser.add_argument("--out", type=Path, default=Path("runs/kill-seeds"))
    args = parser.parse_args()
    bad = 0
    for seed in range(args.first, args.first + args.seeds):
        started = time.monotonic()
        found = one(seed, args.config, args.tiers, args.out, args.every)
        bad += bool(found)
        print(
            f"seed {seed}: {'; '.join(found) if found else 'weights equal'} ({time.monotonic() - started:.0f} s)",
            flush=True,
        )
    print(f"{args.seeds - bad} of {args.seeds} runs ended with equal weights")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
