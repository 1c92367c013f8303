"""What a run of 16, 64 or 256 members asks of chain, lines and machines; docs/scale.md says what it means.

python -m benchmarks.scale                # the tables, from the measured constants; simulates for some minutes
python -m benchmarks.scale --json         # the same for scripts
python -m benchmarks.scale --sizes 16,64  # sooner
python -m benchmarks.scale measure        # measures the constants again, into docs/scale/measured.json
python -m benchmarks.scale validate       # compares the simulation with real processes on slow lines
python -m benchmarks.scale page           # writes tables and plot into docs/scale.md
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.scale.measure import measure
from benchmarks.scale.model import MEASURED, SIZES, load_measured
from benchmarks.scale.page import PAGE, as_json, as_text, write_page
from benchmarks.scale.scenes import play_all, scenes
from benchmarks.scale.validate import validate


def main(arguments: list[str] | None = None) -> int:
    """Run it; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "what", nargs="?", choices=("tables", "measure", "validate", "page"), default="tables"
    )
    parser.add_argument("--json", action="store_true", help="numbers instead of Markdown")
    parser.add_argument("--seed", type=int, default=1, help="of the simulation")
    parser.add_argument(
        "--sizes", default=",".join(map(str, SIZES)), help="members of the simulated runs, from 16"
    )
    parser.add_argument("--measured", type=Path, default=MEASURED, help="file of the measured constants")
    parser.add_argument("--page", type=Path, default=PAGE, help="page that `page` writes into")
    chosen = parser.parse_args(arguments)
    try:
        sizes = tuple(sorted({int(size) for size in chosen.sizes.split(",")}))
    except ValueError:
        sizes = ()
    if not sizes or not set(sizes) <= set(SIZES):
        parser.error(f"--sizes {chosen.sizes}: choose of {', '.join(map(str, SIZES))}")
    if chosen.what == "measure":
        old = json.loads(chosen.measured.read_text()) if chosen.measured.is_file() else {}
        kept = {"validation": old["validation"]} if "validation" in old else {}
        return _write(chosen.measured, {**measure(), **kept})
    measured = load_measured(chosen.measured)
    if chosen.what == "validate":
        return _write(chosen.measured, {**measured, "validation": validate(measured)})
    played = play_all(scenes(sizes), measured, chosen.seed)
    if chosen.what == "page":
        if sizes != SIZES:
            parser.error("the page has all sizes: leave --sizes out")
        write_page(chosen.page, measured, played)
        print(f"wrote {chosen.page}")
    elif chosen.json:
        print(json.dumps(as_json(measured, played), indent=1))
    else:
        print(as_text(measured, played))
    return 0


def _write(path: Path, found: dict[str, Any]) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))
    print(f"wrote {path}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
