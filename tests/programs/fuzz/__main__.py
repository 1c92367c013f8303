"""Fuzz the three programs in LiteSVM against a Python model: `python -m tests.programs.fuzz --help`."""

import argparse
import sys
from pathlib import Path

from tests.programs.fuzz.campaign import campaign
from tests.programs.fuzz.episode import run
from tests.programs.fuzz.report import summary, table
from tests.programs.fuzz.shrink import load, save, shrink


def main(argv: list[str] | None = None) -> int:
    """Exit code 0: nothing broke; 1: an invariant is broken, and a file says how."""
    parser = argparse.ArgumentParser(prog="python -m tests.programs.fuzz", description=__doc__)
    parser.add_argument("--transactions", type=int, default=1_000_000, help="how many (default 1000000)")
    parser.add_argument(
        "--seed", type=int, default=1, help="episodes are <seed>-0, <seed>-1, ... (default 1)"
    )
    parser.add_argument("--seconds", type=float, help="stop after this long, whatever was done")
    parser.add_argument("--workers", type=int, default=2, help="processes (default 2)")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/fuzz"), help="folder for coverage and failures"
    )
    parser.add_argument("--replay", type=Path, help="run a recorded failure instead")
    args = parser.parse_args(argv)
    if args.replay is not None:
        return replay(args.replay)
    result = campaign(args.transactions, args.seed, args.workers, args.seconds)
    args.out.mkdir(parents=True, exist_ok=True)
    coverage = args.out / "coverage.txt"
    coverage.write_text(table(result.tally))
    done = result.tally.transactions
    rate = done / max(result.seconds, 0.001)
    print(
        f"{done:,} transactions in {result.seconds:,.0f} s ({rate:,.0f} per second), {result.episodes} episodes"
    )
    print(summary(result.tally))
    print(f"table: {coverage}")
    for failure in result.failures:
        print(f"\nBROKEN in episode {failure.seed}: {failure.kind}: {failure.detail}")
        print(f"shrinking {len(failure.items)} items ...")
        small = shrink(failure)
        path = args.out / f"failure-{failure.seed}.json"
        save(small, path)
        print(f"{len(small.items)} items are enough: {small.kind}: {small.detail}")
        print(f"again: python -m tests.programs.fuzz --replay {path}")
    return 1 if result.failures else 0


def replay(path: Path) -> int:
    """Runs a recorded failure; says whether it still fails."""
    items = load(path)
    failure, tally = run(items)
    if failure is None:
        print(f"{tally.transactions} transactions: nothing is broken")
        return 0
    print(f"BROKEN after {len(failure.items)} of {len(items)} items: {failure.kind}: {failure.detail}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
