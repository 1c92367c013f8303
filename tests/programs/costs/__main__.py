"""Measure what the programs cost: `python -m tests.programs.costs` compares with the table, `--write` renews it."""

import argparse
import sys

from tests.programs.costs import measure
from tests.programs.costs.page import PAGE, page
from tests.programs.costs.table import TABLE, Table, differences


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.programs.costs", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write {TABLE.name} and docs/{PAGE.name} anew")
    arguments = parser.parse_args()
    measured = measure.table()
    found = differences(Table.load(), measured) if TABLE.exists() else ["there is no table yet"]
    for line in found:
        print(line)
    if arguments.write:
        TABLE.write_text(measured.text())
        PAGE.write_text(page(measured))
        return 0
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
