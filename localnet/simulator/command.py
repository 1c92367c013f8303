"""The `simulate` command of `psyche-localnet`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from psyche_chain.errors import ConfigError

if TYPE_CHECKING:
    from localnet.simulator.plan import Plan

OUT = Path("runs") / "simulator"


def simulate(
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the first schedule.")] = 0,
    schedules: Annotated[
        int | None,
        typer.Option("--schedules", min=1, help="How many, each with the next seed; without it one."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, help="Processes; all cores, but no more than 8, if absent."),
    ] = None,
    members: Annotated[
        int | None, typer.Option("--members", min=1, max=8, help="Instead of a drawn number.")
    ] = None,
    faults: Annotated[
        int | None, typer.Option("--faults", min=0, max=200, help="Instead of a drawn number.")
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option("--kind", metavar="NAME", help="Draw only this kind of fault; may be repeated."),
    ] = None,
    replay: Annotated[
        Path | None, typer.Option("--replay", metavar="FILE", help="Play a schedule that was written down.")
    ] = None,
    trace: Annotated[
        bool, typer.Option("--trace", help="Print all that happens; of one schedule only.")
    ] = False,
    shrink: Annotated[
        bool, typer.Option("--shrink/--no-shrink", help="Make schedules that fail as small as possible.")
    ] = True,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where failed schedules are kept.")] = OUT,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Whole runs in simulated time: the real client and programs, with faults at any await point.

    The same seed always gives the same schedule. Exit status 1 when weights, pay or samples are wrong, a run is
    stuck, or a member fails.
    """
    # Here, not at the top: the chain's own commands need neither the client nor torch.
    from localnet.simulator import campaign
    from localnet.simulator.plan import KINDS, Plan
    from localnet.simulator.progress import Shown, summary, table
    from localnet.simulator.tally import Drawing

    if unknown := sorted(set(kind or ()) - set(KINDS)):
        raise ConfigError(f"no fault is called {unknown[0]}", f"there are {', '.join(sorted(KINDS))}")
    drawing = Drawing(members, faults, tuple(kind or ()))
    if replay is not None:
        try:
            plan = Plan.from_json(replay.read_text())
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{replay} cannot be read: {error}", "name a file that the simulator wrote"
            ) from None
        raise typer.Exit(_one(plan, trace=trace, as_json=as_json))
    if schedules is None and not (shrink and not trace):
        raise typer.Exit(_one(drawing.plan(seed), trace=trace, as_json=as_json))
    count = schedules or 1
    processes = min(workers or min(8, os.cpu_count() or 1), count)
    show = Shown(count, out, quiet=as_json)
    tally = campaign.many(seed, count, drawing, workers=processes, shrinks=shrink, progress=show)
    if as_json:
        typer.echo(json.dumps(summary(tally, out), indent=2))
    else:
        for line in table(tally, count):
            typer.echo(line)
    if tally.interrupted:
        raise typer.Exit(130)
    raise typer.Exit(1 if tally.failures else 0)


def _one(plan: Plan, *, trace: bool, as_json: bool) -> int:
    from localnet.simulator.schedule import play

    outcome = play(plan, keep_trace=trace)
    if as_json:
        result = {
            "seed": plan.seed,
            "digest": outcome.digest,
            "simulated_seconds": round(outcome.seconds, 3),
            "awaits": outcome.awaits,
            "faults": dict(outcome.met),
            "violations": [{"kind": v.kind, "message": v.message} for v in outcome.violations],
            "trace": outcome.trace,
        }
        typer.echo(json.dumps(result, indent=2))
        return 1 if outcome.violations else 0
    for line in outcome.trace:
        typer.echo(line)
    typer.echo(
        f"seed {plan.seed}: {len(plan.tiers)} members, {plan.total_steps} steps, "
        f"{sum(outcome.met.values())} of {len(plan.faults)} faults met, {outcome.seconds:.0f} simulated s, "
        f"{outcome.awaits} await points, digest {outcome.digest[:16]}"
    )
    for violation in outcome.violations:
        typer.echo(f"{violation.kind}: {violation.message}")
    return 1 if outcome.violations else 0
