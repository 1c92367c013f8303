"""Who this member is among its peers, where the others are, and whether they can dial this one."""

import ipaddress
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import trio
import typer
from solders.keypair import Keypair

from psyche_chain.admin.cluster import on_our_programs
from psyche_chain.chain import accounts
from psyche_chain.chain.accounts import Membership, Run
from psyche_chain.chain.rpc import RpcPool
from psyche_chain.cli.options import JsonOpt, KeypairOpt, RpcOpt, RunArg, endpoints, wallet
from psyche_chain.errors import PsycheError
from psyche_chain.wallet import wallet_path
from psyche_train.cli import output
from psyche_train.cli.shell import add_commands


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    add_commands(app, ("identity", identity, "identity demo"))


def identity(run: RunArg, json: JsonOpt = False, rpc: RpcOpt = None, keypair: KeypairOpt = None) -> None:
    """Show your peer key in a run, and the run's address book.

    The peer key is derived from the wallet and the run: there is no second file to make, to copy or to lose.
    Another wallet has another one, and the same wallet has another one in every run, so members cannot be
    followed from run to run by it. The chain keeps the public half with your membership and, as the address
    book, where each member says that it can be dialled.
    """
    urls, signer = endpoints(rpc), wallet(keypair)

    async def look() -> tuple[Run, list[Membership]]:
        async with RpcPool(urls) as pool, on_our_programs(pool):
            found = await accounts.resolve_run(pool, run)
            return found, await accounts.fetch_memberships(pool, found.run_state)

    found, members = trio.run(look)
    facts = _facts(found, members, signer, wallet_path(keypair))
    if json:
        output.data_json(facts)
        return
    mine = {k: v for k, v in facts.items() if k not in ("members", "addresses")}
    mine["addresses"] = ", ".join(facts["addresses"]) or (
        "none on chain: you dial out, others hold your blobs"
        if facts["slot"] is not None
        else "none: not a member yet"
    )
    mine["state_dir"] = _shortened(facts["state_dir"])
    output.data("\n".join(output.pairs({k: v for k, v in mine.items() if v is not None})))
    if facts["members"]:
        rows = [[m["slot"], m["peer_id"], ", ".join(m["addresses"]), m["wallet"]] for m in facts["members"]]
        columns = ("slot", "peer_id", "addresses", "wallet")
        output.data("")
        output.data("\n".join(output.table(columns, rows, optional=("wallet", "addresses"))))


def _facts(run: Run, members: Sequence[Membership], signer: Keypair, file: Path) -> dict[str, Any]:
    from psyche_chain.cli.member import default_state_dir
    from psyche_chain.client.startup import peer_key, peer_seed
    from psyche_train.network import libp2p_id

    key = peer_key(peer_seed(signer, run.run_state))
    mine = next((m for m in members if m.wallet == signer.pubkey()), None)
    return {
        "run_id": run.run_id,
        "run": str(run.key),
        "wallet": str(signer.pubkey()),
        "key_file": str(file),
        "state_dir": str(default_state_dir(run, str(signer.pubkey()))),
        "public_key": key.hex(),
        "peer_id": libp2p_id(key),
        "member": "no" if mine is None else "yes" if mine.p2p_key == key else "with another peer key",
        "slot": mine.slot if mine is not None else None,
        "addresses": addresses_of(mine) if mine is not None else [],
        "members": [
            {
                "slot": m.slot,
                "wallet": str(m.wallet),
                "public_key": m.p2p_key.hex(),
                "peer_id": libp2p_id(m.p2p_key),
                "addresses": addresses_of(m),
            }
            for m in sorted(members, key=lambda m: m.slot)
        ],
    }


def _shortened(path: str) -> str:
    """A path with the user's own folder as people write it."""
    home = str(Path.home())
    return f"~{path[len(home) :]}" if path.startswith(home + "/") else path


def addresses_of(member: Membership) -> list[str]:
    """Where a member says that it can be dialled."""
    return [address for address in member.contact.split(",") if address not in ("", "-")]


@dataclass(slots=True)
class Reached:
    """Whether others can dial this member."""

    dialable: bool | None = None
    """None: nobody could be asked."""
    verdict: str = ""
    addresses: list[dict[str, str]] = field(default_factory=list)
    """Each with `address`, `scope` (who can reach it at all) and `here` (empty if something listens)."""
    asked: list[dict[str, Any]] = field(default_factory=list)
    """Each with `peer_id`, `address` and `problem`; the problem is empty if it could be dialled."""

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


async def reachability(pool: RpcPool, run: str, signer: Keypair) -> Reached:
    """Ask the members of a run whether they can dial this wallet's member.

    Raises:
        PsycheError: there is no such run.
    """
    from psyche_chain.client.startup import peer_key, peer_seed

    found = await accounts.resolve_run(pool, run)
    members = await accounts.fetch_memberships(pool, found.run_state)
    seed = peer_seed(signer, found.run_state)
    mine = next((m for m in members if m.p2p_key == peer_key(seed)), None)
    if mine is None:
        return Reached(verdict="not a member of the run yet: members answer members only. Join first")
    addresses = addresses_of(mine)
    result = Reached(addresses=[_local(address) for address in addresses])
    if not addresses:
        result.dialable = False
        result.verdict = "you announce no address: you dial out, and others hold your blobs"
        return result
    others = [m for m in members if m is not mine and addresses_of(m)]
    if not others:
        result.verdict = "no other member lists an address: nobody to ask"
        return result
    await _ask(result, seed, others, addresses)
    return result


async def _ask(result: Reached, seed: bytes, others: Sequence[Membership], addresses: list[str]) -> None:
    from psyche_train.network import Peer, libp2p_id
    from psyche_train.network.probe import ask_members

    peers = [Peer(m.p2p_key, tuple(addresses_of(m)), m.slot) for m in others]
    # a member that runs answers for itself; without one, this command listens in its place
    listen = "none" if any(not row["here"] for row in result.addresses) else _listen_like(addresses[0])
    try:
        said = await ask_members(seed, peers, addresses, listen=listen)
    except OSError:
        said = await ask_members(seed, peers, addresses)
    for key, reasons in said.answers.items():
        for address, problem in reasons.items():
            result.asked.append({"peer_id": libp2p_id(key), "address": address, "problem": problem})
    result.dialable = said.dialable
    if said.dialable:
        result.verdict = "others can dial you"
    elif said.dialable is None:
        why = next(iter(said.unreachable.values()), "they gave no answer")
        result.verdict = f"no member could be asked: {why}"
    else:
        result.verdict = (
            "nobody can dial you: open or forward the port, and give --announce the outer address; "
            "until then others hold your blobs"
        )


def _listen_like(address: str) -> str:
    """Where to listen so that dialling `address` ends here, if it leads to this machine."""
    host, port = _host(address), address.rpartition("/")[2]
    if host == "127.0.0.1":
        return f"/ip4/127.0.0.1/tcp/{port}"
    return f"/ip6/::/tcp/{port}" if address.startswith("/ip6/") else f"/ip4/0.0.0.0/tcp/{port}"


def _local(address: str) -> dict[str, str]:
    """What this machine can say of an address on its own."""
    from psyche_train.network.probe import port_answers

    port = int(address.rpartition("/")[2]) if address.rpartition("/")[2].isdigit() else 0
    return {"address": address, "scope": _scope(_host(address)), "here": port_answers(_host(address), port)}


def _host(address: str) -> str:
    parts = address.split("/")
    return parts[2] if len(parts) > 2 else ""


def _scope(host: str) -> str:
    """Who can reach a host at all."""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return "a name"
    if ip.is_loopback:
        return "this machine only"
    if ip.is_global:
        return "everybody, unless a firewall is in the way"
    return "this network only, unless a port is forwarded"


def reach_lines(found: Reached) -> dict[str, str]:
    """For people."""
    lines = {"reachable": found.verdict}
    for number, row in enumerate(found.addresses, 1):
        here = f"nothing answers here ({row['here']})" if row["here"] else "answers here"
        lines[f"address {number}"] = f"{row['address']}, {row['scope']}, {here}"
    for number, row in enumerate(found.asked, 1):
        lines[f"member {number}"] = f"{row['peer_id']}: {row['address']} {row['problem'] or 'can be dialled'}"
    return lines


OptionalRun = Annotated[
    str | None,
    typer.Argument(metavar="[RUN]", help="Also ask the members of this run whether they can dial you."),
]


async def member_reach(urls: list[str], run: str, signer: Keypair) -> Reached:
    """As `reachability`, with endpoints; a failure to ask is a verdict, not an error."""
    async with RpcPool(urls) as pool, on_our_programs(pool):
        try:
            return await reachability(pool, run, signer)
        except OSError as exc:
            raise PsycheError(f"the peer network cannot be used: {exc}") from exc
