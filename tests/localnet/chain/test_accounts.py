"""Accounts: encodings, slices, filters, sysvars, and anchorpy on them."""

from __future__ import annotations

import asyncio
import struct
import time
from base64 import b64decode

import pytest
from anchorpy import Provider, Wallet
from base58 import b58encode
from solana.rpc.api import Client
from solana.rpc.async_api import AsyncClient
from solana.rpc.types import DataSliceOpts, MemcmpOpts
from solders.hash import Hash
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.slot_history import SlotHistory
from solders.system_program import CreateAccountParams, create_account
from solders.sysvar import CLOCK, SLOT_HASHES

from localnet.chain.process import ChainProcess
from localnet.chain.rpc.encode import zstd_frame

from .conftest import SOL, newest_blockhash, pay, raw_call, signed

OWNER = Keypair().pubkey()
SLOT_HISTORY = Pubkey.from_string("SysvarS1otHistory11111111111111111111111111")


@pytest.fixture(scope="module")
def accounts(client: Client) -> list[Pubkey]:
    """Three zeroed accounts of one owner, of 10, 10 and 200 bytes."""
    payer = Keypair()
    client.request_airdrop(payer.pubkey(), 10 * SOL)
    keys = [Keypair() for _ in range(3)]
    for key, size in zip(keys, (10, 10, 200), strict=True):
        params = CreateAccountParams(
            from_pubkey=payer.pubkey(), to_pubkey=key.pubkey(), lamports=SOL, space=size, owner=OWNER
        )
        client.send_transaction(signed([create_account(params)], newest_blockhash(client), payer, key))
    return [key.pubkey() for key in keys]


def test_program_accounts_are_filtered_by_size_and_content(
    chain: ChainProcess, client: Client, accounts: list[Pubkey]
) -> None:
    assert {entry.pubkey for entry in client.get_program_accounts(OWNER, encoding="base64").value} == set(
        accounts
    )
    small = client.get_program_accounts(OWNER, encoding="base64", filters=[10]).value
    assert {entry.pubkey for entry in small} == set(accounts[:2])
    zeros = MemcmpOpts(offset=190, bytes=b58encode(bytes(10)).decode())
    large = client.get_program_accounts(OWNER, encoding="base64", filters=[zeros]).value
    assert [entry.pubkey for entry in large] == accounts[2:]
    base64 = {"memcmp": {"offset": 0, "bytes": "AQ==", "encoding": "base64"}}
    answer = raw_call(chain, "getProgramAccounts", str(OWNER), {"encoding": "base64", "filters": [base64]})
    assert answer["result"] == []
    answer = raw_call(chain, "getProgramAccounts", str(OWNER), {"filters": [{"dataSize": 1}] * 5})
    assert answer["error"]["code"] == -32602
    context = raw_call(chain, "getProgramAccounts", str(OWNER), {"encoding": "base64", "withContext": True})
    assert len(context["result"]["value"]) == 3


def test_account_encodings_show_the_same_bytes(
    chain: ChainProcess, client: Client, accounts: list[Pubkey]
) -> None:
    small, large = str(accounts[0]), str(accounts[2])

    def data(key: str, **options: object) -> object:
        return raw_call(chain, "getAccountInfo", key, options)["result"]["value"]["data"]

    assert data(small) == b58encode(bytes(10)).decode()
    assert data(small, encoding="base58") == [b58encode(bytes(10)).decode(), "base58"]
    assert b64decode(data(large, encoding="base64")[0]) == bytes(200)
    assert data(large, encoding="jsonParsed")[1] == "base64"
    zstd, name = data(large, encoding="base64+zstd")
    assert name == "base64+zstd"
    assert b64decode(zstd) == zstd_frame(bytes(200))
    assert data(large, encoding="base58", dataSlice={"offset": 5, "length": 3})[0] == "111"
    too_large = raw_call(chain, "getAccountInfo", large, {"encoding": "base58"})
    assert too_large["error"]["code"] == -32600
    sliced = client.get_account_info(accounts[2], data_slice=DataSliceOpts(offset=0, length=7)).value
    assert sliced is not None
    assert sliced.data == bytes(7)


def test_zstd_frame_holds_large_and_empty_data() -> None:
    for data in (b"", bytes(300_000), bytes(range(256)) * 1000):
        frame = zstd_frame(data)
        assert struct.unpack_from("<IBQ", frame) == (0xFD2FB528, 0xE0, len(data))
        at, out = 13, b""
        while True:
            header = int.from_bytes(frame[at : at + 3], "little")
            size, kind = header >> 3, header >> 1 & 3
            at += 3
            out += frame[at : at + 1] * size if kind == 1 else frame[at : at + size]
            at += 1 if kind == 1 else size
            if header & 1:
                break
        assert out == data
        assert at == len(frame)


def test_multiple_accounts_keep_their_order(client: Client, accounts: list[Pubkey]) -> None:
    missing = Keypair().pubkey()
    found = client.get_multiple_accounts([accounts[2], missing, accounts[0]]).value
    assert [None if account is None else len(account.data) for account in found] == [200, None, 10]


def test_sysvars_are_shown_as_fields(chain: ChainProcess) -> None:
    def info(name: str) -> object:
        answer = raw_call(chain, "getAccountInfo", f"Sysvar{name}", {"encoding": "jsonParsed"})
        data = answer["result"]["value"]["data"]
        assert data["program"] == "sysvar"
        return data["parsed"]["info"]

    clock = info("C1ock11111111111111111111111111111111")
    assert abs(clock["unixTimestamp"] - time.time()) < 5
    assert clock["slot"] > 0
    rent = {"lamportsPerByteYear": "3480", "exemptionThreshold": 2.0, "burnPercent": 50}
    assert info("Rent111111111111111111111111111111111") == rent
    assert info("EpochSchedu1e111111111111111111111111")["slotsPerEpoch"] == 432_000
    hashes = info("S1otHashes111111111111111111111111111")
    assert hashes[0]["slot"] >= clock["slot"] - 1
    assert info("RecentB1ockHashes11111111111111111111")[0]["feeCalculator"] == {
        "lamportsPerSignature": "5000"
    }


def test_rent_exemption_never_exceeds_what_lamports_can_be(chain: ChainProcess) -> None:
    assert raw_call(chain, "getMinimumBalanceForRentExemption", 165)["result"] == 2_039_280
    assert raw_call(chain, "getMinimumBalanceForRentExemption", 10**18)["result"] == 2**64 - 1


def test_clock_is_the_wall_clock_and_advances_with_the_slots(client: Client) -> None:
    slot, _, _, _, now = struct.unpack("<QqQQq", client.get_account_info(CLOCK).value.data)
    assert abs(now - time.time()) < 5
    assert slot <= client.get_slot().value
    time.sleep(0.5)
    later = struct.unpack("<QqQQq", client.get_account_info(CLOCK).value.data)[0]
    assert later > slot


def test_slot_hashes_advance_and_match_the_blocks(client: Client) -> None:
    data = client.get_account_info(SLOT_HASHES).value.data
    (count,) = struct.unpack_from("<Q", data)
    entries = [
        (struct.unpack_from("<Q", data, 8 + 40 * i)[0], data[16 + 40 * i : 48 + 40 * i]) for i in range(count)
    ]
    slots = [slot for slot, _ in entries]
    assert slots == list(range(slots[0], slots[0] - count, -1))
    assert len({value for _, value in entries}) == count
    newest = client.get_block(slots[0]).value
    assert newest is not None
    assert bytes(newest.previous_blockhash) == entries[0][1]
    history = SlotHistory.from_bytes(client.get_account_info(SLOT_HISTORY).value.data)
    assert history.newest() >= slots[0]
    assert str(history.check(slots[0])).endswith("Found")


def test_anchorpy_provider_sends_and_reads(chain: ChainProcess, payer: Keypair) -> None:
    target = Keypair().pubkey()

    async def work() -> int:
        async with AsyncClient(chain.url, commitment="confirmed") as connection:
            provider = Provider(connection, Wallet(payer))
            blockhash = (await connection.get_latest_blockhash()).value.blockhash
            await provider.send(signed([pay(payer, target, SOL)], blockhash, payer))
            return (await connection.get_balance(target)).value

    assert asyncio.run(work()) == SOL


def test_supply_counts_the_faucet_as_not_circulating(client: Client, payer: Keypair) -> None:
    supply = client.get_supply().value
    assert supply.total == supply.circulating + supply.non_circulating
    assert client.get_balance(supply.non_circulating_accounts[0]).value == supply.non_circulating
    assert supply.total <= 500_000_000 * SOL + 100 * SOL


def test_minimum_context_slot_of_the_future_is_refused(chain: ChainProcess) -> None:
    answer = raw_call(chain, "getBalance", str(OWNER), {"minContextSlot": 1 << 40})
    assert answer["error"]["code"] == -32016
    assert isinstance(answer["error"]["data"]["contextSlot"], int)
    assert raw_call(chain, "getBalance", str(OWNER), {"minContextSlot": 0})["result"]["value"] == 0


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (["short"], "Invalid param: WrongSize"),
        (["0OIl" * 10], "Invalid param: Invalid"),
        ([], "`params` should have at least 1 argument(s)"),
        ([7], "Invalid params: invalid type: integer `7`, expected a string."),
    ],
)
def test_bad_address_is_invalid_params(chain: ChainProcess, params: list[object], message: str) -> None:
    answer = raw_call(chain, "getAccountInfo", *params)
    assert answer["error"] == {"code": -32602, "message": message}
    assert raw_call(chain, "getAccountInfo", str(Hash.default()))["result"]["value"] is not None
