"""The RPC pool against scripted endpoints."""

from typing import Any

import httpx
import pytest
import trio
from solders.pubkey import Pubkey

from psyche_chain.chain import queries
from psyche_chain.chain.errors import RpcError, RpcUnavailable
from psyche_chain.chain.rpc import RpcPool, check_url
from tests.chain.support import A, B, Node, at, pool

KEY = Pubkey.from_bytes(bytes(range(32)))


async def test_failing_endpoint_is_left_for_the_next(autojump_clock: trio.testing.MockClock) -> None:
    dead = Node(lambda m, p: httpx.ConnectError("refused"))
    good = Node(lambda m, p: at(5, 42))
    async with pool((A, dead), (B, good)) as rpc:
        assert await queries.get_balance(rpc, KEY) == 42
        assert await queries.get_balance(rpc, KEY) == 42
        health = {row["endpoint"]: row for row in rpc.health()}
    assert len(dead.calls) == 1  # it rests
    assert health["a.test"]["score"] < health["b.test"]["score"]


@pytest.mark.parametrize(
    "bad",
    [
        httpx.Response(429),
        httpx.Response(503, text="busy"),
        httpx.Response(200, text="<html>"),
        httpx.Response(200, json=[1]),
        {"error": {"code": -32005, "message": "node is behind"}},
        {"result": {"context": {}, "value": 1}},
        {"result": None},
        {},
    ],
)
async def test_unusable_answers_are_tried_again(bad: Any, autojump_clock: trio.testing.MockClock) -> None:
    answers = [bad, bad, at(1, 7)]
    node = Node(lambda m, p: answers.pop(0))
    async with pool((A, node)) as rpc:
        assert await queries.get_balance(rpc, KEY) == 7
    assert answers == []


async def test_final_errors_are_not_tried_again() -> None:
    node = Node(lambda m, p: {"error": {"code": -32602, "message": "Invalid params"}})
    async with pool((A, node)) as rpc:
        with pytest.raises(RpcError, match="Invalid params") as caught:
            await queries.get_balance(rpc, KEY)
    assert caught.value.code == -32602
    assert len(node.calls) == 1


async def test_unreachable_says_so_in_time_and_hides_the_path(
    autojump_clock: trio.testing.MockClock,
) -> None:
    nodes = [(url, Node(lambda m, p: httpx.ConnectError("refused"))) for url in (A, B)]
    async with pool(*nodes, deadline_s=5) as rpc:
        began = trio.current_time()
        with pytest.raises(RpcUnavailable) as caught:
            await queries.get_balance(rpc, KEY)
    assert trio.current_time() - began == pytest.approx(5.0, abs=0.5)
    assert "within 5 s" in caught.value.message
    assert "a.test, b.test" in caught.value.hint
    assert "secret-token" not in str(caught.value)


async def test_hanging_endpoint_cannot_hold_a_call_past_its_deadline(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Hang(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            await trio.sleep_forever()
            raise AssertionError

    async with RpcPool([A], deadline_s=3, transport=lambda url: Hang()) as rpc:
        began = trio.current_time()
        with pytest.raises(RpcUnavailable):
            await queries.get_balance(rpc, KEY)
    assert trio.current_time() - began == pytest.approx(3.0, abs=0.5)


async def test_stale_node_is_never_believed(autojump_clock: trio.testing.MockClock) -> None:
    up = True
    ahead = Node(lambda m, p: at(100, 2) if up else httpx.ConnectError("down"))
    slots = [90, 95, 100]
    behind = Node(lambda m, p: at(slots.pop(0), 1))
    async with pool((A, ahead), (B, behind)) as rpc:
        assert await queries.get_balance(rpc, KEY) == 2
        up = False
        assert await queries.get_balance(rpc, KEY) == 1  # only once it has caught up
    assert slots == []


async def test_own_transaction_is_seen_afterwards(autojump_clock: trio.testing.MockClock) -> None:
    slots = [10, 11, 12]
    node = Node(lambda m, p: at(slots.pop(0), 3))
    async with pool((A, node)) as rpc:
        rpc.observe(12)
        assert await queries.get_balance(rpc, KEY) == 3


@pytest.mark.parametrize("url", ["", "localhost:8899", "ftp://x", "http://", "ws://x:1"])
def test_addresses_that_are_not_http_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="not an http"):
        check_url(url)
