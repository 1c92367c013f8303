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
    assert dead.calls.count("getBalance") == 1  # it rests
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


LIE = 10**9


async def test_slot_of_the_far_future_does_not_freeze_the_client(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The liar is the preferred endpoint, answers now right, now from the future, and then dies."""
    turn = 0

    def lies(method: str, params: list[Any]) -> Any:
        nonlocal turn
        turn += 1
        if turn > 20:
            return OSError("dead")
        return at(LIE if turn % 3 == 0 else slot_now(), 1)

    def slot_now() -> int:
        return 100 + int(trio.current_time() * 2.5)

    async with pool((A, Node(lies)), (B, Node(lambda m, p: at(slot_now(), 2)))) as rpc:
        for _ in range(60):
            began = trio.current_time()
            assert await queries.get_balance(rpc, KEY) in (1, 2)
            assert trio.current_time() - began < 1
            await trio.sleep(0.4)
        assert rpc.newest_slot < LIE
        assert await queries.get_balance(rpc, KEY) == 2


async def test_frozen_endpoint_is_left_though_it_answers(autojump_clock: trio.testing.MockClock) -> None:
    def good(method: str, params: list[Any]) -> Any:
        slot = 100 + int(trio.current_time() * 2.5)
        if method == "getLatestBlockhash":
            return at(slot, {"blockhash": f"hash {slot}", "lastValidBlockHeight": slot})
        return at(slot, 2)

    frozen = Node(lambda m, p: at(100, {"blockhash": "old", "lastValidBlockHeight": 1} if m[3] == "L" else 1))
    async with pool((A, frozen), (B, Node(good))) as rpc:
        found = []
        for _ in range(60):
            found.append(await queries.get_balance(rpc, KEY))
            await trio.sleep(0.4)
    assert set(found[20:]) == {2}


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"retry-after": "7"}, 7.0),
        (
            {"retry-after": "Mon, 23 Nov 2026 10:00:08 GMT", "date": "Mon, 23 Nov 2026 10:00:00 GMT"},
            8.0,
        ),
        ({"retry-after": "soon"}, 0.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "1" * 400}, 60.0),
    ],
)
async def test_retry_after_is_heeded(
    headers: dict[str, str], wait_s: float, autojump_clock: trio.testing.MockClock
) -> None:
    answers = [httpx.Response(429, headers=headers), at(1, 7)]
    async with pool((A, Node(lambda m, p: answers.pop(0))), deadline_s=100) as rpc:
        began = trio.current_time()
        assert await queries.get_balance(rpc, KEY) == 7
        assert wait_s <= trio.current_time() - began <= wait_s + 1


async def test_all_limited_for_longer_than_there_is_time_is_told_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    node = Node(lambda m, p: httpx.Response(429, headers={"retry-after": "30"}))
    async with pool((A, node), deadline_s=15) as rpc:
        began = trio.current_time()
        with pytest.raises(RpcUnavailable, match="too many requests"):
            await queries.get_balance(rpc, KEY)
        assert trio.current_time() - began < 1
    assert len(node.calls) == 1


async def test_limited_endpoint_is_left_alone_while_another_answers(
    autojump_clock: trio.testing.MockClock,
) -> None:
    limited = Node(lambda m, p: httpx.Response(429, headers={"retry-after": "30"}))
    async with pool((A, limited), (B, Node(lambda m, p: at(1, 7)))) as rpc:
        for _ in range(20):
            assert await queries.get_balance(rpc, KEY) == 7
            await trio.sleep(1)
    assert len(limited.calls) <= 2


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        DEEP.encode(),
        b'{"jsonrpc":"2.0","id":999,"result":{"context":{"slot":1},"value":1}}',
        b'{"jsonrpc":"2.0","result":{"context":{"slot":1},"value":1}}',
        b'{"jsonrpc":"2.0","id":1,"result":{"context":{"slot":1e999},"value":1}}',
        b'{"jsonrpc":"2.0","id":1,"result":{"context":{"slot":-1},"value":1}}',
        b'{"jsonrpc":"2.0","id":1,"result":{"context":{"slot":"5"},"value":1}}',
        b'{"jsonrpc":"2.0","id":1,"result":{"context":{"slot":1},"value":null}}',
        b'{"jsonrpc":"2.0","id":1,"result":{"context":[],"value":1}}',
        b'{"jsonrpc":"2.0","id":1,"result":' + b"9" * 5000 + b"}",
        b'{"jsonrpc":"2.0","id":1,"error":5}',
        b'{"jsonrpc":"2.0","id":1,"error":{"code":"x"}}',
        b'{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"Invalid request"}}',
        b'{"jsonrpc":"2.0","id":1,"result":"' + b"x" * (33 << 20) + b'"}',
    ],
)
async def test_any_body_is_an_answer_of_no_use_and_the_next_is_asked(
    body: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    bad, good = Node(lambda m, p: httpx.Response(200, content=body)), Node(lambda m, p: at(1, 7))
    async with pool((A, bad), (B, good)) as rpc:
        assert await queries.get_balance(rpc, KEY) == 7


@pytest.mark.parametrize("code", [-32601, -32010, -32011, -32602])
async def test_what_one_endpoint_refuses_another_may_give(
    code: int, autojump_clock: trio.testing.MockClock
) -> None:
    poor = Node(lambda m, p: {"error": {"code": code, "message": "not here"}})
    async with pool((A, poor), (B, Node(lambda m, p: at(1, 7)))) as rpc:
        assert await queries.get_balance(rpc, KEY) == 7


@pytest.mark.parametrize("kind", ["hangs", "drips"])
async def test_endpoint_that_never_ends_costs_one_short_wait(
    kind: str, autojump_clock: trio.testing.MockClock
) -> None:
    """One that answers byte by byte never trips a limit between two reads."""

    class Slow(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if kind == "hangs":
                await trio.sleep_forever()

            async def drip() -> Any:
                while True:
                    await trio.sleep(0.5)
                    yield b" "

            return httpx.Response(200, content=drip())

    good = Node(lambda m, p: at(1, 7))
    async with RpcPool([A, B], transport=lambda u: Slow() if u == A else good.transport()) as rpc:
        began = trio.current_time()
        for _ in range(4):
            assert await queries.get_balance(rpc, KEY) == 7
        assert trio.current_time() - began < 4


async def test_endpoint_that_recovered_is_used_again(autojump_clock: trio.testing.MockClock) -> None:
    down = True

    def value(method: str, plain: int) -> Any:
        return {"blockhash": "hash"} if method == "getLatestBlockhash" else plain

    first = Node(lambda m, p: OSError("down") if down else at(5, value(m, 1)))
    second = Node(lambda m, p: at(5, value(m, 2)))
    async with pool((A, first), (B, second)) as rpc:
        for _ in range(10):
            assert await queries.get_balance(rpc, KEY) == 2
            await trio.sleep(1)
        down = False
        await trio.sleep(120)
        assert await queries.get_balance(rpc, KEY) == 1
        assert rpc.health()[0]["score"] > 0.9


async def test_block_exception_leaves_the_pool_as_it_is(autojump_clock: trio.testing.MockClock) -> None:
    with pytest.raises(KeyError):
        async with pool((A, Node(lambda m, p: at(5, 1))), (B, Node(lambda m, p: at(5, 2)))):
            raise KeyError("mine")
