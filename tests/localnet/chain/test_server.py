"""The server itself: bad requests, batches, load, websocket."""

from __future__ import annotations

import asyncio
import json
import socket
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from solana.rpc.api import Client
from solana.rpc.websocket_api import connect
from solders.keypair import Keypair
from solders.rpc.config import RpcTransactionLogsFilterMentions
from websockets.asyncio.client import connect as raw_connect
from websockets.sync.client import connect as connect_now

from localnet.chain.process import ChainProcess

from .conftest import SOL, newest_blockhash, pay, raw_call, signed


def post(chain: ChainProcess, body: bytes) -> httpx.Response:
    return httpx.post(chain.url, content=body, headers={"content-type": "application/json"}, timeout=30)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", -32700),
        (b"{", -32700),
        (b"[" * 100_000, -32700),
        (b"7", -32700),
        (b"[7]", -32700),
        (b'{"jsonrpc":"1.0","id":1,"method":"getSlot"}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"getEverything"}', -32601),
        (b'{"jsonrpc":"2.0","id":1,"method":"getSlot","params":{"a":1}}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"getBlockTime","params":[-1]}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"getBlockTime","params":[99999999]}', -32004),
        (b'{"jsonrpc":"2.0","id":1,"method":"sendTransaction","params":["!!"]}', -32602),
        (
            b'{"jsonrpc":"2.0","id":1,"method":"sendTransaction","params":["AAAA",{"encoding":"base64"}]}',
            -32602,
        ),
        (b'{"jsonrpc":"2.0","id":1,"method":"getSlot","params":[{"commitment":"maybe"}]}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"getSlot","params":[{"commitment":"\\ud800"}]}', -32602),
        (b'{"jsonrpc":"2.0","id":"\\ud800","method":"getEverything"}', -32601),
        (b'{"jsonrpc":"2.0","id":1,"method":"getSlot","params":[{"minContextSlot":-1}]}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"isBlockhashValid","params":["x"]}', -32602),
    ],
)
def test_bad_request_gets_its_error_code(chain: ChainProcess, body: bytes, code: int) -> None:
    answer = post(chain, body)
    assert answer.status_code == 200
    assert answer.json()["error"]["code"] == code
    assert raw_call(chain, "getHealth")["result"] == "ok"


def test_oversized_body_is_refused(chain: ChainProcess) -> None:
    assert post(chain, b" " * (2 << 20)).status_code == 413

    def chunks():
        for _ in range(40):
            yield b" " * 65536

    try:
        status = httpx.post(
            chain.url, content=chunks(), headers={"content-type": "application/json"}, timeout=30
        ).status_code
    except httpx.TransportError:
        status = 413  # closed while the rest was still being sent
    assert status == 413
    assert raw_call(chain, "getHealth")["result"] == "ok"


def test_broken_connections_do_no_harm(chain: ChainProcess) -> None:
    for port in (chain.port, chain.port + 1):
        for data in (b"", b"POST / HTTP/1.1\r\ncontent-length: 100\r\n\r\nabc", b"\x00\xff" * 100):
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(data)
    assert raw_call(chain, "getHealth")["result"] == "ok"


def test_batch_is_answered_in_order_and_notifications_are_not(chain: ChainProcess) -> None:
    batch = [{"jsonrpc": "2.0", "id": i, "method": "getSlot"} for i in range(5)]
    batch.append({"jsonrpc": "2.0", "method": "getSlot"})
    answers = post(chain, json.dumps(batch).encode()).json()
    assert [answer["id"] for answer in answers] == list(range(5))


def test_concurrent_senders_are_all_served(chain: ChainProcess, client: Client) -> None:
    payers = [Keypair() for _ in range(8)]
    target = Keypair().pubkey()
    for payer in payers:
        client.request_airdrop(payer.pubkey(), 100 * SOL)
    blockhash = newest_blockhash(client)

    def send(payer: Keypair) -> int:
        with httpx.Client(timeout=60) as http:
            for n in range(10):
                tx = signed([pay(payer, target, SOL + n)], blockhash, payer)
                params = [b64encode(bytes(tx)).decode(), {"encoding": "base64"}]
                body = {"jsonrpc": "2.0", "id": 1, "method": "sendTransaction", "params": params}
                assert "result" in http.post(chain.url, json=body).json()
        return 10 * SOL + 45

    with ThreadPoolExecutor(8) as pool:
        total = sum(pool.map(send, payers))
    assert client.get_balance(target).value == total


async def _notices(chain: ChainProcess, client: Client) -> None:
    payer, target = Keypair(), Keypair().pubkey()
    await asyncio.to_thread(client.request_airdrop, payer.pubkey(), 10 * SOL)
    blockhash = await asyncio.to_thread(newest_blockhash, client)
    tx = signed([pay(payer, target, SOL)], blockhash, payer)
    async with connect(chain.ws_url) as socket:
        await socket.account_subscribe(target, commitment="confirmed", encoding="base64")
        await socket.logs_subscribe(RpcTransactionLogsFilterMentions(target), commitment="confirmed")
        await socket.signature_subscribe(tx.signatures[0], commitment="confirmed")
        await socket.signature_subscribe(tx.signatures[0], commitment="finalized")
        ids = [(await socket.recv())[0].result for _ in range(4)]
        assert len(set(ids)) == 4
        await asyncio.to_thread(client.send_transaction, tx)
        first = {}
        for _ in range(3):
            notice = (await asyncio.wait_for(socket.recv(), 20))[0]
            first[notice.subscription] = notice.result
        assert set(first) == set(ids[:3])
        assert first[ids[0]].value.lamports == SOL
        assert first[ids[1]].value.signature == tx.signatures[0]
        assert first[ids[2]].value.err is None
        final = (await asyncio.wait_for(socket.recv(), 30))[0]
        assert final.subscription == ids[3]
        assert final.result.context.slot >= first[ids[0]].context.slot + 32
        await socket.signature_subscribe(tx.signatures[0], commitment="confirmed")
        late_id = (await socket.recv())[0].result
        late = (await asyncio.wait_for(socket.recv(), 20))[0]
        assert late.subscription == late_id
        assert late.result.value.err is None
        await socket.account_unsubscribe(ids[0])
        assert (await socket.recv())[0].result is True


def test_subscriptions_tell_of_a_transfer_also_after_the_fact(chain: ChainProcess, client: Client) -> None:
    asyncio.run(_notices(chain, client))


async def _slots(chain: ChainProcess) -> None:
    async with raw_connect(chain.ws_url) as socket:
        for bad, code in (
            ("{", -32700),
            ("[1]", -32700),
            ('{"jsonrpc":"2.0","id":1,"method":"blockSubscribe"}', -32601),
        ):
            await socket.send(bad)
            answer = json.loads(await socket.recv())
            assert answer["error"]["code"] == code
        await socket.send('{"jsonrpc":"2.0","method":"ping"}')  # a notification: no answer
        await socket.send('{"jsonrpc":"2.0","id":1,"method":"slotSubscribe"}')
        number = json.loads(await socket.recv())["result"]
        seen = []
        while len(seen) < 4:
            notice = json.loads(await asyncio.wait_for(socket.recv(), 20))
            assert notice["params"]["subscription"] == number
            seen.append(notice["params"]["result"]["slot"])
        assert seen == list(range(seen[0], seen[0] + 4))
        await socket.send(
            json.dumps({"jsonrpc": "2.0", "id": 2, "method": "slotUnsubscribe", "params": [number + 1]})
        )
        while "error" not in (answer := json.loads(await socket.recv())):
            assert "method" in answer
        assert answer["error"]["code"] == -32602


def test_slots_are_announced_one_by_one_and_bad_messages_answered(chain: ChainProcess) -> None:
    asyncio.run(_slots(chain))


async def _slot_updates(chain: ChainProcess, client: Client) -> None:
    async with raw_connect(chain.ws_url) as socket:
        await socket.send('{"jsonrpc":"2.0","id":1,"method":"slotsUpdatesSubscribe"}')
        number = json.loads(await socket.recv())["result"]
        await asyncio.to_thread(client.request_airdrop, Keypair().pubkey(), SOL)
        seen: dict[str, list[dict[str, object]]] = {}
        while not any(update["stats"]["numSuccessfulTransactions"] for update in seen.get("frozen", [])):
            notice = json.loads(await asyncio.wait_for(socket.recv(), 20))
            assert (notice["method"], notice["params"]["subscription"]) == (
                "slotsUpdatesNotification",
                number,
            )
            update = notice["params"]["result"]
            seen.setdefault(update["type"], []).append(update)
        while len(seen) < 5 or len(seen["createdBank"]) < 2:
            update = json.loads(await asyncio.wait_for(socket.recv(), 20))["params"]["result"]
            seen.setdefault(update["type"], []).append(update)
        assert set(seen) == {"frozen", "optimisticConfirmation", "root", "completed", "createdBank"}
        slots = [update["slot"] for update in seen["createdBank"]]
        assert slots == list(range(slots[0], slots[0] + len(slots)))
        assert seen["createdBank"][0]["parent"] == slots[0] - 1
        await socket.send(
            json.dumps({"jsonrpc": "2.0", "id": 2, "method": "slotsUpdatesUnsubscribe", "params": [number]})
        )
        while "result" not in (answer := json.loads(await socket.recv())):
            assert answer["method"] == "slotsUpdatesNotification"
        assert answer["result"] is True


def test_slot_updates_tell_what_became_of_each_slot(chain: ChainProcess, client: Client) -> None:
    asyncio.run(_slot_updates(chain, client))


def test_twenty_subscribers_all_hear_of_a_change(chain: ChainProcess, client: Client) -> None:
    target = Keypair().pubkey()

    async def work() -> list[int]:
        sockets = [await raw_connect(chain.ws_url) for _ in range(20)]
        options = {"encoding": "base64", "commitment": "confirmed"}
        ask = {"jsonrpc": "2.0", "id": 1, "method": "accountSubscribe", "params": [str(target), options]}
        for subscriber in sockets:
            await subscriber.send(json.dumps(ask))
            await subscriber.recv()
        await asyncio.to_thread(client.request_airdrop, target, SOL)
        heard = [json.loads(await asyncio.wait_for(subscriber.recv(), 20)) for subscriber in sockets]
        for subscriber in sockets:
            await subscriber.close()
        return [notice["params"]["result"]["value"]["lamports"] for notice in heard]

    assert asyncio.run(work()) == [SOL] * 20


GOOD = b'{"jsonrpc":"2.0","id":1,"method":"getHealth"}'


@pytest.mark.parametrize("path", ["/", "//", "/rpc", "/rpc/v1?cluster=custom"])
def test_any_path_is_served_as_on_a_validator(chain: ChainProcess, path: str) -> None:
    head = {"content-type": "application/json"}
    answer = httpx.post(chain.url + path, content=GOOD, headers=head, timeout=30)
    assert (answer.status_code, answer.json()["result"]) == (200, "ok")
    assert httpx.get(chain.url + path, timeout=30).status_code == 405
    assert httpx.get(chain.url + "/health", timeout=30).text == "ok"
    assert httpx.options(chain.url + path, timeout=30).headers["allow"] == "OPTIONS, POST"


def test_page_on_the_internet_may_use_a_chain_on_this_machine(chain: ChainProcess) -> None:
    """What a browser asks before an explorer's page may reach a loopback address."""
    asked = {
        "origin": "https://explorer.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type,solana-client",
        "access-control-request-private-network": "true",
    }
    answer = httpx.options(chain.url, headers=asked, timeout=30)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-private-network"] == "true"
    assert answer.headers["access-control-allow-headers"] == "content-type,solana-client"


@pytest.mark.parametrize(
    "body", [b"\xef\xbb\xbf" + GOOD, GOOD.decode().encode("utf-16-le"), GOOD.decode().encode("utf-32-be")]
)
def test_requests_are_utf8_without_a_mark(chain: ChainProcess, body: bytes) -> None:
    assert post(chain, body).json()["error"]["code"] == -32700
    with connect_now(chain.ws_url + "/any/path") as socket:
        socket.send(body)
        assert json.loads(socket.recv(timeout=30))["error"]["code"] == -32700


def test_version_of_null_is_none(chain: ChainProcess) -> None:
    answer = post(chain, b'{"jsonrpc":null,"id":1,"method":"getHealth"}').json()
    assert answer["error"]["message"] == "Unsupported JSON-RPC protocol version"
