"""An hour's worth of slots, faster: `python -m benchmarks.chain_soak` shows that memory and disk stay flat."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.localnet.chain.soak import KEEP_SLOTS, KEEP_TRANSACTIONS, SLOT_MS, SLOTS_AN_HOUR, run

MOST_GROWTH = 1.10


def main() -> int:
    """Run, print samples; exit status 1 where something grew."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chain_soak", description=__doc__)
    parser.add_argument("--slots", type=int, default=SLOTS_AN_HOUR)
    args = parser.parse_args()
    print(
        f"slots of {SLOT_MS} ms; {KEEP_SLOTS} slots and {KEEP_TRANSACTIONS} transactions are kept", flush=True
    )
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = run(Path(folder), slots=args.slots, say=lambda line: print(line, flush=True))
    memory, disk = found.growth()
    seconds = time.monotonic() - start
    print(
        f"{args.slots} slots in {seconds:.0f} s; last third to middle third: memory x{memory:.2f}, disk x{disk:.2f}"
    )
    return int(max(memory, disk) > MOST_GROWTH)


if __name__ == "__main__":
    sys.exit(main())
