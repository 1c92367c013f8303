"""`python -m tests.programs.adversary [--all] [SCENE ...]`: try everything and say what came of it.

Exit status 1 if anything was accepted without a reason, was refused without a name, or changed what it must not.
"""

import argparse
import sys
import time
from collections import Counter

from tests.programs.adversary.attack import Report, attack
from tests.programs.adversary.scenes import build_scenes


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.programs.adversary", description=__doc__)
    parser.add_argument("--all", action="store_true", help="every account of the world in every position")
    parser.add_argument(
        "--generic", action="store_true", help="list where a refusal is Anchor's or the runtime's"
    )
    parser.add_argument("scenes", nargs="*", metavar="SCENE", help="only these")
    options = parser.parse_args()
    started = time.process_time()
    world, scenes = build_scenes()
    if unknown := set(options.scenes) - set(scenes):
        parser.error(f"no scene is called {', '.join(sorted(unknown))}; there are: {', '.join(scenes)}")
    chosen = {name: scenes[name] for name in options.scenes or scenes}
    report = attack(world, chosen, per_class=0 if options.all else 1)
    print_report(report, time.process_time() - started, generic=options.generic)
    stale = [] if options.scenes else report.stale()
    for title, lines in (
        ("accepted without a reason", report.unexplained),
        ("faults", report.faults),
        ("reasons for nothing", [str(pattern) for pattern in stale]),
    ):
        print(f"{title}: {len(lines)}")
        for line in lines[:50]:
            print(f"  {line}")
    return 1 if report.unexplained or report.faults or stale else 0


def print_report(report: Report, seconds: float, *, generic: bool) -> None:
    families: Counter[str] = Counter()
    for (_, family), count in report.tried.items():
        families[family] += count
    scenes = len({scene for scene, _ in report.tried})
    parts = ", ".join(f"{count} {family}" for family, count in families.items())
    print(f"{report.num_tried} mutations of {scenes} calls in {seconds:.0f} CPU seconds: {parts}")
    own = sum(n for (*_, is_own), n in report.refusals.items() if is_own)
    refused = report.refusals.total()
    print(f"accepted, for a reason or not: {report.num_tried - refused}")
    print(f"refused: {own} by an error of the program's own, {refused - own} by Anchor or the runtime")
    errors: Counter[str] = Counter()
    for (_, target, kind, error, is_own), count in report.refusals.items():
        if generic and not is_own:
            errors[f"{error} ({target}, {kind})"] += count
        elif not generic:
            errors[error] += count
    for error, count in errors.most_common():
        print(f"  {count:6} {error}")


if __name__ == "__main__":
    sys.exit(main())
