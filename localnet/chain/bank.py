"""The thread that owns the machine: it executes, advances slots and commits.

Everything that changes the chain goes through one bounded queue into this thread. Requests that wait
together are executed in order and committed together; their answers, and what they changed, are handed to
the server's event loop only after the commit.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from solders.compute_budget import set_compute_unit_limit
from solders.hash import Hash
from solders.keypair import Keypair
from solders.message import Message
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer
from solders.transaction import VersionedTransaction

from localnet.chain import txmeta
from localnet.chain.executor import Executor, Outcome
from localnet.chain.ids import NATIVE_MINT, TOKEN
from localnet.chain.records import (
    LAMPORTS_PER_SOL,
    MAX_PROCESSING_AGE,
    SLOTS_PER_EPOCH,
    AccountRecord,
    Executed,
    Rejected,
    Simulated,
    SlotRow,
)
from localnet.chain.store import Store
from localnet.chain.svm import SLOT_HASHES_ENTRIES, Svm, SvmCrash

logger = logging.getLogger(__name__)

GENESIS_LAMPORTS = 500_000_000 * LAMPORTS_PER_SOL
QUEUE_SIZE = 4096
BATCH_SIZE = 128
KEEP_SLOTS = 216_000
"""A day of slots at 400 ms."""
_PRUNE_EVERY_SLOTS = 200


class Busy(Exception):
    """The queue is full."""


class Stopped(Exception):
    """The chain ended before a request was committed; the text says why."""


@dataclass(slots=True)
class Published:
    """What one commit changed; the event loop applies it as a whole."""

    slots: list[SlotRow] = field(default_factory=list)
    transactions: list[Executed] = field(default_factory=list)
    accounts: dict[bytes, AccountRecord] = field(default_factory=dict)
    last_id: int = 0
    answers: list[tuple[Future[Any], Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Task:
    work: Callable[[Published], Any]
    future: Future[Any]


def _native_mint(svm: Svm) -> AccountRecord:
    """Wrapped lamports: nine decimals, initialized, nobody's."""
    data = bytes(44) + bytes((9, 1)) + bytes(36)
    return AccountRecord(svm.rent_minimum(len(data)), data, TOKEN)


class Bank:
    """The chain's state and its thread.

    Args:
        path: the database.
        slot_ms: how long a slot lasts.
        keep_transactions: how many transactions the history holds.
        keep_slots: how many slots the history holds.

    Resource handling: `start` runs the thread and `stop` ends it after committing what it holds.
    """

    def __init__(
        self,
        path: Path,
        *,
        slot_ms: int = 400,
        keep_transactions: int = 200_000,
        keep_slots: int = KEEP_SLOTS,
    ) -> None:
        self._path = path
        self._slot_s = slot_ms / 1000
        self._keep = keep_transactions, keep_slots
        self._queue: queue.Queue[_Task | None] = queue.Queue(QUEUE_SIZE)
        self._thread = threading.Thread(target=self._main, name="svm", daemon=True)
        self._publish: Callable[[Published], None] = lambda published: None
        self._ready: Future[Published] = Future()
        self._num_equal = 0
        self._batch = Published()
        self.failed: BaseException | None = None
        self.ended: Future[None] = Future()
        self.ended.set_running_or_notify_cancel()  # waiters may leave, the future stays
        """Resolved when the thread has ended."""

    def start(self, publish: Callable[[Published], None]) -> Published:
        """Open the state and start the thread.

        Args:
            publish: called in the bank's thread after each commit.

        Returns:
            The whole state: recent slots, all accounts.
        """
        self._publish = publish
        self._thread.start()
        return self._ready.result()

    def stop(self) -> None:
        """Commit what waits and end the thread."""
        self._queue.put(None)
        self._thread.join(timeout=30)

    @property
    def faucet(self) -> Pubkey:
        return self._faucet.pubkey()

    @property
    def genesis_hash(self) -> bytes:
        return self._genesis

    @property
    def identity(self) -> Pubkey:
        """The key that stands for the only validator."""
        return self._identity

    # Requests: each returns a future that resolves after the commit.

    def submit(self, tx: VersionedTransaction, raw: bytes, *, preflight: bool) -> Future[Executed | Rejected]:
        """Execute a transaction, whose signatures the caller has verified.

        With `preflight` one that would fail is rejected and costs nothing.

        Raises:
            Busy: too many requests wait.
        """
        return self._put(lambda batch: self._execute(tx, raw, preflight, batch))

    def simulate(self, tx: VersionedTransaction, *, verify: bool, replace: bool) -> Future[Simulated]:
        """Say what a transaction would do now; `replace` takes the newest blockhash for its own.

        `verify`: it could be sent as it is, so one that was sent already is told so.
        """
        return self._put(lambda batch: self._simulate(tx, verify, replace))

    def airdrop(self, address: bytes, lamports: int) -> Future[Executed | Rejected]:
        """Transfer from the faucet."""
        return self._put(lambda batch: self._airdrop(address, lamports, batch))

    def _put(self, work: Callable[[Published], Any]) -> Future[Any]:
        if self.failed is not None:
            raise Busy
        task = _Task(work, Future())
        try:
            self._queue.put_nowait(task)
        except queue.Full:
            raise Busy from None
        return task.future

    # The thread.

    def _main(self) -> None:
        try:
            first = self._open()
        except BaseException as exc:
            self._ready.set_exception(exc)
            return
        self._ready.set_result(first)
        try:
            self._loop()
        except BaseException as exc:
            self.failed = exc
            logger.exception("the SVM thread ended")
            self._fail_waiting(exc)
        finally:
            self._store.close()
            self.ended.set_result(None)

    def _fail_waiting(self, error: BaseException) -> None:
        """Tell everybody who waits that nothing was kept: a commit that failed has no answers but this."""
        waiting = [future for future, _ in self._batch.answers]
        with contextlib.suppress(queue.Empty):
            while True:
                task = self._queue.get_nowait()
                if task is not None:
                    waiting.append(task.future)
        for future in waiting:
            if future.set_running_or_notify_cancel():
                future.set_exception(Stopped(str(error)))

    def _open(self) -> Published:
        self._store = Store(self._path)
        slots = self._store.newest_slots(SLOT_HASHES_ENTRIES + 1)
        accounts: dict[bytes, AccountRecord] = {}
        seed = self._store.get_meta("faucet")
        if seed is None or not slots:
            seed = os.urandom(32)
            self._store.set_meta("faucet", seed)
            faucet = Keypair.from_seed(seed)
            accounts[bytes(faucet.pubkey())] = AccountRecord(GENESIS_LAMPORTS, b"", bytes(32))
            genesis = SlotRow(0, hashlib.sha256(b"genesis" + seed).digest(), int(time.time()))
            self._store.commit([genesis], [], accounts)
            slots = [genesis]
        self._faucet = Keypair.from_seed(seed)
        self._genesis = hashlib.sha256(b"genesis" + seed).digest()
        self._identity = Keypair.from_seed(hashlib.sha256(b"identity" + seed).digest()).pubkey()
        self._recent = deque(slots, maxlen=SLOT_HASHES_ENTRIES + 1)
        """Newest first."""
        self._index_blockhashes()
        self._signatures = self._store.signatures_since(max(0, self._slot - MAX_PROCESSING_AGE - 1))
        return self._load(slots)

    def _load(self, slots: list[SlotRow]) -> Published:
        """Build the machine from stored accounts."""
        svm = Svm()
        self._svm = svm
        self._executor = Executor(svm, lambda value: value in self._blockhashes, lambda: self._slot)
        svm.fill_history(self._slot)
        self._set_sysvars()
        accounts = dict(self._store.accounts())
        if NATIVE_MINT not in accounts:
            accounts[NATIVE_MINT] = _native_mint(svm)
            self._store.commit([], [], {NATIVE_MINT: accounts[NATIVE_MINT]})
        svm.put_all(accounts)
        return Published(
            list(slots), [], {**accounts, **svm.builtin_accounts()}, self._store.last_transaction_id()
        )

    @property
    def _slot(self) -> int:
        return self._recent[0].slot

    def _index_blockhashes(self) -> None:
        rows = [self._recent[i] for i in range(min(len(self._recent), MAX_PROCESSING_AGE + 1))]
        self._blockhashes = {
            row.blockhash: row.slot for row in rows if self._slot - row.slot <= MAX_PROCESSING_AGE
        }

    def _set_sysvars(self) -> None:
        newest = self._recent[0]
        hashes = [(row.slot, row.blockhash) for row in self._recent][1:]
        self._svm.set_slot(newest, hashes, self._epoch_start(newest))

    def _epoch_start(self, row: SlotRow) -> int:
        stored = self._store.get_meta("epoch_start")
        epoch = row.slot // SLOTS_PER_EPOCH
        if stored is not None and int(stored.split()[0]) == epoch:
            return int(stored.split()[1])
        self._store.set_meta("epoch_start", f"{epoch} {row.time}".encode())
        return row.time

    def _loop(self) -> None:
        due = time.monotonic() + self._slot_s
        while True:
            batch = Published()
            self._batch = batch
            self._uncommitted = batch.transactions
            stop = self._work(batch, due)
            now = time.monotonic()
            if now >= due:
                self._advance(batch)
                # After a stall the schedule starts anew: slots are late, never in a burst.
                due = due + self._slot_s if now < due + 4 * self._slot_s else now + self._slot_s
            self._commit(batch)
            if stop:
                return

    def _work(self, batch: Published, due: float) -> bool:
        """Take requests until none waits, the batch is full or the slot ends. True when told to stop."""
        timeout: float | None = max(0.0, due - time.monotonic())
        for _ in range(BATCH_SIZE):
            try:
                task = self._queue.get(timeout=timeout) if timeout else self._queue.get_nowait()
            except queue.Empty:
                return False
            if task is None:
                return True
            try:
                batch.answers.append((task.future, task.work(batch)))
            except Exception as exc:
                logger.exception("a request failed")
                batch.answers.append((task.future, exc))
            timeout = None
        return False

    def _advance(self, batch: Published) -> None:
        """Begin the next slot."""
        row = SlotRow(self._slot + 1, os.urandom(32), int(time.time()))
        self._recent.appendleft(row)
        self._index_blockhashes()
        self._set_sysvars()
        batch.slots.append(row)
        batch.accounts.update(self._svm.builtin_accounts())
        if row.slot % _PRUNE_EVERY_SLOTS == 0:
            self._store.prune(*self._keep)
            self._signatures = self._store.signatures_since(max(0, row.slot - MAX_PROCESSING_AGE - 1))
            self._signatures.update(tx.signature for tx in batch.transactions)

    def _commit(self, batch: Published) -> None:
        if batch.slots or batch.transactions:
            batch.last_id = self._store.commit(batch.slots, batch.transactions)
            for tx in batch.transactions:
                batch.accounts.update(tx.changes)
        if batch.slots or batch.transactions or batch.answers:
            self._publish(batch)

    def _run(self, tx: VersionedTransaction, **options: bool) -> Outcome:
        try:
            return self._executor.run(tx, **options)
        except SvmCrash:
            logger.exception("LiteSVM panicked on %s; it is rebuilt", tx.signatures[0])
            self._rebuild()
            raise

    def _rebuild(self) -> None:
        """Make a new machine with the same accounts, those not yet committed included."""
        self._load([])
        for tx in self._uncommitted:
            self._svm.put_all(tx.changes)

    def _execute(
        self, tx: VersionedTransaction, raw: bytes, preflight: bool, batch: Published
    ) -> Executed | Rejected:
        signature = bytes(tx.signatures[0])
        if signature in self._signatures:
            return Rejected("AlreadyProcessed")
        out = self._run(tx, verify=False)
        if not out.included or (preflight and out.err is not None):
            return Rejected(
                out.err, out.logs, out.units, out.return_data, loaded_bytes=out.loaded_bytes, fee=out.fee
            )
        meta = txmeta.build(out, self._svm.get)
        row = self._recent[0]
        done = Executed(signature, row.slot, row.time, raw, out.err, meta, tuple(out.keys), out.changes)
        self._svm.put_all(done.changes)
        self._signatures.add(signature)
        batch.transactions.append(done)
        return done

    def _simulate(self, tx: VersionedTransaction, verify: bool, replace: bool) -> Simulated:
        if verify and bytes(tx.signatures[0]) in self._signatures:
            return Simulated(self._slot, "AlreadyProcessed")
        out = self._run(tx, verify=False, any_blockhash=replace)
        newest = self._recent[0]
        return Simulated(
            self._slot,
            out.err,
            out.logs,
            out.units,
            out.return_data,
            txmeta.inner(out.inner),
            out.after,
            out.fee,
            out.loaded_bytes,
            txmeta.loaded_addresses(out),
            txmeta.balances(out, self._svm.get, stored=False),
            (txmeta.text(newest.blockhash), newest.slot + MAX_PROCESSING_AGE) if replace else None,
        )

    def _airdrop(self, address: bytes, lamports: int, batch: Published) -> Executed | Rejected:
        params = TransferParams(
            from_pubkey=self._faucet.pubkey(), to_pubkey=Pubkey.from_bytes(address), lamports=lamports
        )
        blockhash = Hash.from_bytes(self._recent[0].blockhash)
        instructions = [transfer(params)]
        while True:
            message = Message.new_with_blockhash(instructions, self._faucet.pubkey(), blockhash)
            tx = VersionedTransaction(message, [self._faucet])
            if bytes(tx.signatures[0]) not in self._signatures:
                return self._execute(tx, bytes(tx), True, batch)
            # An equal airdrop in the same slot must differ in something to be another one.
            self._num_equal += 1
            instructions = [set_compute_unit_limit(1_000 + self._num_equal % 1_000_000), transfer(params)]
