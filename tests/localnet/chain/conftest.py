"""A chain for the tests of a module, and what they send to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import httpx
import pytest
from solana.rpc.api import Client
from solders.hash import Hash
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.message import Message
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction

from localnet.chain.process import ChainProcess

SOL = 1_000_000_000


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChainProcess]:
    with ChainProcess(tmp_path_factory.mktemp("chain"), slot_ms=50) as process:
        yield process


@pytest.fixture(scope="module")
def client(chain: ChainProcess) -> Client:
    return Client(chain.url, commitment="confirmed")


@pytest.fixture
def payer(client: Client) -> Keypair:
    keypair = Keypair()
    client.request_airdrop(keypair.pubkey(), 10 * SOL)
    return keypair


def raw_call(chain: ChainProcess, method: str, *params: object) -> dict[str, object]:
    """One request without a client library: the whole answer."""
    body = {"jsonrpc": "2.0", "id": 7, "method": method, "params": list(params)}
    return httpx.post(chain.url, json=body, timeout=30).json()


def pay(source: Keypair, target: Pubkey, lamports: int) -> Instruction:
    return transfer(TransferParams(from_pubkey=source.pubkey(), to_pubkey=target, lamports=lamports))


def signed(instructions: Sequence[Instruction], blockhash: Hash, *signers: Keypair) -> VersionedTransaction:
    message = Message.new_with_blockhash(list(instructions), signers[0].pubkey(), blockhash)
    return VersionedTransaction(message, list(signers))


def newest_blockhash(client: Client) -> Hash:
    return client.get_latest_blockhash().value.blockhash


def wait_until(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "the condition did not come true"
        time.sleep(0.02)
