"""The real client and the real programs through endpoints that do everything wrong, over real HTTP."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from solders.keypair import Keypair
from solders.system_program import TransferParams, transfer

from psyche_chain.admin.create import create_run
from psyche_chain.admin.session import Session
from psyche_chain.chain import accounts, queries
from psyche_chain.chain.accounts import Run
from psyche_chain.chain.rpc import RpcPool
from psyche_chain.chain.sender import Sender
from psyche_chain.chain.state import Phase
from psyche_chain.client.acts import Acts
from psyche_chain.client.catchup import CatchUp
from psyche_chain.client.chain_port import ChainPort
from psyche_chain.client.events import EventLog
from psyche_chain.client.loop import Client
from psyche_chain.client.weights import Weights
from psyche_chain.config import load_config
from tests.chain.bad_rpc import FAULTS, FaultyRpc
from tests.chain.support import SOL, airdrop
from tests.client.world import FakeAdapter, FakeMember, FakeModel, FakeNetwork
from tests.e2e.cluster import TINY

pytestmark = pytest.mark.usefixtures("unresolved")

STEPS = 4


@asynccontextmanager
async def faulty(url: str, *rates: dict[str, float]) -> AsyncIterator[list[FaultyRpc]]:
    """One endpoint for each set of rates, seeds counted from 1."""
    async with trio.open_nursery() as nursery:
        proxies = [FaultyRpc(url, seed=seed, rates=rate) for seed, rate in enumerate(rates, 1)]
        for proxy in proxies:
            await nursery.start(proxy.serve)
        yield proxies
        nursery.cancel_scope.cancel()


async def test_every_fault_is_served_as_it_is_called(url: str) -> None:
    answered: dict[str, bool] = {}

    async def call(fault: str, proxy: FaultyRpc) -> None:
        body = {"jsonrpc": "2.0", "id": 1, "method": "getEpochInfo", "params": []}
        answered[fault] = False
        with suppress(httpx.HTTPError), trio.move_on_after(5):
            async with httpx.AsyncClient() as client:
                reply = await client.post(proxy.url, json=body)
                answered[fault] = reply.status_code == 200 and "result" in reply.text

    async with faulty(url, *({fault: 1.0} for fault in FAULTS)) as proxies, trio.open_nursery() as nursery:
        for fault, proxy in zip(FAULTS, proxies, strict=True):
            nursery.start_soon(call, fault, proxy)
    changed = {"back", "future", "frozen", "garbage", "wrong owner", "wrong size", "wrong id"}
    assert {fault for fault in FAULTS if answered[fault]} == {*changed, "swallow"}
    for fault, proxy in zip(FAULTS, proxies, strict=True):
        assert proxy.done == {"none" if fault == "swallow" else fault: 1}


async def test_payments_through_bad_endpoints_arrive_once_each(url: str) -> None:
    """The answer is lost, the transaction is swallowed, the chain is said to be elsewhere: paid once."""
    payer, receiver = Keypair(), Keypair().pubkey()
    rates = {"": 0.2, "lost": 0.1, "swallow": 0.1, "hang": 0.01, "drip": 0.01}
    async with faulty(url, rates, rates) as proxies:
        async with RpcPool([url]) as good:
            await airdrop(good, payer.pubkey(), 10 * SOL)
        async with RpcPool([p.url for p in proxies], deadline_s=20) as rpc:
            sender = Sender(rpc, payer)
            amounts = [SOL // 100 + number for number in range(10)]
            for amount in amounts:
                step = transfer(
                    TransferParams(from_pubkey=payer.pubkey(), to_pubkey=receiver, lamports=amount)
                )
                await sender.send([step], label="pay")
        async with RpcPool([url]) as good:
            assert await queries.get_balance(good, receiver) == sum(amounts)
    served = sum((p.done for p in proxies), start=proxies[0].done.__class__())
    assert served["lost"] > 0
    assert served.total() - served["none"] > 10


async def _member(
    number: int, run: Run, wallet: Keypair, urls: list[str], peers: dict[bytes, FakeMember], folder: Path
) -> tuple[int, bytes, list[str]]:
    """A member with the real loop and the real port; exit status, weights, errors."""
    key = bytes([number + 1]) * 32
    errors: list[str] = []

    def listen(event: dict[str, Any]) -> None:
        if event["event"] == "error":
            errors.append(event["message"])

    async with RpcPool(urls) as rpc:
        with EventLog(folder / "events.jsonl", [listen]) as events:
            network, model = FakeNetwork(peers, key, folder / "records.log"), FakeModel(folder)
            weights = Weights(model, folder / "records.log", events, None)
            adapter = FakeAdapter()
            catch_up = CatchUp(weights, network, adapter, folder, events, tier=0)
            port = ChainPort(Sender(rpc, wallet), run, wallet, p2p_key=key, tier=0, weight=1)
            acts = Acts(wallet.pubkey(), port, network, weights, adapter, catch_up, events, tier=0)
            client = Client(
                *(wallet.pubkey(), port, acts, events), poll_s=0.1, linger_s=5, rng=random.Random(number)
            )
            status = await client.run()
    return status, model.weights, errors


@pytest.mark.slow
async def test_run_through_bad_endpoints_ends_with_equal_weights_and_no_missed_duty(
    url: str, tmp_path: Path
) -> None:
    config = TINY.replace("max_tier = 1", "max_tier = 0").replace(
        "max_round_train_time = 5", "max_round_train_time = 30"
    )
    config = config.replace("round_witness_time = 3", "round_witness_time = 20")
    path = tmp_path / "run.toml"
    await trio.Path(path).write_text(config.format(steps=STEPS))
    found: list[tuple[int, bytes, list[str]]] = []
    rates = [{"": 0.25, "hang": 0.01, "drip": 0.01}, {"": 0.25, "hang": 0.01, "drip": 0.01}]
    with trio.fail_after(150):
        async with faulty(url, *rates) as proxies, RpcPool([url]) as good:
            creator = Keypair()
            await airdrop(good, creator.pubkey(), 100 * SOL)
            run = await create_run(
                Session(good, Sender(good, creator)), load_config(path), paused=False, report=print
            )
            wallets = [Keypair() for _ in range(3)]
            for wallet in wallets:
                await airdrop(good, wallet.pubkey(), 5 * SOL)
            peers: dict[bytes, FakeMember] = {}

            async def live(number: int) -> None:
                urls = [p.url for p in proxies[number % 2 :] + proxies[: number % 2]]
                folder = tmp_path / f"member{number}"
                await trio.Path(folder).mkdir()
                found.append(await _member(number, run, wallets[number], urls, peers, folder))

            async with trio.open_nursery() as nursery:
                for number in range(3):
                    nursery.start_soon(live, number)
            state = await accounts.fetch_state(good, run)
    assert [status for status, _, _ in found] == [0, 0, 0]
    assert len({weights for _, weights, _ in found}) == 1
    assert (state.phase, state.step, state.lost_samples) == (Phase.FINISHED, STEPS, 0)
    assert state.checkpoint.agreed
    assert [slot.missed for slot in state.members()] == [0, 0, 0], [e for _, _, e in found]
    for proxy in proxies:
        assert len(proxy.done) > len(FAULTS) // 2
