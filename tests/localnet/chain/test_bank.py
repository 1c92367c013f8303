"""The bank and its machine without a server: what no client can bring about at will."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from solders.hash import Hash
from solders.instruction import AccountMeta, CompiledInstruction, Instruction
from solders.keypair import Keypair
from solders.message import Message
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.system_program import ID as SYSTEM
from solders.system_program import (
    AdvanceNonceAccountParams,
    CreateAccountParams,
    InitializeNonceAccountParams,
    advance_nonce_account,
    create_account,
    initialize_nonce_account,
)
from solders.transaction import VersionedTransaction

from localnet.chain.bank import Bank, Published
from localnet.chain.errors import RpcError
from localnet.chain.records import Executed, Rejected, SlotRow
from localnet.chain.rpc import Node
from localnet.chain.rpc.blocks import get_block
from localnet.chain.rpc.params import Params
from localnet.chain.store import History, Store
from localnet.chain.svm import Svm, SvmCrash
from localnet.chain.view import View

from .conftest import SOL, pay, signed


class Chain:
    """A bank whose commits are applied in its own thread."""

    def __init__(self, path: Path) -> None:
        self.bank = Bank(path, slot_ms=60_000)
        first = self.bank.start(self._publish)
        self.accounts = dict(first.accounts)
        self.blockhash = Hash.from_bytes(first.slots[0].blockhash)
        self.payer = Keypair()
        self.bank.airdrop(bytes(self.payer.pubkey()), 10 * SOL).result(30)

    def _publish(self, published: Published) -> None:
        self.accounts.update(published.accounts)
        for future, result in published.answers:
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)

    def send(self, tx: VersionedTransaction) -> Executed | Rejected:
        return self.bank.submit(tx, bytes(tx), preflight=False).result(30)

    def lamports(self, key: Pubkey) -> int:
        record = self.accounts.get(bytes(key))
        return 0 if record is None else record.lamports


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    chain = Chain(tmp_path / "chain.sqlite3")
    yield chain
    chain.bank.stop()


def test_panic_of_the_machine_fails_one_request_and_loses_nothing(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = Keypair().pubkey()
    chain.send(signed([pay(chain.payer, target, SOL)], chain.blockhash, chain.payer))
    run = Svm.run
    panics = iter([True])

    def panic_once(self: Svm, tx: VersionedTransaction, *, verify: bool):
        if next(panics, False):
            raise SvmCrash("panicked")
        return run(self, tx, verify=verify)

    monkeypatch.setattr(Svm, "run", panic_once)
    bad = signed([pay(chain.payer, target, SOL + 1)], chain.blockhash, chain.payer)
    with pytest.raises(SvmCrash):
        chain.send(bad)
    assert isinstance(chain.send(bad), Executed)
    assert chain.lamports(target) == 2 * SOL + 1
    assert chain.lamports(chain.payer.pubkey()) == 8 * SOL - 1 - 2 * 5000


def test_account_named_twice_is_refused(chain: Chain) -> None:
    target = Keypair().pubkey()
    keys = [chain.payer.pubkey(), target, target, SYSTEM]
    data = bytes(pay(chain.payer, target, SOL).data)
    message = Message.new_with_compiled_instructions(
        1, 0, 1, keys, chain.blockhash, [CompiledInstruction(3, data, bytes([0, 1]))]
    )
    tx = VersionedTransaction.populate(message, [chain.payer.sign_message(bytes(message))])
    result = chain.send(tx)
    assert isinstance(result, Rejected)
    assert result.err == "AccountLoadedTwice"
    assert chain.lamports(target) == 0


def test_many_equal_airdrops_in_one_slot_all_arrive(chain: Chain) -> None:
    target = Keypair().pubkey()
    futures = [chain.bank.airdrop(bytes(target), SOL) for _ in range(200)]
    assert all(isinstance(future.result(60), Executed) for future in futures)
    assert chain.lamports(target) == 200 * SOL


def test_durable_nonce_outlives_its_blockhash_and_is_used_up_by_a_failure(chain: Chain) -> None:
    payer, nonce, target = chain.payer, Keypair(), Keypair().pubkey()
    params = CreateAccountParams(
        from_pubkey=payer.pubkey(), to_pubkey=nonce.pubkey(), lamports=SOL, space=80, owner=SYSTEM
    )
    init = InitializeNonceAccountParams(nonce_pubkey=nonce.pubkey(), authority=payer.pubkey())
    made = chain.send(
        signed([create_account(params), initialize_nonce_account(init)], chain.blockhash, payer, nonce)
    )
    assert isinstance(made, Executed)
    assert made.err is None

    def value() -> Hash:
        return Hash.from_bytes(chain.accounts[bytes(nonce.pubkey())].data[40:72])

    advance = advance_nonce_account(
        AdvanceNonceAccountParams(nonce_pubkey=nonce.pubkey(), authorized_pubkey=payer.pubkey())
    )
    used = value()
    done = chain.send(signed([advance, pay(payer, target, SOL)], used, payer))
    assert isinstance(done, Executed)
    assert done.err is None
    assert value() != used
    again = chain.send(signed([advance, pay(payer, target, SOL + 1)], used, payer))
    assert isinstance(again, Rejected)
    assert again.err == "BlockhashNotFound"
    before = value()
    failed = chain.send(signed([advance, pay(payer, target, 100 * SOL)], before, payer))
    assert isinstance(failed, Executed)
    assert failed.err == {"InstructionError": [1, {"Custom": 1}]}
    assert value() != before
    assert chain.lamports(target) == SOL


def test_program_that_does_not_exist_costs_the_fee_as_on_a_validator(chain: Chain) -> None:
    call = Instruction(Keypair().pubkey(), b"", [AccountMeta(chain.payer.pubkey(), True, True)])
    tx = signed([call], chain.blockhash, chain.payer)
    rejected = chain.bank.submit(tx, bytes(tx), preflight=True).result(30)
    assert isinstance(rejected, Rejected)
    assert rejected.err == "ProgramAccountNotFound"
    assert chain.lamports(chain.payer.pubkey()) == 10 * SOL
    result = chain.send(tx)
    assert isinstance(result, Executed)
    assert result.err == "ProgramAccountNotFound"
    assert chain.lamports(chain.payer.pubkey()) == 10 * SOL - 5000


def test_block_is_shown_when_all_of_it_is_published(tmp_path: Path) -> None:
    """Between a commit and its publication the database knows more than the view does."""
    path = tmp_path / "chain.sqlite3"
    bank = Bank(path, slot_ms=60_000)
    first = bank.start(lambda published: None)
    store, history = Store(path), History(path)
    try:
        view = View(first)
        node = Node(bank, view, history, 0.0)
        following = [SlotRow(1, b"\1" * 32, 1)]
        meta = {"fee": 5000, "computeUnitsConsumed": 150}
        late = Executed(b"\2" * 64, 0, 0, b"", None, meta, (), {})
        last_id = store.commit(following, [late])
        ask = Params([0, {"transactionDetails": "signatures"}])
        with pytest.raises(RpcError, match="not available"):
            get_block(node, ask)
        view.apply(Published(following, [late], {}, last_id))
        assert get_block(node, ask)["signatures"] == [str(Signature.from_bytes(late.signature))]
    finally:
        bank.stop()
        store.close()
        history.close()
