"""Transfers between two processes over raw TCP, py-libp2p as it comes, and our two steps, in turns.

    python -m benchmarks.network                     # everything, about five minutes
    python -m benchmarks.network direct --rounds 15
    python -m benchmarks.network direct --stacks tcp,step2 --bytes 16M
    python -m benchmarks.network delay rate both     # lines of 50 ms, 12.5 MB/s, and both
    python -m benchmarks.network --json > figures.json

Each stack has two processes and one warm connection over loopback; every round measures each stack once, so
that a busy machine slows all of them alike: read the ratios. Figures are medians with the least and the most
in brackets, CPU is that of the receiving and the sending process. `verified` hashes every piece and writes it
to a file as it comes. Small blobs count from opening a stream. `load` measures 300-byte requests beside a
transfer on the same connection. The lines are a proxy in a process of its own (`link.py`).
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections import defaultdict
from contextlib import ExitStack
from typing import Any

from benchmarks.network.processes import Child, child
from benchmarks.network.stacks import NAMES, STACKS

LINES = {"direct": (0.0, 0.0), "delay": (0.025, 0.0), "rate": (0.0, 12.5e6), "both": (0.025, 12.5e6)}
"""Delay in one direction in seconds, and bytes a second (0: no limit)."""
SMALL = (100_000, 1_000_000)

Figures = dict[str, dict[str, list[dict[str, float]]]]


def size_of(text: str) -> int:
    """`64M` or `100000` as bytes."""
    match = re.fullmatch(r"(\d+)([KM]?)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no size: write 64M, 512K or a number of bytes")
    return int(match[1]) << {"": 0, "K": 10, "M": 20}[match[2]]


def pair(stack: str, line: str, resources: ExitStack) -> Child:
    """Start both ends of a stack with a line between them."""
    delay_s, rate = LINES[line]
    server = resources.enter_context(child("ends", "serve", stack)).answer()
    port = server["port"]
    if line != "direct":
        port = resources.enter_context(child("link", port, delay_s, rate)).answer()["port"]
    client = resources.enter_context(child("ends", "ask", stack, port, server["identity"]))
    client.answer()
    return client


def measure(line: str, stacks: list[str], size: int, rounds: int) -> Figures:
    """`rounds` rounds over all stacks; a warm-up before them is not counted."""
    kinds = [("transfer", size), ("load", size)]
    if line == "direct":
        kinds += [("verified", size), *(("transfer", small) for small in SMALL)]
    figures: Figures = defaultdict(lambda: defaultdict(list))
    with ExitStack() as resources:
        clients = {stack: pair(stack, line, resources) for stack in stacks}
        for number in range(rounds + 1):
            for what, count in kinds:
                for stack, client in clients.items():
                    if what == "load" and stack == "tcp":
                        continue
                    result = client.ask(what=what, bytes=count)
                    if number:
                        figures[f"{what} {count}"][stack].append(result)
    return figures


def row(values: list[float], scale: float, digits: int) -> str:
    """Median, least and most."""
    middle, low, high = (scale * v for v in (statistics.median(values), min(values), max(values)))
    return f"{middle:.{digits}f} ({low:.{digits}f}-{high:.{digits}f})"


def show(line: str, figures: Figures) -> None:
    """Print the tables of one line."""
    delay_s, rate = LINES[line]
    print(
        f"\n## {line}: {2000 * delay_s:.0f} ms there and back, {f'{rate / 1e6:.1f} MB/s' if rate else 'no limit'}"
    )
    for kind, by_stack in figures.items():
        what, count = kind.split()
        if what == "load":
            print("\n| requests beside a transfer | p50 ms | p99 ms |\n|---|---|---|")
            for stack, results in by_stack.items():
                p50, p99 = ([r[key] for r in results] for key in ("p50_s", "p99_s"))
                print(f"| {NAMES[stack]} | {row(p50, 1e3, 1)} | {row(p99, 1e3, 1)} |")
            continue
        if int(count) in SMALL:
            print(f"\n| {int(count) // 1000} KB over a new stream | ms |\n|---|---|")
            for stack, results in by_stack.items():
                print(f"| {NAMES[stack]} | {row([r['total_s'] for r in results], 1e3, 1)} |")
            continue
        print(
            f"\n| {what}, {int(count) >> 20} MiB | MB/s | ÷ raw TCP | CPU s here + there |\n|---|---|---|---|"
        )
        base = [r["s"] for r in by_stack["tcp"]] if "tcp" in by_stack else []
        for stack, results in by_stack.items():
            speeds = [int(count) / r["s"] / 1e6 for r in results]
            ratio = (
                f"{statistics.median(base) / statistics.median(r['s'] for r in results):.2f}" if base else "-"
            )
            cpu = " + ".join(
                f"{statistics.median(r[key] for r in results):.2f}" for key in ("cpu_here", "cpu_there")
            )
            print(f"| {NAMES[stack]} | {row(speeds, 1, 1 if rate else 0)} | {ratio} | {cpu} |")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("lines", nargs="*", metavar="line", help=f"any of {', '.join(LINES)} (default: all)")
    parser.add_argument("--stacks", default=",".join(STACKS), help="default: %(default)s")
    parser.add_argument("--bytes", type=size_of, default=None, help="default: 64M direct, 32M over lines")
    parser.add_argument("--rounds", type=int, default=7, help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print every measurement instead of tables")
    options = parser.parse_args()
    stacks = options.stacks.split(",")
    for name, known in ((options.lines, LINES), (stacks, STACKS)):
        if unknown := set(name) - set(known):
            parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    everything: dict[str, Any] = {}
    for line in options.lines or LINES:
        size = options.bytes or (64 << 20 if line == "direct" else 32 << 20)
        figures = measure(line, stacks, size, options.rounds)
        everything[line] = figures
        if not options.json:
            show(line, figures)
    if options.json:
        print(json.dumps(everything))


if __name__ == "__main__":
    main()
