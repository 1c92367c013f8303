"""`plot-schedule`: learning rate, batch and tokens of a run before it begins."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from psyche_train.cli import exit_codes, output
from psyche_train.cli.options import ConfigArg, JsonOpt, SetOpt
from psyche_train.cli.shell import add_commands
from psyche_train.errors import PsycheError

POINTS = 1000
BLOCKS = "▁▂▃▄▅▆▇█"


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    add_commands(app, ("plot-schedule", plot_schedule, "plot-schedule config/demo.toml -o schedule.png"))


def plot_schedule(
    config: ConfigArg,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Write a PNG.")] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, max=10**12, help="Of the run; else config.total_steps.")
    ] = None,
    members: Annotated[
        int,
        typer.Option("--members", min=1, max=256, help="Members; each gets one sample of a round at least."),
    ] = 1,
    set_: SetOpt = None,
    json: JsonOpt = False,
) -> None:
    """Show what learning rate, samples and tokens a run will have at which step.

    The batch and the tokens are those of a run in which every update is accepted.
    """
    from psyche_train.run_file import load_run_file
    from psyche_train.schedule_plan import SchedulePlan

    run_file, warnings = load_run_file(config, set_ or ())
    for warning in warnings:
        output.warn(warning)
    spec, table = run_file.spec, run_file.config
    if steps is None:
        turns = spec.lr_schedule.chosen.turns()
        steps = table.total_steps if table is not None else turns[-1][0] + 1 if turns else None
    if steps is None:
        raise PsycheError(
            f"{config} does not say how many steps the run has", "add --steps N", exit_codes.USAGE
        )
    plan = SchedulePlan(spec, steps=steps, ramp=table, members=members)
    turns = plan.turns()
    rows = [
        {**asdict(planned), "what": what}
        for planned, (_, what) in zip(plan.at([step for step, _ in turns]), turns, strict=True)
    ]
    if out is not None:
        from psyche_train.plots import plot_plan

        plot_plan(out, f"{run_file.run_id}: {spec.lr_schedule.kind}", plan.at(plan.sampled(POINTS)))
        output.note(f"wrote {out}")
    if json:
        output.data_json(rows)
    else:
        output.data("\n".join(_lines(plan, rows)))
    if late := plan.beyond():
        output.note(f"the run ends before step {late[0][0]:,}, where {late[0][1]}")


def _lines(plan: object, rows: list[dict[str, object]]) -> list[str]:
    from psyche_train.schedule_plan import SchedulePlan

    assert isinstance(plan, SchedulePlan)
    has_batch = rows[0]["samples"] is not None
    columns = ["step", "learning rate", *(["samples", "tokens"] if has_batch else []), "what"]
    cells = [
        [
            str(row["step"]),
            f"{row['learning_rate']:.3e}",
            *([str(row["samples"]), str(row["tokens"])] if has_batch else []),
            row["what"],
        ]
        for row in rows
    ]
    width = min(64, output.width() - 16, plan.steps)
    across = plan.at([(plan.steps - 1) * i // max(1, width - 1) for i in range(width)])
    lines = ["learning rate   " + sparkline([point.learning_rate for point in across])]
    sizes = [point.samples for point in across if point.samples is not None]
    if len(set(sizes)) > 1:
        lines.append("samples         " + sparkline(sizes))
    return [*lines, "", *output.table(columns, cells)]


def sparkline(values: list[float] | list[int]) -> str:
    """A row of blocks whose heights are the values, from zero to the largest."""
    top = max(values)
    if top <= 0:
        return BLOCKS[0] * len(values)
    return "".join(BLOCKS[min(len(BLOCKS) - 1, int(value / top * len(BLOCKS)))] for value in values)
