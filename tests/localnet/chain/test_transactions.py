"""Transactions through solana-py: money, errors, blockhashes, history."""

from __future__ import annotations

import time
from base64 import b64encode

import pytest
from solana.rpc.api import Client
from solana.rpc.core import RPCException
from solana.rpc.types import TxOpts
from solders.compute_budget import set_compute_unit_limit, set_compute_unit_price
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.message import Message
from solders.pubkey import Pubkey
from solders.rpc.errors import SendTransactionPreflightFailureMessage
from solders.transaction import VersionedTransaction
from solders.transaction_status import TransactionErrorFieldless

from localnet.chain.process import ChainProcess

from .conftest import SOL, newest_blockhash, pay, raw_call, signed, wait_until

RENT_FREE = 890_880
TOKEN = Pubkey.from_string("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA")


def preflight_error(client: Client, tx: VersionedTransaction) -> object:
    with pytest.raises(RPCException) as caught:
        client.send_transaction(tx)
    message = caught.value.args[0]
    assert isinstance(message, SendTransactionPreflightFailureMessage)
    return message.data.err


def test_transfer_moves_lamports_and_charges_5000_a_signature(client: Client, payer: Keypair) -> None:
    target, second = Keypair().pubkey(), Keypair()
    client.request_airdrop(second.pubkey(), SOL)
    blockhash = newest_blockhash(client)
    tx = signed([pay(payer, target, SOL), pay(second, target, 5)], blockhash, payer, second)
    signature = client.send_transaction(tx).value
    assert client.get_balance(target).value == SOL + 5
    assert client.get_balance(payer.pubkey()).value == 9 * SOL - 2 * 5000
    status = client.get_signature_statuses([signature]).value[0]
    assert status is not None
    assert status.err is None
    assert str(status.confirmation_status).endswith("Confirmed")


def test_priority_fee_is_price_times_limit(client: Client, payer: Keypair) -> None:
    budget = [set_compute_unit_limit(10_000), set_compute_unit_price(2_500_000)]
    tx = signed([*budget, pay(payer, Keypair().pubkey(), SOL)], newest_blockhash(client), payer)
    fee = client.get_fee_for_message(tx.message).value
    assert fee == 5000 + 25_000
    signature = client.send_transaction(tx).value
    assert client.get_balance(payer.pubkey()).value == 9 * SOL - fee
    found = client.get_transaction(signature).value
    assert found is not None
    assert found.transaction.meta is not None
    assert found.transaction.meta.fee == fee


def test_failed_transaction_without_preflight_pays_its_fee_and_changes_nothing(
    client: Client, payer: Keypair
) -> None:
    target = Keypair().pubkey()
    instructions = [set_compute_unit_price(1_000_000), pay(payer, target, SOL), pay(payer, target, 100 * SOL)]
    tx = signed(instructions, newest_blockhash(client), payer)
    signature = client.send_transaction(tx, TxOpts(skip_preflight=True)).value
    status = client.get_signature_statuses([signature]).value[0]
    assert status is not None
    assert status.err is not None
    assert status.err.to_json() == '[2,{"Custom":1}]'
    assert client.get_balance(target).value == 0
    meta = client.get_transaction(signature).value.transaction.meta
    assert meta.fee == 5000 + 9_000  # two builtins and the budget program: 3000 units each
    assert client.get_balance(payer.pubkey()).value == 10 * SOL - meta.fee


def test_preflight_failure_has_solanas_code_and_costs_nothing(
    chain: ChainProcess, client: Client, payer: Keypair
) -> None:
    tx = signed([pay(payer, Keypair().pubkey(), 100 * SOL)], newest_blockhash(client), payer)
    answer = raw_call(chain, "sendTransaction", b64encode(bytes(tx)).decode(), {"encoding": "base64"})
    error = answer["error"]
    assert error["code"] == -32002
    assert error["message"] == (
        "Transaction simulation failed: Error processing Instruction 0: custom program error: 0x1"
    )
    assert error["data"]["err"] == {"InstructionError": [0, {"Custom": 1}]}
    assert any("insufficient lamports" in line for line in error["data"]["logs"])
    assert client.get_balance(payer.pubkey()).value == 10 * SOL
    cheaper = signed([pay(payer, Keypair().pubkey(), SOL)], newest_blockhash(client), payer)
    assert client.send_transaction(cheaper).value  # only the amount was wrong


def test_same_transaction_twice_is_already_processed(client: Client, payer: Keypair) -> None:
    tx = signed([pay(payer, Keypair().pubkey(), SOL)], newest_blockhash(client), payer)
    client.send_transaction(tx)
    assert preflight_error(client, tx) == TransactionErrorFieldless.AlreadyProcessed
    assert client.get_balance(payer.pubkey()).value == 9 * SOL - 5000


def test_unknown_blockhash_is_not_found(client: Client, payer: Keypair) -> None:
    tx = signed([pay(payer, Keypair().pubkey(), SOL)], Hash.new_unique(), payer)
    assert preflight_error(client, tx) == TransactionErrorFieldless.BlockhashNotFound


def test_blockhash_expires_after_150_blocks(chain: ChainProcess, client: Client, payer: Keypair) -> None:
    def is_valid() -> bool:
        return raw_call(chain, "isBlockhashValid", str(latest.blockhash))["result"]["value"]

    latest = client.get_latest_blockhash().value
    assert is_valid()
    tx = signed([pay(payer, Keypair().pubkey(), SOL)], latest.blockhash, payer)
    wait_until(lambda: client.get_block_height().value > latest.last_valid_block_height)
    assert not is_valid()
    assert preflight_error(client, tx) == TransactionErrorFieldless.BlockhashNotFound
    dropped = client.send_transaction(tx, TxOpts(skip_preflight=True)).value
    assert client.get_signature_statuses([dropped]).value == [None]
    assert client.get_balance(payer.pubkey()).value == 10 * SOL


def test_new_account_below_rent_exemption_is_refused(client: Client, payer: Keypair) -> None:
    target = Keypair().pubkey()
    tx = signed([pay(payer, target, RENT_FREE - 1)], newest_blockhash(client), payer)
    assert "InsufficientFundsForRent" in str(preflight_error(client, tx))
    enough = signed([pay(payer, target, RENT_FREE)], newest_blockhash(client), payer)
    client.send_transaction(enough)
    assert client.get_minimum_balance_for_rent_exemption(0).value == RENT_FREE


def test_unfunded_payer_is_account_not_found(client: Client) -> None:
    nobody = Keypair()
    tx = signed([pay(nobody, Keypair().pubkey(), 1)], newest_blockhash(client), nobody)
    assert preflight_error(client, tx) == TransactionErrorFieldless.AccountNotFound


def test_wrong_signature_is_refused(chain: ChainProcess, client: Client, payer: Keypair) -> None:
    good = signed([pay(payer, Keypair().pubkey(), SOL)], newest_blockhash(client), payer)
    bad = VersionedTransaction.populate(good.message, [Keypair().sign_message(b"something else")])
    answer = raw_call(chain, "sendTransaction", b64encode(bytes(bad)).decode(), {"encoding": "base64"})
    assert answer["error"]["code"] == -32002
    assert answer["error"]["data"]["err"] == "SignatureFailure"
    dropped = client.send_transaction(bad, TxOpts(skip_preflight=True)).value  # as a validator does
    assert client.get_signature_statuses([dropped]).value == [None]
    assert client.get_balance(payer.pubkey()).value == 10 * SOL
    assert client.send_transaction(good).value


def test_program_error_is_named_by_number(client: Client, payer: Keypair) -> None:
    call = Instruction(TOKEN, b"\xff", [AccountMeta(payer.pubkey(), True, True)])
    tx = signed([call], newest_blockhash(client), payer)
    assert preflight_error(client, tx).to_json() == '[0,{"Custom":12}]'


def test_simulation_shows_logs_and_accounts_and_keeps_nothing(
    chain: ChainProcess, client: Client, payer: Keypair
) -> None:
    target = Keypair().pubkey()
    message = Message.new_with_blockhash([pay(payer, target, SOL)], payer.pubkey(), Hash.default())
    tx = VersionedTransaction.populate(message, [Keypair().sign_message(b"")])
    options = {
        "encoding": "base64",
        "replaceRecentBlockhash": True,
        "accounts": {"encoding": "base64", "addresses": [str(target)]},
    }
    value = raw_call(chain, "simulateTransaction", b64encode(bytes(tx)).decode(), options)["result"]["value"]
    assert value["err"] is None
    assert value["unitsConsumed"] == 150
    assert value["accounts"][0]["lamports"] == SOL
    assert value["replacementBlockhash"]["lastValidBlockHeight"] >= 150
    assert value["logs"][0] == "Program 11111111111111111111111111111111 invoke [1]"
    assert client.get_balance(target).value == 0


def test_history_lists_newest_first_and_pages(client: Client, payer: Keypair) -> None:
    target = Keypair().pubkey()
    blockhash = newest_blockhash(client)
    sent = [
        client.send_transaction(signed([pay(payer, target, SOL // 10 + n)], blockhash, payer)).value
        for n in range(5)
    ]
    listed = client.get_signatures_for_address(target).value
    assert [entry.signature for entry in listed] == sent[::-1]
    page = client.get_signatures_for_address(target, before=sent[3], until=sent[0], limit=2).value
    assert [entry.signature for entry in page] == [sent[2], sent[1]]
    assert abs(listed[0].block_time - time.time()) < 60


def test_block_holds_its_transactions(client: Client, payer: Keypair) -> None:
    tx = signed([pay(payer, Keypair().pubkey(), SOL)], newest_blockhash(client), payer)
    signature = client.send_transaction(tx).value
    slot = client.get_signature_statuses([signature]).value[0].slot
    wait_until(lambda: client.get_slot().value > slot)
    block = client.get_block(slot).value
    assert signature in [s for t in block.transactions for s in t.transaction.signatures]
    following = client.get_block(slot + 1).value if client.get_slot().value > slot + 1 else None
    assert following is None or following.previous_blockhash == block.blockhash
    assert slot in client.get_blocks(slot, slot + 1).value


def test_status_becomes_finalized_after_32_slots(client: Client, payer: Keypair) -> None:
    tx = signed([pay(payer, Keypair().pubkey(), SOL)], newest_blockhash(client), payer)
    signature = client.send_transaction(tx).value
    slot = client.get_signature_statuses([signature]).value[0].slot
    wait_until(lambda: client.get_slot().value >= slot + 32)
    status = client.get_signature_statuses([signature]).value[0]
    assert str(status.confirmation_status).endswith("Finalized")
    assert status.confirmations is None


def test_equal_airdrops_are_separate(client: Client) -> None:
    target = Keypair().pubkey()
    signatures = {client.request_airdrop(target, SOL).value for _ in range(3)}
    assert len(signatures) == 3
    assert client.get_balance(target).value == 3 * SOL
