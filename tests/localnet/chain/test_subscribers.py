"""Many websocket subscribers while transactions flow: all of them hear everything, in order, whoever sleeps."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest
from solders.hash import Hash
from solders.keypair import Keypair
from solders.system_program import ID, CreateAccountParams, create_account
from websockets.asyncio.client import ClientConnection, connect

from localnet.chain.process import ChainProcess
from localnet.chain.subscriptions import MAX_QUEUED, MAX_QUEUED_BYTES, Client

from .conformance.node import Rpc
from .conformance.world import CONFIRMED, SOL, encoded, pay
from .conftest import signed

SUBSCRIBERS = 20
TRANSFERS = 60


class Listener:
    """One connection with several subscriptions, and what it heard by subscription."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.kinds: dict[int, str] = {}
        self.heard: dict[str, list[object]] = {}

    async def subscribe(self, kind: str, *params: object) -> None:
        body = {"jsonrpc": "2.0", "id": 1, "method": f"{kind}Subscribe", "params": list(params)}
        await self.socket.send(json.dumps(body))
        while True:
            message = json.loads(await self.socket.recv())
            if "result" in message:
                self.kinds[message["result"]] = kind
                return
            self.take(message)

    def take(self, message: dict) -> None:
        params = message["params"]
        self.heard.setdefault(self.kinds[params["subscription"]], []).append(params["result"])

    async def until(self, kind: str, count: int) -> None:
        while len(self.heard.get(kind, [])) < count:
            self.take(json.loads(await asyncio.wait_for(self.socket.recv(), 60)))


async def _flow(chain: ChainProcess) -> None:
    rpc = Rpc(chain.url, chain.ws_url)
    payer, target = Keypair(), Keypair().pubkey()
    await asyncio.to_thread(rpc.result, "requestAirdrop", str(payer.pubkey()), 1_000 * SOL)
    options = {**CONFIRMED, "encoding": "base64"}
    async with Connections(chain.ws_url, SUBSCRIBERS + 1) as sockets:
        listeners = [Listener(socket) for socket in sockets[:SUBSCRIBERS]]
        asleep = Listener(sockets[-1])  # subscribes to everything and never reads again
        for listener in (*listeners, asleep):
            await listener.subscribe("account", str(target), options)
            await listener.subscribe(
                "program", "11111111111111111111111111111111", {**options, "filters": [{"dataSize": 0}]}
            )
            await listener.subscribe("logs", {"mentions": [str(target)]}, CONFIRMED)
            await listener.subscribe("slot")
        sockets[3].transport.abort()  # dies without a word
        alive = [listener for listener in listeners if listener.socket is not sockets[3]]

        sent: list[str] = []
        for number in range(TRANSFERS):
            blockhash = rpc.result("getLatestBlockhash", CONFIRMED)["value"]["blockhash"]
            tx = signed([pay(payer, target, SOL + number)], Hash.from_string(blockhash), payer)
            skip = {"encoding": "base64", "skipPreflight": True}
            sent.append(await asyncio.to_thread(rpc.result, "sendTransaction", encoded(tx), skip))
        await asyncio.gather(*(listener.until("logs", TRANSFERS) for listener in alive))
        for listener in alive:
            assert [entry["value"]["signature"] for entry in listener.heard["logs"]] == sent
            lamports = [entry["value"]["lamports"] for entry in listener.heard["account"]]
            assert lamports == sorted(set(lamports)), "an older state after a newer one"
            slots = [entry["slot"] for entry in listener.heard["slot"]]
            assert slots == list(range(slots[0], slots[0] + len(slots)))
            contexts = [entry["context"]["slot"] for entry in listener.heard["logs"]]
            assert contexts == sorted(contexts)
        final = rpc.result("getBalance", str(target))["value"]
        await asyncio.gather(*(_last(listener, final) for listener in alive))


async def _last(listener: Listener, lamports: int) -> None:
    while listener.heard["account"][-1]["value"]["lamports"] != lamports:
        await listener.until("account", len(listener.heard["account"]) + 1)


class Connections:
    """Several connections, all closed at the end."""

    def __init__(self, url: str, count: int) -> None:
        self._url, self._count = url, count
        self._sockets: list[ClientConnection] = []

    async def __aenter__(self) -> list[ClientConnection]:
        for _ in range(self._count):
            self._sockets.append(await connect(self._url, max_size=1 << 24))
        return self._sockets

    async def __aexit__(self, *error: object) -> None:
        for socket in self._sockets:
            socket.transport.abort()


def test_twenty_subscribers_hear_everything_in_order(chain: ChainProcess) -> None:
    asyncio.run(_flow(chain))
    assert "Traceback" not in chain.log_path.read_text()


def test_subscriber_that_does_not_read_is_bounded_and_cut_off() -> None:
    async def work() -> None:
        client = Client()
        for number in range(MAX_QUEUED):
            client.send({"n": number})
        assert not client.cut_off.is_set()
        client.send({})
        assert client.cut_off.is_set()
        large = Client()
        notice = "x" * (MAX_QUEUED_BYTES // 4)
        large.send("y" * (2 * MAX_QUEUED_BYTES))  # one may be of any size
        assert await large.next()
        for _ in range(4):
            large.send(notice)
        assert large.cut_off.is_set()

    asyncio.run(work())


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_sleeping_subscribers_do_not_fill_the_memory(chain: ChainProcess) -> None:
    """Ten connections that are told of a megabyte with every transfer and read none of it."""
    rpc = Rpc(chain.url, chain.ws_url)
    payer, large = Keypair(), Keypair()
    rpc.result("requestAirdrop", str(payer.pubkey()), 1_000 * SOL)

    def resident() -> int:
        pages = int(Path(f"/proc/{chain.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") >> 20

    async def work() -> None:

        def blockhash() -> Hash:
            return Hash.from_string(rpc.result("getLatestBlockhash", CONFIRMED)["value"]["blockhash"])

        params = CreateAccountParams(
            from_pubkey=payer.pubkey(), to_pubkey=large.pubkey(), lamports=100 * SOL, space=1 << 20, owner=ID
        )
        rpc.result(
            "sendTransaction",
            encoded(signed([create_account(params)], blockhash(), payer, large)),
            {"encoding": "base64"},
        )
        async with Connections(chain.ws_url, 10) as sockets:
            before = resident()
            for socket in sockets:
                await Listener(socket).subscribe(
                    "account", str(large.pubkey()), {**CONFIRMED, "encoding": "base64"}
                )
                socket.transport.pause_reading()
            for number in range(30):
                tx = signed([pay(payer, large.pubkey(), SOL + number)], blockhash(), payer)
                await asyncio.to_thread(rpc.result, "sendTransaction", encoded(tx), {"encoding": "base64"})
            grown = resident() - before
            # 30 notices of 1.4 MB for ten connections are 420 MB; each may hold 16 and what the socket takes.
            assert grown < 10 * 26, f"{grown} MiB"

    asyncio.run(work())
    assert rpc.result("getHealth") == "ok"
