"""`doctor`: is everything here that a command needs?"""

from pathlib import Path
from typing import Any

import trio
import typer

from psyche_chain.admin.cluster import ProgramHealth, cluster_name, look_at_programs
from psyche_chain.admin.costs import sol
from psyche_chain.chain import queries
from psyche_chain.chain.rpc import RpcPool
from psyche_chain.cli import exit_codes
from psyche_chain.cli.options import JsonOpt, KeypairOpt, RpcOpt, endpoints
from psyche_chain.cli.peers import OptionalRun, Reached, member_reach, reach_lines
from psyche_chain.errors import ClusterError, PsycheError
from psyche_chain.wallet import load_wallet, wallet_path
from psyche_train.cli import output
from psyche_train.cli.shell import add_commands


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    add_commands(app, ("doctor", doctor, "doctor --rpc https://api.devnet.solana.com"))


def doctor(
    run: OptionalRun = None, json: JsonOpt = False, rpc: RpcOpt = None, keypair: KeypairOpt = None
) -> None:
    """Check endpoints, programs, wallet and, for a run, whether its members can dial you; exit status 8 if the
    programs cannot be used.

    The programs' code on the cluster is compared with the code that this package holds. Members are asked with
    your own peer key, over the network, while your member runs or not; a member that nobody can dial can take
    part all the same.
    """
    urls = endpoints(rpc)
    facts, programs, wallet_error = trio.run(_look, urls, keypair)
    if run is not None and wallet_error is None and all(p.good for p in programs):
        found = trio.run(member_reach, urls, run, load_wallet(keypair)[0])
        facts["reach"] = found.as_dict()
    if json:
        output.data_json(facts)
    else:
        output.data("\n".join(_lines(facts)))
    if wrong := [p for p in programs if not p.good]:
        names = ", ".join(p.name for p in wrong)
        raise ClusterError(
            f"the programs {names} on {facts['endpoints'][0]['endpoint']} cannot be used",
            "another --rpc? To put the programs there: psyche-localnet deploy --rpc URL, or anchor deploy",
        )
    if wallet_error is not None:
        raise wallet_error


async def _look(
    urls: list[str], keypair: Path | None
) -> tuple[dict[str, Any], list[ProgramHealth], PsycheError | None]:
    wallet: dict[str, Any] = {"file": str(wallet_path(keypair)), "address": None, "lamports": None}
    failed: PsycheError | None = None
    async with RpcPool(urls) as pool:
        endpoint_rows = [await _endpoint(url) for url in urls]
        programs = await look_at_programs(pool, code=True)
        try:
            key = load_wallet(keypair)[0].pubkey()
            wallet |= {"address": str(key), "lamports": await queries.get_balance(pool, key)}
        except PsycheError as exc:
            if exc.exit_code != exit_codes.CONFIG:
                raise
            wallet["error"] = exc.message
            failed = exc
        facts = {
            "cluster": await cluster_name(pool),
            "genesis_hash": await queries.genesis_hash(pool),
            "endpoints": endpoint_rows,
            "programs": [
                {"name": p.name, "key": str(p.key), "state": p.state, "sha256": p.sha256} for p in programs
            ],
            "wallet": wallet,
        }
    return facts, programs, failed


async def _endpoint(url: str) -> dict[str, Any]:
    """One endpoint alone, so that one that is down shows."""
    async with RpcPool([url], deadline_s=5.0) as pool:
        try:
            return {"endpoint": pool.names[0], "version": await queries.node_version(pool), "error": None}
        except PsycheError as exc:
            return {"endpoint": pool.names[0], "version": None, "error": exc.message}


def _lines(facts: dict[str, Any]) -> list[str]:
    wallet = facts["wallet"]
    has = "" if wallet["lamports"] is None else f", {sol(wallet['lamports'])}"
    lines = {"cluster": facts["cluster"], "genesis": facts["genesis_hash"]}
    for number, row in enumerate(facts["endpoints"], 1):
        label = "endpoint" if number == 1 else f"endpoint {number}"
        lines[label] = f"{row['endpoint']}, {row['error'] or 'version ' + row['version']}"
    lines |= {f"program {p['name']}": p["state"] for p in facts["programs"]}
    lines["wallet"] = wallet.get("error") or f"{wallet['address']}{has}"
    if (reach := facts.get("reach")) is not None:
        lines |= reach_lines(Reached(**reach))
    return output.pairs(lines)
