"""Commands that only look: status, list-runs, show."""

import json as jsonlib
import sys
from typing import Annotated, Any

import trio
import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

from psyche_chain.admin import status as looks
from psyche_chain.chain import accounts
from psyche_chain.chain.rpc import RpcPool
from psyche_chain.chain.state import Phase
from psyche_chain.cli.options import JsonOpt, RpcOpt, RunArg, with_rpc
from psyche_train.cli import output
from psyche_train.cli.shell import add_commands

WATCH_S = 1.0
QUIET_LINE_S = 60.0


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    add_commands(
        app,
        ("status", status, "status demo --watch"),
        ("list-runs", list_runs, "list-runs --json"),
        ("show", show, "show demo --json"),
    )


def status(
    run: RunArg,
    watch: Annotated[bool, typer.Option("--watch", help="Keep looking until the run is finished.")] = False,
    json: JsonOpt = False,
    rpc: RpcOpt = None,
) -> None:
    """Show phase, progress and members of a run."""

    async def action(pool: RpcPool) -> None:
        found = await accounts.resolve_run(pool, run)
        if watch:
            await _watch(pool, found, json)
            return
        full = await looks.fetch_summary(pool, found)
        if json:
            output.data_json(full)
        else:
            output.data("\n".join(_status_lines(full)))

    with_rpc(rpc, action)


async def _watch(pool: RpcPool, run: accounts.Run, json: bool) -> None:
    """On a terminal a view that renews itself; else a line for each change, and one a minute."""
    if sys.stdout is not None and sys.stdout.isatty() and not json:
        with Live(console=Console(highlight=False), refresh_per_second=4) as live:
            while True:
                full = await looks.fetch_summary(pool, run)
                live.update(Text("\n".join(_status_lines(full))))
                if full["phase"] == Phase.FINISHED.label:
                    return
                await trio.sleep(WATCH_S)
    last, printed_at = None, float("-inf")
    while True:
        full = await looks.fetch_summary(pool, run)
        key = {k: v for k, v in full.items() if k not in ("seconds_left", "slots")}
        if key != last or trio.current_time() - printed_at > QUIET_LINE_S:
            output.data(jsonlib.dumps(full) if json else _status_line(full))
            last, printed_at = key, trio.current_time()
        if full["phase"] == Phase.FINISHED.label:
            return
        await trio.sleep(WATCH_S)


def _status_line(full: dict[str, Any]) -> str:
    left = "" if full["seconds_left"] is None else f" {full['seconds_left']}s left"
    pausing = " pausing" if full["pause_requested"] else ""
    return (
        f"{full['run_id']}: {full['phase']}{left}{pausing} epoch {full['epoch']} "
        f"step {full['step']}/{full['total_steps']} members {full['members']} "
        f"checkpoint {'-' if full['checkpoint_step'] is None else full['checkpoint_step']}"
    )


def _status_lines(full: dict[str, Any]) -> list[str]:
    left = "" if full["seconds_left"] is None else f", at most {full['seconds_left']} s left"
    pausing = ", pauses at the end of the epoch" if full["pause_requested"] else ""
    head = {
        "run": f"{full['run_id']}  {full['run']}",
        "name": full["name"] or None,
        "phase": f"{full['phase']}{left}{pausing}",
        "epoch": full["epoch"],
        "step": f"{full['step']} of {full['total_steps']}",
        "round": full["round"],
        "members": f"{full['members']} (at least {full['needed']} start an epoch, {full['capacity']} slots)",
        "checkpoint": "none yet"
        if full["checkpoint_step"] is None
        else f"step {full['checkpoint_step']}, weights {full['weights_sha256'][:16]}...",
    }
    lines = output.pairs({k: v for k, v in head.items() if v is not None})
    if full["slots"]:
        columns = ("slot", "wallet", "tier", "weight", "state", "missed")
        rows = [[s[c] for c in columns] for s in full["slots"]]
        lines += ["", *output.table(columns, rows, optional=("missed", "weight"))]
    return lines


def list_runs(json: JsonOpt = False, rpc: RpcOpt = None) -> None:
    """List all runs of the cluster."""
    rows = with_rpc(rpc, looks.list_runs)
    if json:
        output.data_json(rows)
        return
    if not rows:
        output.note(
            "there are no runs on this cluster yet; create one with: psyche-chain create-run config/demo.toml"
        )
        return
    columns = ("run_id", "run", "phase", "step", "members", "open", "epoch")
    cells = []
    for r in rows:
        if "error" in r:
            cells.append([r["run_id"], r["run"], "unreadable", None, None, None, None])
            output.warn(f"{r['run']}: {r['error']}")
            continue
        of = (f"{r['step']}/{r['total_steps']}", f"{r['members']}/{r['capacity']}")
        cells.append([r["run_id"], r["run"], r["phase"], *of, r["open"], r["epoch"]])
    output.data("\n".join(output.table(columns, cells, optional=("epoch", "open", "members", "step"))))


def show(run: RunArg, json: JsonOpt = False, rpc: RpcOpt = None) -> None:
    """Print everything that the chain knows of a run."""

    async def action(pool: RpcPool) -> dict[str, Any]:
        return await looks.show(pool, await accounts.resolve_run(pool, run))

    full = with_rpc(rpc, action)
    if json:
        output.data_json(full)
        return
    for section in ("run", "config", "pool"):
        if full[section] is not None:
            output.data("\n".join([f"[{section}]", *output.pairs(full[section]), ""]))
    output.data("\n".join(_status_lines(full["status"])))
