"""Commands about who may join: authorize, revoke, delegate."""

from typing import Annotated, Any

import typer

from psyche_chain.admin import access
from psyche_chain.admin.session import Session
from psyche_chain.chain.accounts import Authorization, as_dict
from psyche_chain.cli import output
from psyche_chain.cli.options import JsonOpt, KeypairOpt, RpcOpt, address, with_session

WalletArg = Annotated[str, typer.Argument(metavar="ADDRESS", help="The wallet that joins.")]


def register(app: typer.Typer) -> None:
    app.command("authorize", epilog="Example: psyche-chain authorize ADDRESS --max-weight 4")(authorize)
    app.command("revoke", epilog="Example: psyche-chain revoke ADDRESS")(revoke)
    app.command("delegate", epilog="Example: psyche-chain delegate GRANTOR --add ADDRESS")(delegate)


def authorize(
    wallet: WalletArg,
    max_weight: Annotated[int, typer.Option("--max-weight", min=1, max=65535, help="Largest weight.")] = 1,
    min_tier: Annotated[int, typer.Option("--min-tier", min=0, max=2, help="Lowest tier number.")] = 0,
    json: JsonOpt = False,
    rpc: RpcOpt = None,
    keypair: KeypairOpt = None,
) -> None:
    """Admit a wallet to the runs whose join authority is yours."""
    grantee = address(wallet, "ADDRESS")

    async def action(session: Session) -> Authorization:
        return await access.authorize(session, grantee, max_weight=max_weight, min_tier=min_tier)

    _print(with_session(rpc, keypair, action), json)


def revoke(wallet: WalletArg, json: JsonOpt = False, rpc: RpcOpt = None, keypair: KeypairOpt = None) -> None:
    """Withdraw an authorization."""
    grantee = address(wallet, "ADDRESS")

    async def action(session: Session) -> Authorization:
        return await access.revoke(session, grantee)

    _print(with_session(rpc, keypair, action), json)


def delegate(
    grantor: Annotated[str, typer.Argument(metavar="GRANTOR", help="Who authorized your wallet.")],
    add: Annotated[
        list[str] | None, typer.Option("--add", metavar="ADDRESS", help="May join in your place.")
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Remove the present delegates first.")] = False,
    json: JsonOpt = False,
    rpc: RpcOpt = None,
    keypair: KeypairOpt = None,
) -> None:
    """Let other wallets join on the authorization that yours got."""
    by, keys = address(grantor, "GRANTOR"), [address(a, "--add") for a in add or []]

    async def action(session: Session) -> Authorization:
        return await access.delegate(session, by, keys, clear=clear)

    _print(with_session(rpc, keypair, action), json)


def _print(found: Authorization, json: bool) -> None:
    values: dict[str, Any] = as_dict(found)
    values["scope"] = found.scope.decode("ascii", "replace")
    if json:
        output.data_json(values)
    else:
        state = "active" if found.active else "inactive"
        output.data(
            f"{found.grantee}: {state}, weight up to {found.max_weight}, tier {found.min_tier} or higher, "
            f"{len(found.delegates)} delegates"
        )
