"""The committed state as the event loop sees it: one thread, no locks.

The bank publishes each commit as a whole, so a reader never sees half a transaction, and an answer never
runs ahead of the accounts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from localnet.chain.bank import Published
from localnet.chain.records import (
    FINALITY_SLOTS,
    GONE,
    MAX_PROCESSING_AGE,
    AccountRecord,
    Executed,
    SlotRow,
)

Listener = Callable[[Published], None]


class View:
    """Slots, blockhashes and accounts after the newest commit."""

    def __init__(self, first: Published) -> None:
        self.accounts: dict[bytes, AccountRecord] = {}
        self._by_owner: dict[bytes, dict[bytes, None]] = {}
        self._slots: deque[SlotRow] = deque(maxlen=2 * MAX_PROCESSING_AGE + FINALITY_SLOTS)
        """Oldest first."""
        self._slot_of: dict[bytes, int] = {}
        self.last_id = first.last_id
        self.recent_fees: deque[tuple[int, int]] = deque(maxlen=MAX_PROCESSING_AGE)
        self.capitalization = 0
        self._listeners: list[Listener] = []
        self._write(first.accounts)
        for row in reversed(first.slots[: self._slots.maxlen]):
            self._add_slot(row)

    @property
    def slot(self) -> int:
        return self._slots[-1].slot

    @property
    def finalized(self) -> int:
        return max(0, self.slot - FINALITY_SLOTS)

    @property
    def newest(self) -> SlotRow:
        return self._slots[-1]

    def row(self, slot: int) -> SlotRow | None:
        """A recent slot."""
        index = slot - self._slots[0].slot
        return self._slots[index] if 0 <= index < len(self._slots) else None

    def blockhash_slot(self, blockhash: bytes) -> int | None:
        """The slot of a blockhash that may be named now, else None."""
        slot = self._slot_of.get(blockhash)
        return slot if slot is not None and self.slot - slot <= MAX_PROCESSING_AGE else None

    def get(self, address: bytes) -> AccountRecord:
        return self.accounts.get(address, GONE)

    def owned_by(self, program: bytes) -> Iterable[bytes]:
        """Addresses of a program's accounts."""
        return self._by_owner.get(program, {})

    def listen(self, listener: Listener) -> None:
        """Call a function with each commit, after it was applied."""
        self._listeners.append(listener)

    def apply(self, published: Published) -> None:
        """Take over one commit, tell the listeners, answer the requests."""
        self._write(published.accounts)
        for row in published.slots:
            self._add_slot(row)
        if published.transactions:
            self.last_id = published.last_id
            self._count(published.transactions)
        for listener in self._listeners:
            listener(published)
        for future, result in published.answers:
            if future.cancelled():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)

    def _add_slot(self, row: SlotRow) -> None:
        if len(self._slots) == self._slots.maxlen:
            self._slot_of.pop(self._slots[0].blockhash, None)
        self._slots.append(row)
        self._slot_of[row.blockhash] = row.slot

    def _write(self, accounts: dict[bytes, AccountRecord]) -> None:
        for address, record in accounts.items():
            old = self.accounts.get(address)
            if old is not None:
                self.capitalization -= old.lamports
                if old.owner != record.owner or not record.lamports:
                    owned = self._by_owner[old.owner]
                    owned.pop(address, None)
                    if not owned:
                        del self._by_owner[old.owner]
            self.capitalization += record.lamports
            if record.lamports:
                self.accounts[address] = record
                self._by_owner.setdefault(record.owner, {})[address] = None
            else:
                self.accounts.pop(address, None)

    def _count(self, transactions: list[Executed]) -> None:
        for tx in transactions:
            units = tx.meta["computeUnitsConsumed"] or 1
            base = 5000
            priority = max(0, tx.meta["fee"] - base) if tx.meta["fee"] else 0
            self.recent_fees.append((tx.slot, priority * 1_000_000 // units))
