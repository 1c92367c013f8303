"""The websocket only makes a member look sooner: nothing that it does or says may matter more than that."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import trio
from solders.keypair import Keypair
from trio_websocket import WebSocketRequest, serve_websocket

from psyche_chain.chain import wake as module
from psyche_chain.chain.rpc import RpcPool
from psyche_chain.chain.wake import watch_account, websocket_url
from tests.chain.support import SOL, airdrop

KEY = Keypair.from_seed(bytes(32)).pubkey()
NOTICE = json.dumps({"jsonrpc": "2.0", "method": "accountNotification", "params": {}})


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:8899", "ws://127.0.0.1:8900/"),
        ("https://api.devnet.solana.com", "wss://api.devnet.solana.com/"),
        ("https://rpc.test/key?x=1", "wss://rpc.test/key?x=1"),
        ("http://[::1]:8899/", "ws://[::1]:8900/"),
    ],
)
def test_websocket_is_where_nodes_serve_it(url: str, expected: str) -> None:
    assert websocket_url(url) == expected


class Counter:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1

    async def reaches(self, count: int, limit_s: float = 30) -> None:
        with trio.fail_after(limit_s):
            while self.count < count:
                await trio.sleep(0.02)


async def test_change_of_an_account_on_the_chain_wakes(url: str) -> None:
    wake = Counter()
    async with trio.open_nursery() as nursery, RpcPool([url]) as rpc:
        nursery.start_soon(watch_account, [url], KEY, wake)
        with trio.fail_after(30):
            while not wake.count:  # the subscription may come after the first change
                await airdrop(rpc, KEY, SOL)
        before = wake.count
        await airdrop(rpc, KEY, SOL)
        await wake.reaches(before + 1)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def server(behave: Callable[[Any], Awaitable[None]]) -> AsyncIterator[str]:
    """A websocket server; the address is that of the RPC endpoint beside it."""

    async def handle(request: WebSocketRequest) -> None:
        socket = await request.accept()
        await behave(socket)

    async with trio.open_nursery() as nursery:
        serving = await nursery.start(partial(serve_websocket, handle, "127.0.0.1", 0, ssl_context=None))
        yield f"http://127.0.0.1:{serving.port - 1}"
        nursery.cancel_scope.cancel()


async def test_websocket_that_floods_wakes_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAKES", 3)
    monkeypatch.setattr(module, "GAP_S", 0.01)
    is_notice, read = module._is_notice, Counter()

    def counted(message: str | bytes) -> bool:
        read()
        return is_notice(message)

    monkeypatch.setattr(module, "_is_notice", counted)

    async def flood(socket: Any) -> None:
        while True:
            await socket.send_message(NOTICE)

    wake = Counter()
    async with server(flood) as url, trio.open_nursery() as nursery:
        nursery.start_soon(watch_account, [url], KEY, wake)
        await read.reaches(20)
        nursery.cancel_scope.cancel()
    assert wake.count == 3


@pytest.mark.parametrize(
    "said",
    ["", "{", "[]", "\x00", '{"error":{}}', "[" * 60_000, "x" * 100_000, None],
    ids=lambda s: str(s)[:9],
)
async def test_websocket_that_lies_or_dies_is_tried_again(
    said: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_RETRY_S", 0.01)
    connections = 0

    async def behave(socket: Any) -> None:
        nonlocal connections
        connections += 1
        if connections >= 3:
            await socket.get_message()
            await socket.send_message(NOTICE)
        elif said is not None:
            await socket.send_message(said)
            await trio.sleep(0.2)

    wake = Counter()
    async with server(behave) as url, trio.open_nursery() as nursery:
        nursery.start_soon(watch_account, ["http://127.0.0.1:9", url], KEY, wake)
        await wake.reaches(1)
        nursery.cancel_scope.cancel()
