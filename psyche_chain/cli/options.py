"""Options that many commands share, and how commands get their session."""

import ipaddress
import os
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Final, TypeVar

import trio
import typer
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from psyche_chain.admin.cluster import on_our_programs
from psyche_chain.admin.session import Session, open_session
from psyche_chain.chain.rpc import RpcPool, check_url
from psyche_chain.chain.sender import SendPolicy
from psyche_chain.cli import exit_codes
from psyche_chain.errors import PsycheError
from psyche_chain.wallet import load_wallet
from psyche_train.cli import output

T = TypeVar("T")

DEFAULT_RPC: Final = "http://127.0.0.1:8899"

RpcOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--rpc",
        metavar="URL",
        help=f"RPC endpoint; repeat it for failover. Else $PSYCHE_RPC (comma-separated), else {DEFAULT_RPC}.",
        rich_help_panel="Connection",
    ),
]
KeypairOpt = Annotated[
    Path | None,
    typer.Option(
        "--keypair",
        metavar="FILE",
        help="Wallet's key file. Else $PSYCHE_KEYPAIR, else ~/.config/solana/id.json.",
        rich_help_panel="Connection",
    ),
]
JsonOpt = Annotated[bool, typer.Option("--json", help="Print JSON.")]
PriorityFeeOpt = Annotated[
    str,
    typer.Option(
        "--priority-fee",
        metavar="auto|N",
        help="Micro-lamports per compute unit; auto: what others paid lately; 0: none.",
        rich_help_panel="Connection",
    ),
]
MaxFeeOpt = Annotated[
    int,
    typer.Option(
        "--max-fee",
        metavar="LAMPORTS",
        min=0,
        help="Largest priority fee of one transaction.",
        rich_help_panel="Connection",
    ),
]
MAX_CONTACT: Final = 128
"""Characters of addresses that a membership on chain has room for."""
DEFAULT_MAX_FEE: Final = 100_000
"""Lamports: 0.0001 SOL for a transaction."""
MAX_PRICE: Final = 2**63
RunArg = Annotated[str, typer.Argument(metavar="RUN", help="Run id, where it is unique, or the run's key.")]


def endpoints(rpc: list[str] | None) -> list[str]:
    """Endpoints by flag, environment, default.

    Raises:
        PsycheError: one of them is not an http address.
    """
    urls = rpc or [u for u in re.split(r"[,\s]+", os.environ.get("PSYCHE_RPC", "")) if u] or [DEFAULT_RPC]
    try:
        return [check_url(url) for url in urls]
    except ValueError as exc:
        raise PsycheError(f"--rpc: {exc}", f"for example --rpc {DEFAULT_RPC}", exit_codes.USAGE) from None


def check_listen(address: str) -> None:
    """Refuse an address that peers can never connect to, before anything is started for it.

    Raises:
        PsycheError: it is neither `none` nor `/ip4/<address>/tcp/<port>` or `/ip6/...`.
    """
    if address == "none":
        return
    try:
        empty, family, host, protocol, port = address.split("/")
        parsed = ipaddress.ip_address(host)
        good = (empty, family, protocol) == ("", f"ip{parsed.version}", "tcp")
        good = good and port.isascii() and port.isdigit() and int(port) <= 65_535
    except ValueError:
        good = False
    if not good:
        raise PsycheError(
            f"--listen: {address!r} is not an address to listen on",
            "for example --listen /ip4/0.0.0.0/tcp/4001; port 0 lets the system choose, none only dials out",
            exit_codes.USAGE,
        )


def check_announce(addresses: list[str]) -> None:
    """Refuse addresses that nobody can dial.

    Raises:
        PsycheError: one is not `/ip4/<address>/tcp/<port>`, `/ip6/...` or `/dns/<name>/...`, or they are too long.
    """
    for address in addresses:
        empty, family, host, protocol, port = (address.split("/") + [""] * 5)[:5]
        good = address.count("/") == 4 and (empty, protocol) == ("", "tcp") and "," not in address
        good = good and bool(re.fullmatch("[0-9]{1,5}", port)) and 1 <= int(port) <= 65_535
        if family in ("ip4", "ip6"):
            try:
                parsed = ipaddress.ip_address(host)
                good = good and family == f"ip{parsed.version}" and not parsed.is_unspecified
            except ValueError:
                good = False
        else:
            good = good and family in ("dns", "dns4", "dns6") and bool(re.fullmatch(r"[A-Za-z0-9.-]+", host))
        if not good:
            raise PsycheError(
                f"--announce: {address!r} is not an address that others can dial",
                "for example --announce /ip4/203.0.113.7/tcp/4001 or /dns/gpu.example.org/tcp/4001",
                exit_codes.USAGE,
            )
    if len(",".join(addresses)) > MAX_CONTACT:
        raise PsycheError(
            f"--announce: {len(','.join(addresses))} characters of addresses, the chain has room for "
            f"{MAX_CONTACT}",
            "announce fewer",
            exit_codes.USAGE,
        )


def wallet(path: Path | None) -> Keypair:
    """The wallet, with a warning on stderr if others can read it."""
    keypair, warning = load_wallet(path)
    if warning:
        output.warn(warning)
    return keypair


def address(text: str, what: str) -> Pubkey:
    """Parse an address given on the command line."""
    try:
        return Pubkey.from_string(text)
    except ValueError:
        raise PsycheError(
            f"{what} = {text!r} is not an address (a base58 public key)", "", exit_codes.USAGE
        ) from None


def fee_policy(priority_fee: str, max_fee: int) -> SendPolicy:
    """What `--priority-fee` and `--max-fee` ask for.

    Raises:
        PsycheError: `--priority-fee` is neither `auto` nor a whole number.
    """
    price = None
    if priority_fee != "auto":
        if not (priority_fee.isascii() and priority_fee.isdigit() and int(priority_fee) < MAX_PRICE):
            raise PsycheError(
                f"--priority-fee = {priority_fee!r}, auto or a whole number of micro-lamports is needed",
                "for example --priority-fee 1000, which is 200 lamports for 200,000 compute units",
                exit_codes.USAGE,
            )
        price = int(priority_fee)
    return SendPolicy(priority_fee=price, max_fee_micro_lamports=None, max_fee_lamports=max_fee)


def with_session(rpc: list[str] | None, keypair: Path | None, action: Callable[[Session], Awaitable[T]]) -> T:
    """Run `action` with endpoints and a wallet; for what only looks, or has nothing to do with the programs."""
    urls, signer = endpoints(rpc), wallet(keypair)

    async def run() -> T:
        async with open_session(urls, signer) as session:
            return await action(session)

    return trio.run(run)


def with_rpc(rpc: list[str] | None, action: Callable[[RpcPool], Awaitable[T]]) -> T:
    """Run `action`, which reads accounts of the programs, with endpoints only."""
    urls = endpoints(rpc)

    async def run() -> T:
        async with RpcPool(urls) as pool, on_our_programs(pool):
            return await action(pool)

    return trio.run(run)
