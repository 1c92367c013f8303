"""Train what is missing, then write the tables and plots.

python -m benchmarks.learning                       # everything; two processes
python -m benchmarks.learning --only 'adamw,loco-*' # rows by name; * stands for anything
python -m benchmarks.learning --quick               # a minute, at a size that shows nothing but that it works
python -m benchmarks.learning --report              # only the tables and plots, from the results that are there

Interrupt it when you like: a run that ended is not trained again.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from fnmatch import fnmatchcase
from pathlib import Path

from benchmarks.learning.matrix import MATRIX
from benchmarks.learning.one_run import train_row
from benchmarks.learning.report import write_report
from benchmarks.learning.results import Results
from benchmarks.learning.rows import QUICK, SEEDS, Row, Scale

ROOT = Path(__file__).resolve().parents[2]


def main(arguments: list[str] | None = None) -> int:
    """Run it; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.learning",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", default="*", help="comma-separated names of rows; * stands for anything")
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)))
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument(
        "--quick", action="store_true", help="tiny model, few rounds; implies --out build/learning"
    )
    parser.add_argument("--report", action="store_true", help="train nothing")
    parser.add_argument("--out", type=Path, help="folder of learning.md and learning/; default docs")
    chosen = parser.parse_args(arguments)
    scale = QUICK if chosen.quick else Scale()
    out = chosen.out or (ROOT / "build" / "learning" if chosen.quick else ROOT / "docs")
    seeds = [int(seed) for seed in chosen.seeds.split(",")]
    patterns = chosen.only.split(",")
    rows = [row for row in MATRIX if any(fnmatchcase(row.name, pattern) for pattern in patterns)]
    if not rows:
        parser.error(f"no row is named {chosen.only}: there are {', '.join(row.name for row in MATRIX)}")
    results = Results(out / "learning" / "results", scale, seeds)
    failed = 0
    if not chosen.report:
        wanted = [(row, seed) for row in rows for seed in seeds if results.get(row, seed) is None]
        failed = train_all(wanted, results, scale, max(1, chosen.workers))
    write_report(out, results)
    print(f"wrote {out / 'learning.md'}")
    return 1 if failed else 0


def train_all(wanted: list[tuple[Row, int]], results: Results, scale: Scale, workers: int) -> int:
    """Train runs in order, `workers` at a time; returns how many failed."""
    if not wanted:
        return 0
    failed = 0
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        running = {pool.submit(train_row, row, scale, seed): (row, seed) for row, seed in wanted}
        for number, done in enumerate(as_completed(running), start=1):
            row, seed = running[done]
            try:
                result = done.result()
            except Exception as error:  # the other runs go on; the report shows what is missing
                failed += 1
                print(
                    f"[{number}/{len(wanted)}] {row.name} seed {seed}: {error!r}", file=sys.stderr, flush=True
                )
                continue
            results.put(row, seed, result)
            losses = {tier: round(loss, 4) for tier, loss in result["loss"].items()}
            print(
                f"[{number}/{len(wanted)}] {row.name} seed {seed}: {losses}, {result['cpu_seconds']} CPU s",
                flush=True,
            )
    return failed


if __name__ == "__main__":
    sys.exit(main())
