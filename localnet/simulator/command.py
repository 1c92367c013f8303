"""The `simulate` command of `psyche-localnet`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from psyche_chain.errors import ConfigError

if TYPE_CHECKING:
    from localnet.simulator.campaign import Drawing, Failure, Tally
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

    if unknown := sorted(set(kind or ()) - set(KINDS)):
        raise ConfigError(f"no fault is called {unknown[0]}", f"there are {', '.join(sorted(KINDS))}")
    drawing = campaign.Drawing(members, faults, tuple(kind or ()))
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
    processes = min(workers or min(8, os.cpu_count() or 1), -(-count // campaign.AT_ONCE))
    tally = _many(seed, count, drawing, processes, shrink, quiet=as_json)
    for failure in tally.failures:
        campaign.write(failure, out)
    if as_json:
        typer.echo(json.dumps(_as_json(tally, out), indent=2))
    else:
        _show(tally, out)
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


def _many(seed: int, count: int, drawing: Drawing, workers: int, shrinks: bool, *, quiet: bool) -> Tally:
    from localnet.simulator import campaign

    console = Console(stderr=True)
    columns = (
        TextColumn("schedules"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as bars:
        task = bars.add_task("", total=count)

        def show(tally: Tally) -> None:
            failed = f"{len(tally.failures)} failed" if tally.failures else ""
            bars.update(task, completed=tally.schedules, description=failed)

        return campaign.many(seed, count, drawing, workers=workers, shrinks=shrinks, progress=show)


def _show(tally: Tally, out: Path) -> None:
    for failure in tally.failures:
        typer.echo(f"seed {failure.seed} failed, {failure.kind}: {failure.message}")
        smallest = failure.smallest
        typer.echo(
            f"  shrunk to {len(smallest.faults)} faults, {len(smallest.tiers)} members, {smallest.total_steps} "
            f"steps in {failure.plays} plays; play it again with:"
        )
        typer.echo(f"  psyche-localnet simulate --replay {out / f'seed-{failure.seed}.json'} --trace")
    met = ", ".join(f"{kind} {count}" for kind, count in sorted(tally.faults.items()))
    rate = tally.schedules / tally.cpu_s if tally.cpu_s else 0.0
    typer.echo(
        f"{tally.schedules} schedules, {len(tally.failures)} failed; {tally.awaits:,} await points, "
        f"{tally.simulated_s / 3600:.1f} simulated hours, {rate:.2f} schedules per CPU second"
    )
    typer.echo(f"faults: {met or 'none'}")
    typer.echo(
        f"rounds folded {tally.events['fold']}, checkpoints taken {tally.events['restore']}, "
        f"rewinds {tally.events['rewind']}"
    )


def _as_json(tally: Tally, out: Path) -> dict[str, object]:
    def failed(failure: Failure) -> dict[str, object]:
        return {
            "seed": failure.seed,
            "kind": failure.kind,
            "message": failure.message,
            "replay": str(out / f"seed-{failure.seed}.json"),
        }

    return {
        "schedules": tally.schedules,
        "failures": [failed(f) for f in tally.failures],
        "await_points": tally.awaits,
        "simulated_seconds": round(tally.simulated_s, 1),
        "cpu_seconds": round(tally.cpu_s, 2),
        "faults": dict(tally.faults),
        "events": dict(tally.events),
    }
