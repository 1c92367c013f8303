"""Commands that steer a run: pause, resume, set-rates, set-authority, tick."""

from typing import Annotated

import typer

from psyche_chain.admin import manage
from psyche_chain.admin.rewards import pool_and_mint
from psyche_chain.admin.session import Session, owner_of
from psyche_chain.amounts import format_amount, parse_amount
from psyche_chain.chain import accounts, queries
from psyche_chain.cli import exit_codes
from psyche_chain.cli.options import (
    RunArg,
    address,
)
from psyche_chain.cli.sending import Result, Sending, confirm, sends
from psyche_chain.errors import NotFoundError, PsycheError
from psyche_train.cli import output
from psyche_train.cli.shell import add_commands


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    add_commands(
        app,
        ("pause", pause, "pause demo"),
        ("resume", resume, "resume demo"),
        ("set-rates", set_rates, "set-rates demo 12.5"),
        ("set-authority", set_authority, "set-authority demo ADDRESS --yes"),
        ("tick", tick, "tick demo"),
    )


@sends
def pause(
    run: RunArg,
    *,
    sending: Sending,
) -> None:
    """Pause a run; a live epoch ends first, and everything that was trained is paid."""
    _set_paused(run, True, sending)


@sends
def resume(
    run: RunArg,
    *,
    sending: Sending,
) -> None:
    """Let a paused run go on, or take back a pause that is not there yet."""
    _set_paused(run, False, sending)


def _set_paused(name: str, paused: bool, sending: Sending) -> None:
    async def action(session: Session) -> Result:
        run = await accounts.resolve_run(session.rpc, name)
        state = await manage.set_paused(session, run, paused)
        text = state.phase.label + (" (pauses at the end of the epoch)" if state.pause_requested else "")
        values = {
            "run": str(run.key),
            "phase": state.phase.label,
            "pause_requested": state.pause_requested,
        }
        return Result(text, values)

    sending.run(action)


@sends
def set_rates(
    run: RunArg,
    rate: Annotated[
        str, typer.Argument(metavar="RATE", help="Tokens per round (points in a run without a pool).")
    ],
    *,
    sending: Sending,
) -> None:
    """Set what a round pays, from the next epoch on."""

    async def action(session: Session) -> Result:
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
        values = {
            "run": str(found.key),
            "round_rate": state.round_rate,
            "next_round_rate": state.next_round_rate,
            "decimals": decimals,
        }
        return Result(
            f"{format_amount(state.next_round_rate, decimals)} per round from the next epoch", values
        )

    sending.run(action)


@sends
def set_authority(
    run: RunArg,
    new: Annotated[
        str, typer.Argument(metavar="ADDRESS", help="The wallet that steers the run from now on.")
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for a confirmation.")] = False,
    *,
    sending: Sending,
) -> None:
    """Hand a run (and its pool, where it pays) to another wallet. Only that wallet can give it back."""
    to = address(new, "ADDRESS")
    if not to.is_on_curve():
        raise PsycheError(
            f"ADDRESS = {new} is no wallet: no key can sign for it",
            "name a wallet's address",
            exit_codes.USAGE,
        )

    async def action(session: Session) -> Result:
        found = await accounts.resolve_run(session.rpc, run)
        owner, pool = await owner_of(session.rpc, found)
        if owner == session.wallet and owner != to:
            if await queries.get_account(session.rpc, to) is None:
                output.warn(f"{to} holds nothing on this cluster: nobody may have its key")
            what = "and its pool " if pool is not None else ""
            confirm(f"Hand run {found.run_id} ({found.key}) {what}to {to}?", yes)
        await manage.set_authority(session, found, to)
        values = {
            "run": str(found.key),
            "authority": str(to),
            "pool": None if pool is None else str(pool.key),
        }
        return Result(f"run {found.run_id} belongs to {to}", values)

    sending.run(action)


@sends
def tick(
    run: RunArg,
    *,
    sending: Sending,
) -> None:
    """Make the transitions that are due; anybody may."""

    async def action(session: Session) -> Result:
        found = await accounts.resolve_run(session.rpc, run)
        moved = await manage.tick(session, found)
        state = await accounts.fetch_state(session.rpc, found)
        text = state.phase.label if moved else f"{state.phase.label} (nothing was due)"
        return Result(text, {"run": str(found.key), "phase": state.phase.label, "moved": moved})

    sending.run(action)
