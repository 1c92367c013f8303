"""Commands about the wallet. Its secret key is never printed."""

from typing import Annotated

import typer

from psyche_chain.admin.session import Session
from psyche_chain.amounts import format_amount, parse_amount
from psyche_chain.chain import accounts, ids, queries
from psyche_chain.chain.errors import RpcError, RpcUnavailable
from psyche_chain.chain.sender import confirm
from psyche_chain.cli import exit_codes
from psyche_chain.cli.options import JsonOpt, KeypairOpt, RpcOpt, address, wallet, with_session
from psyche_chain.errors import NotFoundError, PsycheError
from psyche_chain.wallet import new_wallet, wallet_path
from psyche_train.cli import output

app = typer.Typer(help="Make and look at wallets.", no_args_is_help=True)


@app.command(epilog="Example: psyche-chain wallet new --keypair member.json")
def new(keypair: KeypairOpt = None) -> None:
    """Make a wallet, readable by you only; prints its address."""
    made = new_wallet(keypair)
    output.note(f"wrote {wallet_path(keypair)}; keep a copy: nobody can restore it")
    output.data(str(made.pubkey()))


@app.command("address", epilog="Example: psyche-chain wallet address")
def show_address(keypair: KeypairOpt = None) -> None:
    """Print the wallet's address."""
    output.data(str(wallet(keypair).pubkey()))


@app.command(epilog="Example: psyche-chain wallet balance --mint MINT")
def balance(
    mint: Annotated[
        str | None, typer.Option("--mint", metavar="ADDRESS", help="Tokens of this mint.")
    ] = None,
    json: JsonOpt = False,
    rpc: RpcOpt = None,
    keypair: KeypairOpt = None,
) -> None:
    """Print the wallet's SOL, or its tokens of a mint."""
    of = None if mint is None else address(mint, "--mint")

    async def action(session: Session) -> tuple[int, int]:
        if of is None:
            return await queries.get_balance(session.rpc, session.wallet), 9
        found = await accounts.fetch_mint(session.rpc, of)
        if found is None:
            raise NotFoundError(f"there is no mint at {of}", "check --mint and --rpc")
        account = ids.token_account_address(session.wallet, of, found.program)
        return accounts.token_amount(await queries.get_account(session.rpc, account)), found.decimals

    units, decimals = with_session(rpc, keypair, action)
    if json:
        output.data_json({"amount": units, "decimals": decimals, "mint": mint})
    else:
        output.data(f"{format_amount(units, decimals)} {'SOL' if of is None else 'tokens'}")


@app.command(epilog="Example: psyche-chain wallet airdrop 5")
def airdrop(
    amount: Annotated[str, typer.Argument(metavar="SOL", help="How much to ask for.")] = "1",
    rpc: RpcOpt = None,
    keypair: KeypairOpt = None,
) -> None:
    """Ask a test cluster for SOL."""
    try:
        lamports = parse_amount(amount, 9)
    except ValueError as exc:
        raise PsycheError(f"SOL: {exc}", "", exit_codes.USAGE) from None
    if not lamports:
        raise PsycheError("SOL: nothing to ask for", "for example: wallet airdrop 5", exit_codes.USAGE)

    async def action(session: Session) -> int:
        try:
            signature = await queries.request_airdrop(session.rpc, session.wallet, lamports)
        except RpcUnavailable:
            raise
        except RpcError as exc:
            raise PsycheError(
                f"the cluster gives no SOL: {exc.message}",
                "only test clusters have a faucet; on devnet use its website",
            ) from None
        await confirm(session.rpc, signature)
        return await queries.get_balance(session.rpc, session.wallet)

    output.data(f"{format_amount(with_session(rpc, keypair, action), 9)} SOL")
