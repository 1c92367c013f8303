"""Commands about money: fund, claim, rewards."""

from typing import Annotated, Any

import typer

from psyche_chain.admin import rewards as money
from psyche_chain.admin.rewards import RunPay
from psyche_chain.admin.session import Session
from psyche_chain.amounts import format_amount, parse_amount
from psyche_chain.chain import accounts
from psyche_chain.chain.rpc import RpcPool
from psyche_chain.cli import exit_codes, output
from psyche_chain.cli.options import JsonOpt, KeypairOpt, RpcOpt, RunArg, address, with_rpc, with_session
from psyche_chain.errors import PsycheError


def register(app: typer.Typer) -> None:
    app.command("fund", epilog="Example: psyche-chain fund demo 1000")(fund)
    app.command("claim", epilog="Example: psyche-chain claim demo")(claim)
    app.command("rewards", epilog="Example: psyche-chain rewards demo --json")(rewards)


def fund(
    run: RunArg,
    amount: Annotated[str, typer.Argument(metavar="AMOUNT", help="Tokens, such as 1000 or 0.5.")],
    mint: Annotated[
        bool, typer.Option("--mint", help="Mint new tokens; only the mint's authority may.")
    ] = False,
    json: JsonOpt = False,
    rpc: RpcOpt = None,
    keypair: KeypairOpt = None,
) -> None:
    """Put tokens into the vault that a run pays from."""

    async def action(session: Session) -> dict[str, Any]:
        found = await accounts.resolve_run(session.rpc, run)
        pool, of = await money.pool_and_mint(session.rpc, found)
        try:
            units = parse_amount(amount, of.decimals)
            if units == 0:
                raise ValueError("nothing to transfer")
        except ValueError as exc:
            raise PsycheError(f"AMOUNT: {exc}", "", exit_codes.USAGE) from None
        signature = await money.fund_vault(session, pool, of, units, may_mint=mint)
        pay = await money.fetch_pay(session.rpc, found)
        return {"amount": units, "vault": pay.vault, "decimals": of.decimals, "signature": signature}

    done = with_session(rpc, keypair, action)
    if json:
        output.data_json(done)
    else:
        paid_in, vault = (format_amount(done[k], done["decimals"]) for k in ("amount", "vault"))
        output.data(f"paid in {paid_in}, the vault holds {vault}")


def claim(
    run: RunArg,
    owner: Annotated[
        str | None, typer.Option("--for", metavar="ADDRESS", help="Pay this member, not the own wallet.")
    ] = None,
    json: JsonOpt = False,
    rpc: RpcOpt = None,
    keypair: KeypairOpt = None,
) -> None:
    """Pay out what a member earned and has not claimed yet, to the member's own token account."""
    wallet = None if owner is None else address(owner, "--for")

    async def action(session: Session) -> money.Claimed:
        return await money.claim(session, await accounts.resolve_run(session.rpc, run), wallet)

    done = with_session(rpc, keypair, action)
    if json:
        output.data_json(
            {
                "claimed": done.amount,
                "still_owed": done.still_owed,
                "decimals": done.decimals,
                "mint": str(done.mint),
                "signature": done.signature,
            }
        )
        return
    owed = ""
    if done.still_owed:
        owed = f"; {format_amount(done.still_owed, done.decimals)} are still owed: the vault is empty"
    output.data(f"claimed {format_amount(done.amount, done.decimals)} tokens{owed}")


def rewards(run: RunArg, json: JsonOpt = False, rpc: RpcOpt = None) -> None:
    """Show what every member earned and claimed, and what the vault holds. JSON amounts are in base units."""

    async def action(pool: RpcPool) -> RunPay:
        return await money.fetch_pay(pool, await accounts.resolve_run(pool, run))

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
