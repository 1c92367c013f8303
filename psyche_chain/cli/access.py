"""Commands about who may join: authorize, revoke, delegate, evict, and the rent of authorizations."""

from typing import Annotated, Any

import typer

from psyche_chain.admin import access
from psyche_chain.admin.session import Session
from psyche_chain.chain import accounts
from psyche_chain.chain.accounts import Authorization, as_dict
from psyche_chain.chain.rpc import RpcPool
from psyche_chain.cli.options import (
    JsonOpt,
    KeypairOpt,
    RpcOpt,
    RunArg,
    address,
    wallet,
    with_rpc,
)
from psyche_chain.cli.sending import Result, Sending, sends
from psyche_train.cli import output
from psyche_train.cli.shell import add_commands

WalletArg = Annotated[str, typer.Argument(metavar="ADDRESS", help="The wallet that joins.")]


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    add_commands(
        app,
        ("authorize", authorize, "authorize ADDRESS --max-weight 4"),
        ("revoke", revoke, "revoke ADDRESS"),
        ("delegate", delegate, "delegate GRANTOR --add ADDRESS"),
        ("evict", evict, "evict demo"),
        ("close-authorization", close_authorization, "close-authorization ADDRESS"),
        ("list-authorizations", list_authorizations, "list-authorizations --by ADDRESS"),
    )


@sends
def authorize(
    grantee: WalletArg,
    max_weight: Annotated[
        int | None,
        typer.Option("--max-weight", min=1, max=65535, help="Largest weight; 1 for a new authorization."),
    ] = None,
    min_tier: Annotated[
        int | None,
        typer.Option("--min-tier", min=0, max=2, help="Lowest tier number; 0 for a new authorization."),
    ] = None,
    *,
    sending: Sending,
) -> None:
    """Admit a wallet to the runs whose join authority is yours, or change its limits.

    A limit that is not named stays as it is. Members that are in a run keep their weight and tier.
    """
    key = address(grantee, "ADDRESS")

    async def action(session: Session) -> Result:
        return _result(await access.authorize(session, key, max_weight=max_weight, min_tier=min_tier))

    sending.run(action)


@sends
def revoke(
    grantee: WalletArg,
    *,
    sending: Sending,
) -> None:
    """Withdraw an authorization. Whom it admitted is put out of a run with: psyche-chain evict RUN."""
    key = address(grantee, "ADDRESS")

    async def action(session: Session) -> Result:
        return _result(await access.revoke(session, key))

    sending.run(action)


@sends
def delegate(
    grantor: Annotated[str, typer.Argument(metavar="GRANTOR", help="Who authorized your wallet.")],
    add: Annotated[
        list[str] | None,
        typer.Option("--add", metavar="ADDRESS", help="May join in your place; repeat it for several."),
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="Remove all other delegates.")] = False,
    *,
    sending: Sending,
) -> None:
    """Let other wallets (at most 64) join on the authorization that yours got. Without options: show it."""
    by, keys = address(grantor, "GRANTOR"), [address(a, "--add") for a in add or []]

    async def action(session: Session) -> Result:
        return _result(await access.delegate(session, by, keys, clear=clear))

    sending.run(action)


@sends
def evict(
    run: RunArg,
    member: Annotated[
        str | None,
        typer.Argument(metavar="[ADDRESS]", help="One member; else everybody who may not join any more."),
    ] = None,
    *,
    sending: Sending,
) -> None:
    """Put members out of a run whose authorization was revoked, closed or limited; anybody may.

    They keep what they earned.
    """
    key = None if member is None else address(member, "ADDRESS")

    async def action(session: Session) -> Result:
        found = await accounts.resolve_run(session.rpc, run)
        done = await access.evict(session, found, key)
        text = [f"evicted {w}" for w in done.wallets] or ["nobody was evicted"]
        values = {
            "run": str(found.key),
            "evicted": [str(w) for w in done.wallets],
            "kept": done.kept,
        }
        return Result("\n".join(text), values)

    sending.run(action)


@sends
def close_authorization(
    grantee: WalletArg,
    *,
    sending: Sending,
) -> None:
    """Take back the rent of an authorization that you revoked; with delegates, only 30 days after its creation."""
    key = address(grantee, "ADDRESS")

    async def action(session: Session) -> Result:
        await access.close_authorization(session, key)
        return Result(f"the authorization of {key} is closed", {"grantee": str(key), "closed": True})

    sending.run(action)


def list_authorizations(
    by: Annotated[
        str | None, typer.Option("--by", metavar="ADDRESS", help="Given by this wallet; default: yours.")
    ] = None,
    to: Annotated[str | None, typer.Option("--to", metavar="ADDRESS", help="Given to this wallet.")] = None,
    json: JsonOpt = False,
    rpc: RpcOpt = None,
    keypair: KeypairOpt = None,
) -> None:
    """List authorizations to join: those that your wallet gave, or those of another giver or receiver."""
    grantee = None if to is None else address(to, "--to")
    grantor = None if by is None else address(by, "--by")
    if grantor is None and grantee is None:
        grantor = wallet(keypair).pubkey()

    async def action(pool: RpcPool) -> list[Authorization]:
        return await access.list_authorizations(pool, grantor=grantor, grantee=grantee)

    found = with_rpc(rpc, action)
    if json:
        output.data_json([_values(a) for a in found])
        return
    if not found:
        output.note("there are no such authorizations; give one with: psyche-chain authorize ADDRESS")
        return
    columns = ("grantor", "grantee", "active", "weight", "tier", "delegates")
    rows = [
        [str(a.grantor), str(a.grantee), a.active, a.max_weight, a.min_tier, len(a.delegates)] for a in found
    ]
    hidden = (
        ["grantor" if grantor is not None else "grantee"] if (grantor is None) != (grantee is None) else []
    )
    output.data("\n".join(output.table(columns, rows, optional=hidden)))


def _values(found: Authorization) -> dict[str, Any]:
    return {**as_dict(found), "scope": found.scope.decode("ascii", "replace")}


def _result(found: Authorization) -> Result:
    state = "active" if found.active else "inactive"
    lines = [
        f"{found.grantee}: {state}",
        f"weight up to {found.max_weight}, tier {found.min_tier} or higher, {len(found.delegates)} delegates",
    ]
    lines += [f"delegate {key}" for key in found.delegates]
    return Result("\n".join(lines), _values(found))
