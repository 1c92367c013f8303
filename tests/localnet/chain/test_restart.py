"""What was confirmed survives a process that is killed at any moment."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest
from solana.exceptions import SolanaRpcException
from solana.rpc.api import Client
from solana.rpc.core import RPCException
from solana.rpc.types import TxOpts
from solders.keypair import Keypair
from solders.signature import Signature
from solders.system_program import ID as SYSTEM
from websockets.sync.client import connect

from localnet.chain.process import ChainProcess, ChainProcessError

from .conftest import SOL, newest_blockhash, pay, signed, wait_until


def _stream(chain: ChainProcess, payer: Keypair, target: Keypair, confirmed: list[Signature]) -> None:
    """Transfers of one lamport, one after another, until the chain is gone."""
    client = Client(chain.url, commitment="confirmed")
    amount = SOL
    try:
        while True:
            blockhash = newest_blockhash(client)
            for _ in range(20):
                amount += 1
                tx = signed([pay(payer, target.pubkey(), amount)], blockhash, payer)
                signature = client.send_transaction(tx, TxOpts(skip_preflight=True)).value
                if client.get_signature_statuses([signature]).value[0] is not None:
                    confirmed.append(signature)
    except SolanaRpcException:
        return


@pytest.mark.parametrize("after_s", [0.0, 0.7])
def test_kill_in_a_stream_of_transactions_loses_nothing_confirmed(tmp_path: Path, after_s: float) -> None:
    chain = ChainProcess(tmp_path, slot_ms=50)
    chain.start()
    chain.wait_ready()
    try:
        client = Client(chain.url, commitment="confirmed")
        pairs = [(Keypair(), Keypair()) for _ in range(3)]
        for payer, _ in pairs:
            client.request_airdrop(payer.pubkey(), 100_000 * SOL)
        confirmed: list[list[Signature]] = [[] for _ in pairs]
        threads = [
            threading.Thread(target=_stream, args=(chain, *pair, found))
            for pair, found in zip(pairs, confirmed, strict=True)
        ]
        for thread in threads:
            thread.start()
        wait_until(lambda: all(len(found) >= 5 for found in confirmed), 60)
        time.sleep(after_s)
        slot = client.get_slot().value
        genesis = client.get_genesis_hash().value
        chain.kill()
        for thread in threads:
            thread.join()
        chain.start()
        chain.wait_ready()
        assert client.get_genesis_hash().value == genesis
        assert client.get_slot().value >= slot
        for (payer, target), found in zip(pairs, confirmed, strict=True):
            assert found, "the stream confirmed nothing before the kill"
            statuses = client.get_signature_statuses(found[-200:], search_transaction_history=True).value
            assert all(status is not None and status.err is None for status in statuses)
            listed = client.get_signatures_for_address(target.pubkey()).value
            landed = len(listed)
            assert {entry.signature for entry in listed} >= set(found[-500:])
            # Never half of a transaction: what the target has, the payer spent, with one fee each.
            received = client.get_balance(target.pubkey()).value
            assert received == sum(SOL + n for n in range(1, landed + 1))
            assert client.get_balance(payer.pubkey()).value == 100_000 * SOL - received - 5000 * landed
        payer, target = pairs[0]
        again = signed([pay(payer, target.pubkey(), SOL)], newest_blockhash(client), payer)
        assert client.send_transaction(again).value
    finally:
        chain.stop()


def test_stop_is_clean_and_reset_starts_anew(tmp_path: Path) -> None:
    with ChainProcess(tmp_path, slot_ms=50) as chain:
        key = Keypair().pubkey()
        client = Client(chain.url, commitment="confirmed")
        client.request_airdrop(key, SOL)
        assert chain.stop() == 0
    with ChainProcess(tmp_path, port=chain.port, slot_ms=50) as chain:
        assert client.get_balance(key).value == SOL
    with ChainProcess(tmp_path, port=chain.port, slot_ms=50, reset=True) as chain:
        assert client.get_balance(key).value == 0
        assert client.get_account_info(SYSTEM).value is not None


def test_blockhash_and_duplicates_are_remembered_over_a_restart(tmp_path: Path) -> None:
    chain = ChainProcess(tmp_path, slot_ms=400)
    chain.start()
    chain.wait_ready()
    try:
        client = Client(chain.url, commitment="confirmed")
        payer, target = Keypair(), Keypair().pubkey()
        client.request_airdrop(payer.pubkey(), 10 * SOL)
        blockhash = newest_blockhash(client)
        tx = signed([pay(payer, target, SOL)], blockhash, payer)
        client.send_transaction(tx)
        chain.kill()
        chain.start()
        chain.wait_ready()
        with pytest.raises(RPCException, match="already been processed"):
            client.send_transaction(tx)
        other = signed([pay(payer, target, SOL + 1)], blockhash, payer)
        assert client.send_transaction(other).value
    finally:
        chain.stop()


def test_second_server_on_a_port_or_a_state_says_so(tmp_path: Path) -> None:
    with ChainProcess(tmp_path / "a", slot_ms=400) as chain:
        same_port = ChainProcess(tmp_path / "b", port=chain.port)
        same_port.start()
        assert same_port.wait() == 1
        with pytest.raises(
            ChainProcessError, match=f"port {chain.port} on 127\\.0\\.0\\.1 is already in use"
        ):
            same_port.is_ready()
        same_state = ChainProcess(tmp_path / "a")
        same_state.start()
        with pytest.raises(ChainProcessError, match="another chain runs on"):
            same_state.wait_ready()


def test_finality_is_told_of_what_was_confirmed_before_a_restart(tmp_path: Path) -> None:
    chain = ChainProcess(tmp_path, slot_ms=100)
    chain.start()
    chain.wait_ready()
    try:
        client = Client(chain.url, commitment="confirmed")
        target = Keypair().pubkey()
        signature = str(client.request_airdrop(target, SOL).value)
        chain.kill()
        chain.start()
        chain.wait_ready()
        status = client.get_signature_statuses([Signature.from_string(signature)]).value[0]
        assert status is not None
        with connect(chain.ws_url) as socket:
            for number, (method, first) in enumerate(
                (("signatureSubscribe", signature), ("logsSubscribe", {"mentions": [str(target)]}))
            ):
                body = {"jsonrpc": "2.0", "id": number, "method": method, "params": [first]}
                socket.send(json.dumps(body))
            heard: dict[str, object] = {}
            while len(heard) < 2:
                message = json.loads(socket.recv(timeout=60))
                if "method" in message:
                    heard[message["method"]] = message["params"]["result"]["value"]
        assert heard["signatureNotification"] == {"err": None}
        logs = heard["logsNotification"]
        assert isinstance(logs, dict)
        assert logs["signature"] == signature
    finally:
        chain.stop()
