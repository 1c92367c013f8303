"""Commands that make runs and change what they are: validate-config, create-run, update-run, close-run."""

from pathlib import Path
from typing import Annotated, Any

import typer

from psyche_chain.admin import closing, create, update
from psyche_chain.admin.session import Session
from psyche_chain.amounts import format_amount
from psyche_chain.chain import accounts
from psyche_chain.cli.options import (
    JsonOpt,
    RunArg,
    address,
)
from psyche_chain.cli.sending import Result, Sending, confirm, sends
from psyche_chain.config import RunConfig, check_model, load_config
from psyche_train.cli import output
from psyche_train.cli.shell import add_commands

ConfigArg = Annotated[Path, typer.Argument(metavar="CONFIG.toml", help="Run configuration.")]
RunIdOpt = Annotated[str | None, typer.Option("--run-id", help="Instead of the file's run_id.")]


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    add_commands(
        app,
        ("validate-config", validate_config, "validate-config config/demo.toml"),
        ("create-run", create_run, "create-run config/demo.toml --rpc http://127.0.0.1:8899"),
        ("update-run", update_run, "update-run demo config/demo.toml --dry-run"),
        ("close-run", close_run, "close-run demo"),
    )


def _load(path: Path, run_id: str | None) -> RunConfig:
    config = load_config(path, run_id=run_id)
    for warning in config.warnings:
        output.warn(f"{path}: {warning}")
    return config


def validate_config(config: ConfigArg, run_id: RunIdOpt = None, json: JsonOpt = False) -> None:
    """Check a configuration without touching the chain; exit status 3 if it is wrong."""
    loaded = _load(config, run_id)
    check_model(loaded)
    if json:
        output.data_json({**loaded.model_dump(mode="json"), "warnings": list(loaded.warnings)})
    else:
        output.data(f"{config}: valid (run {loaded.run_id}, {loaded.config.total_steps} steps)")


@sends
def create_run(
    config: ConfigArg,
    run_id: RunIdOpt = None,
    paused: Annotated[bool, typer.Option("--paused", help="Leave the run paused.")] = False,
    *,
    sending: Sending,
) -> None:
    """Create a run, or bring your own one to what the file says; prints the run's key.

    Safe to repeat: every step is looked up before it is done, so an interrupted command goes on.
    """
    loaded = _load(config, run_id)

    async def action(session: Session) -> Result:
        run = await create.create_run(session, loaded, paused=paused, report=output.note)
        values = {"run": str(run.key), "run_id": run.run_id, "run_state": str(run.run_state)}
        return Result(str(run.key), values)

    sending.run(action)


@sends
def update_run(
    run: RunArg,
    config: ConfigArg,
    run_id: RunIdOpt = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what differs; send nothing, pay nothing.")
    ] = False,
    *,
    sending: Sending,
) -> None:
    """Bring a run to what a file says: rules, specification, texts, pay; only what differs is sent.

    Rules ([config]) and specification ([model.LLM]) change only while the run is paused or finished.
    Safe to repeat: an interrupted command goes on.
    """
    loaded = _load(config, run_id)

    async def action(session: Session) -> Result:
        found = await accounts.resolve_run(session.rpc, run)
        plan = await update.update_run(session, found, loaded, dry_run=dry_run, report=output.note)
        rows = [{"key": c.key, "found": c.found, "wanted": c.wanted} for c in plan.changes]
        text = [f"{c.key}: {_short(c.found)} -> {_short(c.wanted)}" for c in plan.changes]
        if not rows:
            text = [f"run {found.run_id} is what {config} says"]
        values = {"run": str(found.key), "changes": rows, "sent": bool(rows) and not dry_run}
        note = ""
        if dry_run and rows:
            note = "dry run: nothing was sent" + (f"; {plan.needs_halt}" if plan.needs_halt else "")
        return Result("\n".join(text), values, note)

    sending.run(action)


def _short(value: Any) -> str:
    """A value on one line: texts that are long are cut."""
    text = "-" if value in (None, "") else output.one_line(str(value))
    return text if len(text) <= 60 else text[:57] + "..."


@sends
def close_run(
    run: RunArg,
    recipient: Annotated[
        str | None,
        typer.Option(
            "--recipient", metavar="ADDRESS", help="Gets the rent of a run without a pool; else the wallet."
        ),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Close also where members can never be paid all that they earned.")
    ] = False,
    claims: Annotated[
        bool, typer.Option("--claims/--no-claims", help="Pay members their open claims first.")
    ] = True,
    *,
    sending: Sending,
) -> None:
    """Close a paused or finished run; all rent comes back, and tokens that the vault owes nobody.

    Members are paid first. A pool that still owes somebody stays until that is claimed; run the command again then.
    What stays: the mint that create-run made, your token account, and the rent of claims that this command pays.
    """
    to = None if recipient is None else address(recipient, "--recipient")

    def confirm_loss(unpaid: int, decimals: int) -> None:
        owed = format_amount(unpaid, decimals)
        confirm(f"Members are owed {owed} tokens and the vault is empty. End their claims?", yes)

    async def action(session: Session) -> Result:
        done = await closing.close_run(
            session,
            run,
            recipient=to,
            pay_claims=claims,
            report=output.note,
            confirm_loss=confirm_loss,
        )
        text = f"closed {done.key}"
        if done.unpaid:
            owed = f"members are owed {format_amount(done.unpaid, done.decimals)} tokens"
            text += f"; {owed}, which were never funded"
            if not done.pool_closed:
                text = f"closed {done.key}; its pool {done.pool} stays: {owed}"
        values = {
            "run": str(done.key),
            "run_closed": done.run_closed,
            "pool_closed": done.pool_closed,
            "pool": None if done.pool is None else str(done.pool),
            "unpaid": done.unpaid,
            "decimals": done.decimals,
        }
        return Result(text, values)

    sending.run(action)
