"""Requests that no honest client sends, on real sockets: an answer or a refusal, never a hang or a traceback."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Iterator

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from localnet.chain.process import ChainProcess
from localnet.chain.protocol import BoundedProtocol
from localnet.chain.rpc import METHODS
from localnet.chain.rpc.dispatch import MAX_ANSWER_BYTES, MAX_BATCH
from localnet.chain.subscriptions import KINDS, MAX_SUBSCRIPTIONS

FUZZ = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
KEYS = ["So11111111111111111111111111111111111111112", "1" * 32, "1" * 64, "x", ""]
WORDS = [
    "commitment", "encoding", "filters", "memcmp", "dataSize", "offset", "bytes", "dataSlice", "length", "limit",
    "minContextSlot", "mint", "programId", "accounts", "addresses", "sigVerify", "confirmed", "base64", "jsonParsed",
]  # fmt: skip
leaves = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.sampled_from(KEYS + WORDS),
    st.integers(-(1 << 70), 1 << 70),
)  # fmt: skip
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)
methods = st.sampled_from(sorted(set(METHODS) - {"getLeaderSchedule"})) | st.text(max_size=10)
requests = st.fixed_dictionaries(
    {
        "jsonrpc": st.just("2.0"),
        "id": st.integers(0, 9),
        "method": methods,
        "params": st.lists(values, max_size=4),
    }
)
broken = st.fixed_dictionaries(
    {}, optional={"jsonrpc": values, "id": values, "method": values, "params": values, "x": values}
)


@pytest.fixture(scope="module")
def http(chain: ChainProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=chain.url, timeout=30) as client:
        yield client


def _post(http: httpx.Client, body: bytes) -> httpx.Response:
    return http.post("/", content=body, headers={"content-type": "application/json"})


def _healthy(chain: ChainProcess, http: httpx.Client) -> None:
    assert _post(http, b'{"jsonrpc":"2.0","id":1,"method":"getHealth"}').json()["result"] == "ok"
    assert "Traceback" not in chain.log_path.read_text()


@FUZZ
@given(body=st.one_of(requests, broken, st.lists(requests, max_size=3), st.lists(values, max_size=3), values))
def test_any_json_is_answered_or_refused(http: httpx.Client, body: object) -> None:
    answer = _post(http, json.dumps(body).encode())
    assert answer.status_code == 200
    if answer.content:
        found = answer.json()
        for item in found if isinstance(found, list) else [found]:
            assert ("result" in item) != ("error" in item)
            assert item.get("error", {}).get("code") != -32603, f"internal error for {body}"


@FUZZ
@given(body=st.binary(max_size=300))
def test_any_bytes_are_refused(http: httpx.Client, body: bytes) -> None:
    answer = _post(http, body)
    assert answer.status_code in (200, 400)
    if answer.status_code == 200 and answer.content:
        assert "error" in answer.json()


@settings(FUZZ, max_examples=60)
@given(data=st.binary(min_size=1, max_size=400), port=st.sampled_from([0, 1]))
def test_any_bytes_on_the_socket_do_no_harm(chain: ChainProcess, data: bytes, port: int) -> None:
    with socket.create_connection(("127.0.0.1", chain.port + port), timeout=30) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionError):
            while connection.recv(65_536):
                pass


@settings(FUZZ, max_examples=60)
@given(
    messages=st.lists(st.one_of(requests, broken, values).map(json.dumps) | st.text(max_size=50), max_size=5)
)
def test_any_websocket_message_is_answered_or_refused(chain: ChainProcess, messages: list[str]) -> None:
    with connect(chain.ws_url) as connection:
        for message in messages:
            connection.send(message)
        connection.send('{"jsonrpc":"2.0","id":"end","method":"nothing"}')
        while True:
            answer = json.loads(connection.recv(timeout=30))
            if isinstance(answer, dict) and answer.get("id") == "end":
                break


@settings(FUZZ, max_examples=40)
@given(kind=st.sampled_from(KINDS), params=st.lists(values, max_size=3))
def test_any_subscription_is_made_or_refused(chain: ChainProcess, kind: str, params: list[object]) -> None:
    with connect(chain.ws_url) as connection:
        connection.send(
            json.dumps({"jsonrpc": "2.0", "id": 1, "method": f"{kind}Subscribe", "params": params})
        )
        answer = json.loads(connection.recv(timeout=30))
        assert ("result" in answer) != ("error" in answer)


@settings(FUZZ, max_examples=40)
@given(frame=st.binary(min_size=1, max_size=200))
def test_any_frame_ends_one_connection_only(chain: ChainProcess, frame: bytes) -> None:
    with connect(chain.ws_url) as connection:
        connection.socket.sendall(frame)
        with contextlib.suppress(OSError):  # the server may have ended the connection already
            connection.socket.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionClosed, TimeoutError):
            while True:
                connection.recv(timeout=30)


def test_nothing_left_a_trace(chain: ChainProcess, http: httpx.Client) -> None:
    _healthy(chain, http)


def test_batches_are_bounded_in_number_and_answer(chain: ChainProcess, http: httpx.Client) -> None:
    def batch(method: str, count: int) -> bytes:
        return json.dumps([{"jsonrpc": "2.0", "id": n, "method": method} for n in range(count)]).encode()

    assert _post(http, batch("getSlot", MAX_BATCH + 1)).json()["error"]["code"] == -32600
    assert len(_post(http, batch("getSlot", MAX_BATCH)).json()) == MAX_BATCH
    answer = _post(http, batch("getLeaderSchedule", 14))  # 3 MB each
    assert len(answer.content) < MAX_ANSWER_BYTES + (4 << 20)
    found = answer.json()
    assert [item["id"] for item in found] == list(range(14))
    assert "result" in found[0]
    assert "larger than" in found[-1]["error"]["message"]
    _healthy(chain, http)


def test_subscriptions_of_a_connection_are_bounded(chain: ChainProcess) -> None:
    with connect(chain.ws_url, max_size=1 << 22) as connection:
        ask = [
            {"jsonrpc": "2.0", "id": n, "method": "signatureSubscribe", "params": ["1" * 64]}
            for n in range(MAX_SUBSCRIPTIONS + 1)
        ]
        connection.send(json.dumps(ask))
        while True:
            found = json.loads(connection.recv(timeout=30))
            if isinstance(found, list):
                break
        assert all("result" in item for item in found[:-1])
        assert found[-1]["error"]["message"].startswith("Too many subscriptions")


def test_oversized_websocket_message_ends_its_connection(chain: ChainProcess, http: httpx.Client) -> None:
    with connect(chain.ws_url) as connection:
        connection.send("x" * (2 << 20))
        with pytest.raises(ConnectionClosed) as caught:
            connection.recv(timeout=30)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1009
    _healthy(chain, http)


class _Short(BoundedProtocol):
    request_s = 0.3


@pytest.mark.parametrize(
    "data",
    [b"", b"POST / HTTP/1.1\r\nho", b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nabc"],
    ids=["silent", "in the headers", "in the body"],
)
def test_request_that_does_not_come_is_not_waited_for(data: bytes) -> None:
    """Slow clients, with a shorter limit than the real one: each is closed, trickling or not."""
    import uvicorn

    async def app(scope, receive, send) -> None:
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    async def work() -> tuple[bytes, bytes]:
        config = uvicorn.Config(app, http=_Short, lifespan="off", log_level="error", port=0)
        server = uvicorn.Server(config)
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        serving = asyncio.create_task(server.serve([listener]))
        port = listener.getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(data)
        try:
            slow = await asyncio.wait_for(reader.read(), 20)
        except ConnectionError:
            slow = b""
        writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        good = await asyncio.wait_for(reader.read(), 20)
        server.should_exit = True
        await serving
        return slow, good

    slow, good = asyncio.run(work())
    assert slow == b""
    assert good.startswith(b"HTTP/1.1 200")


def test_many_idle_connections_leave_the_server_usable(chain: ChainProcess, http: httpx.Client) -> None:
    idle = []
    try:
        for _ in range(300):
            idle.append(socket.create_connection(("127.0.0.1", chain.port), timeout=30))
        _healthy(chain, http)
    finally:
        for connection in idle:
            connection.close()
    _healthy(chain, http)
