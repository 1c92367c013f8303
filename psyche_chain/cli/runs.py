"""Commands of a run's operator."""

from pathlib import Path
from typing import Annotated

import typer

from psyche_chain.admin import create, manage
from psyche_chain.admin.rewards import pool_and_mint
from psyche_chain.admin.session import Session
from psyche_chain.amounts import format_amount, parse_amount
from psyche_chain.chain import accounts
from psyche_chain.chain.accounts import Run
from psyche_chain.cli import exit_codes, output
from psyche_chain.cli.options import JsonOpt, KeypairOpt, RpcOpt, RunArg, address, with_session
from psyche_chain.config import RunConfig, load_config
from psyche_chain.errors import NotFoundError, PsycheError

ConfigArg = Annotated[Path, typer.Argument(metavar="CONFIG.toml", help="Run configuration.")]
RunIdOpt = Annotated[str | None, typer.Option("--run-id", help="Instead of the file's run_id.")]


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    for name, function, example in (
        ("validate-config", validate_config, "validate-config config/demo.toml"),
        ("create-run", create_run, "create-run config/demo.toml --rpc http://127.0.0.1:8899"),
        ("pause", pause, "pause demo"),
        ("resume", resume, "resume demo"),
        ("set-rates", set_rates, "set-rates demo 12.5"),
        ("tick", tick, "tick demo"),
        ("close-run", close_run, "close-run demo --recipient ADDRESS"),
    ):
        app.command(name, epilog=f"Example: psyche-chain {example}")(function)


def _load(path: Path, run_id: str | None) -> RunConfig:
    config = load_config(path, run_id=run_id)
    for warning in config.warnings:
        output.warn(f"{path}: {warning}")
    return config


def validate_config(config: ConfigArg, run_id: RunIdOpt = None, json: JsonOpt = False) -> None:
    """Check a configuration without touching the chain; exit status 3 if it is wrong."""
    loaded = _load(config, run_id)
    if json:
        output.data_json({**loaded.model_dump(mode="json"), "warnings": list(loaded.warnings)})
    else:
        output.data(f"{config}: valid (run {loaded.run_id}, {loaded.config.total_steps} steps)")


def create_run(
    config: ConfigArg,
    run_id: RunIdOpt = None,
    paused: Annotated[bool, typer.Option("--paused", help="Leave the run paused.")] = False,
    json: JsonOpt = False,
    rpc: RpcOpt = None,
    keypair: KeypairOpt = None,
) -> None:
    """Create a run, or bring an existing one to what the file says; prints the run's key.

    Safe to repeat: every step is looked up before it is done, so an interrupted command goes on.
    """
    loaded = _load(config, run_id)

    async def action(session: Session) -> Run:
        return await create.create_run(session, loaded, paused=paused, report=output.note)

    run = with_session(rpc, keypair, action)
    if json:
        output.data_json({"run": str(run.key), "run_id": run.run_id, "run_state": str(run.run_state)})
    else:
        output.data(str(run.key))


def pause(run: RunArg, rpc: RpcOpt = None, keypair: KeypairOpt = None) -> None:
    """Pause a run; a live epoch ends first, and everything that was trained is paid."""
    _set_paused(run, True, rpc, keypair)


def resume(run: RunArg, rpc: RpcOpt = None, keypair: KeypairOpt = None) -> None:
    """Let a paused run go on."""
    _set_paused(run, False, rpc, keypair)


def _set_paused(name: str, paused: bool, rpc: list[str] | None, keypair: Path | None) -> None:
    async def action(session: Session) -> str:
        run = await accounts.resolve_run(session.rpc, name)
        state = await manage.set_paused(session, run, paused)
        return state.phase.label + (" (pauses at the end of the epoch)" if state.pause_requested else "")

    output.data(with_session(rpc, keypair, action))


def set_rates(
    run: RunArg,
    rate: Annotated[
        str, typer.Argument(metavar="RATE", help="Tokens per round (points in a run without a pool).")
    ],
    rpc: RpcOpt = None,
    keypair: KeypairOpt = None,
) -> None:
    """Set what a round pays, from the next epoch on."""

    async def action(session: Session) -> str:
        found = await accounts.resolve_run(session.rpc, run)
        try:
            decimals = (await pool_and_mint(session.rpc, found))[1].decimals
        except NotFoundError:
            decimals = 0
        try:
            units = parse_amount(rate, decimals)
        except ValueError as exc:
            raise PsycheError(f"RATE: {exc}", "", exit_codes.USAGE) from None
        state = await manage.set_rate(session, found, units)
        return f"{format_amount(state.next_round_rate, decimals)} per round from the next epoch"

    output.data(with_session(rpc, keypair, action))


def tick(run: RunArg, rpc: RpcOpt = None, keypair: KeypairOpt = None) -> None:
    """Make the transitions that are due; anybody may."""

    async def action(session: Session) -> str:
        found = await accounts.resolve_run(session.rpc, run)
        moved = await manage.tick(session, found)
        state = await accounts.fetch_state(session.rpc, found)
        return state.phase.label if moved else f"{state.phase.label} (nothing was due)"

    output.data(with_session(rpc, keypair, action))


def close_run(
    run: RunArg,
    recipient: Annotated[
        str | None,
        typer.Option("--recipient", metavar="ADDRESS", help="Gets the rent back; else the wallet."),
    ] = None,
    rpc: RpcOpt = None,
    keypair: KeypairOpt = None,
) -> None:
    """Close a paused or finished run; all rent comes back, and what the vault owes nobody."""
    to = None if recipient is None else address(recipient, "--recipient")

    async def action(session: Session) -> str:
        found = await accounts.resolve_run(session.rpc, run)
        await manage.close_run(session, found, to or session.wallet)
        return f"closed {found.key}"

    output.data(with_session(rpc, keypair, action))
