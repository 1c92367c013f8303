"""Kill the embedded chain under load again and again: `python -m benchmarks.chain_crash --kills 50`.

After each kill everything that was confirmed must be there, whole, and balances must add up to the lamport.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from tests.localnet.chain.crash import run


def main() -> None:
    """Run and print how much was confirmed and kept."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chain_crash", description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--senders", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found = run(Path(folder), kills=args.kills, senders=args.senders, seed=args.seed)
    seconds = time.monotonic() - start
    print(f"{found.kills} kills, {found.confirmed} confirmed transactions, none lost, {seconds:.0f} s")


if __name__ == "__main__":
    main()
