"""Commands about money: fund, settle, claim, rewards."""

from typing import Annotated, Any

import typer

from psyche_chain.admin import closed
from psyche_chain.admin import rewards as money
from psyche_chain.admin import settle as settling
from psyche_chain.admin.rewards import Claimed, RunPay
from psyche_chain.admin.session import Session
from psyche_chain.amounts import format_amount, parse_amount
from psyche_chain.chain import accounts
from psyche_chain.chain.rpc import RpcPool
from psyche_chain.cli import exit_codes
from psyche_chain.cli.options import (
    JsonOpt,
    RpcOpt,
    RunArg,
    address,
    with_rpc,
)
from psyche_chain.cli.sending import Result, Sending, sends
from psyche_chain.errors import PsycheError
from psyche_train.cli import output
from psyche_train.cli.shell import add_commands


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    add_commands(
        app,
        ("fund", fund, "fund demo 1000"),
        ("settle", settle, "settle demo"),
        ("claim", claim, "claim demo"),
        ("rewards", rewards, "rewards demo --json"),
    )


@sends
def fund(
    run: RunArg,
    amount: Annotated[str, typer.Argument(metavar="AMOUNT", help="Tokens, such as 1000 or 0.5.")],
    mint: Annotated[
        bool, typer.Option("--mint", help="Mint new tokens; only the mint's authority may.")
    ] = False,
    *,
    sending: Sending,
) -> None:
    """Put tokens into the vault that a run pays from. Each time it is run it puts in more."""

    async def action(session: Session) -> Result:
        found = await accounts.resolve_run(session.rpc, run)
        pool, of = await money.pool_and_mint(session.rpc, found)
        try:
            units = parse_amount(amount, of.decimals)
            if units == 0:
                raise ValueError("nothing to transfer")
        except ValueError as exc:
            raise PsycheError(f"AMOUNT: {exc}", "", exit_codes.USAGE) from None
        await money.fund_vault(session, pool, of, units, may_mint=mint)
        pay = await money.fetch_pay(session.rpc, found)
        paid_in, vault = (format_amount(n, of.decimals) for n in (units, pay.vault))
        values = {"run": str(found.key), "amount": units, "vault": pay.vault, "decimals": of.decimals}
        return Result(f"paid in {paid_in}, the vault holds {vault}", values)

    sending.run(action)


@sends
def settle(
    run: RunArg,
    member: Annotated[
        str | None, typer.Option("--for", metavar="ADDRESS", help="Only this member; else everybody.")
    ] = None,
    *,
    sending: Sending,
) -> None:
    """Move pay from the slots into the members' accounts and free the slots of those who left; anybody may."""
    wallet = None if member is None else address(member, "--for")

    async def action(session: Session) -> Result:
        found = await accounts.resolve_run(session.rpc, run)
        decimals = (await money.fetch_pay(session.rpc, found)).decimals
        done = await settling.settle(session, found, wallet)
        text = (
            f"settled {output.plural(len(done.wallets), 'member')}: "
            f"{format_amount(done.moved, decimals)} moved, {output.plural(len(done.freed), 'slot')} freed"
        )
        values = {
            "run": str(found.key),
            "settled": [str(w) for w in done.wallets],
            "moved": done.moved,
            "decimals": decimals,
            "freed_slots": list(done.freed),
        }
        return Result(text, values)

    sending.run(action)


@sends
def claim(
    run: RunArg,
    owner: Annotated[
        str | None, typer.Option("--for", metavar="ADDRESS", help="Pay this member, not the own wallet.")
    ] = None,
    everybody: Annotated[bool, typer.Option("--all", help="Pay every member that has open pay.")] = False,
    *,
    sending: Sending,
) -> None:
    """Pay out what a member earned and has not claimed yet, to the member's own token account.

    Works after the run was closed, too, as long as its pool owes something.
    """
    if owner is not None and everybody:
        raise PsycheError("--for and --all exclude each other", "leave one of them away", exit_codes.USAGE)
    wallet = None if owner is None else address(owner, "--for")

    async def action(session: Session) -> Result:
        found = await closed.resolve_any(session.rpc, run, session.wallet)
        if everybody:
            return _claimed_all(await money.claim_all(session, found))
        done = await money.claim(session, found, wallet)
        return Result(_claimed(done), _claim_values(done))

    sending.run(action)


def _claimed(done: Claimed) -> str:
    text = f"claimed {format_amount(done.amount, done.decimals)} tokens"
    if done.still_owed:
        text += f"; {format_amount(done.still_owed, done.decimals)} are still owed: the vault is empty"
    return text


def _claim_values(done: Claimed) -> dict[str, Any]:
    return {
        "wallet": str(done.wallet),
        "claimed": done.amount,
        "still_owed": done.still_owed,
        "decimals": done.decimals,
        "mint": str(done.mint),
        "signature": done.signature,
    }


def _claimed_all(done: money.ClaimedAll) -> Result:
    lines = [f"{c.wallet}: {_claimed(c)}" for c in done.claims]
    lines += [f"{wallet}: cannot be paid: {error.message}" for wallet, error in done.failed]
    values = {
        "claims": [_claim_values(c) for c in done.claims],
        "failed": [{"wallet": str(wallet), "error": error.message} for wallet, error in done.failed],
    }
    return Result("\n".join(lines) or "nobody has open pay", values)


def rewards(run: RunArg, json: JsonOpt = False, rpc: RpcOpt = None) -> None:
    """Show what every member earned and claimed, and what the vault holds. JSON amounts are in base units."""

    async def action(pool: RpcPool) -> RunPay:
        return await money.fetch_pay(pool, await closed.resolve_any(pool, run))

    pay = with_rpc(rpc, action)
    rows = [
        {"wallet": str(m.wallet), "tier": m.tier, "earned": m.earned, "claimed": m.claimed, "open": m.open}
        for m in pay.members
    ]
    if json:
        output.data_json(
            {
                "run": str(pay.run.key),
                "mint": None if pay.mint is None else str(pay.mint.key),
                "decimals": pay.decimals,
                "funded": pay.funded,
                "vault": pay.vault,
                "paid": 0 if pay.pool is None else pay.pool.paid,
                "withdrawn": 0 if pay.pool is None else pay.pool.withdrawn,
                "members": rows,
            }
        )
        return
    if pay.pool is None:
        output.data("this run counts points and pays no tokens")
    else:
        texts = {"funded": pay.funded, "paid": pay.pool.paid, "vault": pay.vault}
        lines = {"mint": str(pay.pool.mint)} | {k: format_amount(v, pay.decimals) for k, v in texts.items()}
        output.data("\n".join([*output.pairs(lines), ""]))
    columns = ("wallet", "tier", "earned", "claimed", "open")
    cells = [
        [str(m.wallet), m.tier, *(format_amount(v, pay.decimals) for v in (m.earned, m.claimed, m.open))]
        for m in pay.members
    ]
    output.data("\n".join(output.table(columns, cells)))
