"""The launcher's dealings with the chain: start it, bring money and programs, create the run, settle it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio
from solders.keypair import Keypair

from localnet import deploy as deployment
from localnet.chain.process import ChainProcess
from localnet.run.plan import LaunchError, RunPlan
from psyche_chain.admin import create, manage, rewards
from psyche_chain.admin.session import Session, open_session
from psyche_chain.chain import accounts, queries
from psyche_chain.chain.accounts import Run
from psyche_chain.chain.rpc import RpcPool
from psyche_chain.chain.sender import confirm
from psyche_chain.chain.state import RunState

LAMPORTS_PER_SOL = 1_000_000_000
CREATOR_SOL = 50
MEMBER_SOL = 10
FUNDED_DEADLINE_S = 60.0


@dataclass(frozen=True, slots=True)
class Cluster:
    """A chain that answers."""

    url: str
    embedded: bool


@asynccontextmanager
async def open_cluster(plan: RunPlan, host: str = "127.0.0.1") -> AsyncIterator[Cluster]:
    """The cluster of `--rpc`, or an embedded chain on `host` with its state in the run's folder."""
    if plan.rpc is not None:
        async with RpcPool([plan.rpc]) as rpc:
            await queries.genesis_hash(rpc)  # says clearly when nobody answers
        yield Cluster(plan.rpc, embedded=False)
        return
    chain = ChainProcess(plan.out / "chain", host=host)
    try:
        await trio.to_thread.run_sync(chain.start)
        await trio.to_thread.run_sync(chain.wait_ready)
        yield Cluster(chain.url, embedded=True)
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(chain.stop)


async def fund_wallets(url: str, wallets: Sequence[tuple[Keypair, int]]) -> None:
    """Airdrop SOL to each wallet and wait for all of it.

    Raises:
        LaunchError: the cluster's faucet did not deliver.
    """
    async with RpcPool([url]) as rpc:
        for key, sol in wallets:
            signature = await queries.request_airdrop(rpc, key.pubkey(), sol * LAMPORTS_PER_SOL)
            status = await confirm(rpc, signature, deadline_s=FUNDED_DEADLINE_S)
            if status.err is not None:
                raise LaunchError(
                    f"the airdrop of {sol} SOL to {key.pubkey()} failed on {url}",
                    "use a cluster with a faucet, such as solana-test-validator or the embedded chain",
                )


async def deploy(url: str, payer: Keypair, report: Callable[[str], None]) -> None:
    """Put the three programs on the cluster; those that are there unchanged stay."""

    def put() -> dict[str, deployment.Deployment]:
        programs = deployment.find_programs(deployment.DEFAULT_PROGRAMS, deployment.DEFAULT_KEYS)
        rpc = deployment.Rpc(url)
        try:
            return deployment.deploy_all(rpc, payer, programs)
        finally:
            rpc.close()

    try:
        done = await trio.to_thread.run_sync(put)
    except deployment.DeployError as error:
        raise LaunchError(f"the programs could not be deployed to {url}: {error}") from None
    report("programs: " + ", ".join(f"{name} {result.value}" for name, result in done.items()))


async def create_run(url: str, creator: Keypair, plan: RunPlan, report: Callable[[str], None]) -> Run:
    """Run, pool and funding as the configuration says."""
    async with open_session([url], creator) as session:
        return await create.create_run(session, plan.config, paused=False, report=report)


async def pause(url: str, creator: Keypair, run: Run) -> None:
    """Ask the run to end its epoch and pause."""
    async with open_session([url], creator) as session:
        await manage.set_paused(session, run, True)


async def claim_all(url: str, run: Run, wallets: Sequence[Keypair]) -> list[int]:
    """Every member claims with its own wallet; returns base units by member, 0 for a run without a pool."""
    amounts = []
    for key in wallets:
        async with open_session([url], key) as session:
            if await accounts.fetch_pool(session.rpc, run.run_state) is None:
                return [0] * len(wallets)
            if await accounts.fetch_membership(session.rpc, run.run_state, key.pubkey()) is None:
                amounts.append(0)
                continue
            amounts.append((await rewards.claim(session, run)).amount)
    return amounts


async def fetch_end(session: Session, run: Run) -> tuple[RunState, rewards.RunPay]:
    """State and money after the claims."""
    return await accounts.fetch_state(session.rpc, run), await rewards.fetch_pay(session.rpc, run)
