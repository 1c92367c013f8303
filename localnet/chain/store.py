"""The chain on disk: one SQLite database, written by the SVM thread, read by the RPC handlers.

Durability: write-ahead log with `synchronous=FULL`, so a commit is on the disk when it returns. That keeps
what was confirmed even when the machine loses power; a killed process would be safe with NORMAL as well. The
price is one fsync a commit (3-7 ms measured), which all transactions that wait together share.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from localnet.chain.records import AccountRecord, Executed, Json, SlotRow

SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS accounts(
    address BLOB PRIMARY KEY, lamports INTEGER NOT NULL, owner BLOB NOT NULL,
    executable INTEGER NOT NULL, rent_epoch INTEGER NOT NULL, data BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS slots(slot INTEGER PRIMARY KEY, blockhash BLOB NOT NULL, time INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS transactions(
    id INTEGER PRIMARY KEY AUTOINCREMENT, signature BLOB NOT NULL UNIQUE, slot INTEGER NOT NULL,
    err TEXT, raw BLOB NOT NULL, meta TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS transactions_by_slot ON transactions(slot);
CREATE TABLE IF NOT EXISTS mentions(
    address BLOB NOT NULL, id INTEGER NOT NULL, PRIMARY KEY(address, id)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS mentions_by_id ON mentions(id);
"""
_SIGN = 1 << 63


class StoreError(Exception):
    """The state directory cannot be used; the text says why and what to do."""


def _error(stored: str | None) -> Json:
    return None if stored is None else json.loads(stored)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= _SIGN else value


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("PRAGMA busy_timeout=10000")
    db.execute("PRAGMA journal_size_limit=67108864")
    db.execute("PRAGMA wal_autocheckpoint=4000")  # 16 MiB: a checkpoint costs two more fsyncs
    return db


class Store:
    """The writer. One thread only.

    Args:
        path: the database file; made if it is not there.

    Raises:
        StoreError: the file is not a chain of this version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._db = _connect(path)
            self._db.executescript(_SCHEMA)
            version = self.get_meta("version")
        except sqlite3.DatabaseError as exc:
            raise StoreError(
                f"{path} cannot be read as a chain ({exc}): start with --reset for a new one"
            ) from exc
        if version is None:
            self.set_meta("version", str(SCHEMA_VERSION).encode())
        elif version != str(SCHEMA_VERSION).encode():
            raise StoreError(
                f"{path} was written by version {version.decode()} of the chain, this is version "
                f"{SCHEMA_VERSION}: start with --reset for a new one"
            )

    def close(self) -> None:
        self._db.close()

    def get_meta(self, key: str) -> bytes | None:
        row = self._db.execute("SELECT value FROM meta WHERE key=?", (key,)).fetchone()
        return None if row is None else bytes(row[0])

    def set_meta(self, key: str, value: bytes) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES(?,?)", (key, value))

    def accounts(self) -> Iterator[tuple[bytes, AccountRecord]]:
        """All stored accounts."""
        rows = self._db.execute("SELECT address, lamports, data, owner, executable, rent_epoch FROM accounts")
        for address, lamports, data, owner, executable, rent_epoch in rows:
            yield (
                address,
                AccountRecord(lamports, data, owner, bool(executable), rent_epoch % (1 << 64)),
            )

    def newest_slots(self, count: int) -> list[SlotRow]:
        """The newest slots, newest first."""
        rows = self._db.execute(
            "SELECT slot, blockhash, time FROM slots ORDER BY slot DESC LIMIT ?", (count,)
        )
        return [SlotRow(*row) for row in rows]

    def signatures_since(self, slot: int) -> set[bytes]:
        """Signatures of all transactions of a slot and later ones."""
        return {
            row[0] for row in self._db.execute("SELECT signature FROM transactions WHERE slot>=?", (slot,))
        }

    def last_transaction_id(self) -> int:
        row = self._db.execute("SELECT max(id) FROM transactions").fetchone()
        return int(row[0] or 0)

    def commit(
        self,
        slots: Iterable[SlotRow],
        transactions: Sequence[Executed],
        accounts: dict[bytes, AccountRecord] | None = None,
    ) -> int:
        """Write slots and transactions with all that they changed, in one database transaction.

        Returns:
            The id of the newest transaction.
        """
        changes = dict(accounts or {})
        for tx in transactions:
            changes.update(tx.changes)
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        try:
            db.executemany("INSERT OR REPLACE INTO slots VALUES(?,?,?)", slots)
            for tx in transactions:
                self._insert(tx)
            db.executemany(
                "DELETE FROM accounts WHERE address=?", [(a,) for a, r in changes.items() if not r.lamports]
            )
            db.executemany(
                "INSERT OR REPLACE INTO accounts VALUES(?,?,?,?,?,?)",
                [
                    (a, r.lamports, r.owner, int(r.executable), _signed(r.rent_epoch), r.data)
                    for a, r in changes.items()
                    if r.lamports
                ],
            )
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:  # a full disk has undone it already
                db.execute("ROLLBACK")
            raise
        return self.last_transaction_id()

    def _insert(self, tx: Executed) -> None:
        err = None if tx.err is None else json.dumps(tx.err)
        cursor = self._db.execute(
            "INSERT INTO transactions(signature, slot, err, raw, meta) VALUES(?,?,?,?,?)",
            (tx.signature, tx.slot, err, tx.raw, json.dumps(tx.meta, separators=(",", ":"))),
        )
        self._db.executemany(
            "INSERT OR IGNORE INTO mentions VALUES(?,?)", [(key, cursor.lastrowid) for key in tx.keys]
        )

    def prune(self, keep_transactions: int, keep_slots: int) -> None:
        """Drop the oldest history beyond what is kept; accounts are untouched."""
        db = self._db
        last = self.last_transaction_id()
        first_kept = last - keep_transactions
        db.execute("BEGIN IMMEDIATE")
        try:
            if first_kept > 0:
                db.execute("DELETE FROM mentions WHERE id<=?", (first_kept,))
                db.execute("DELETE FROM transactions WHERE id<=?", (first_kept,))
            db.execute("DELETE FROM slots WHERE slot < (SELECT max(slot) FROM slots) - ?", (keep_slots,))
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:  # a full disk has undone it already
                db.execute("ROLLBACK")
            raise


class History:
    """Reads what was committed, from another thread than the writer's; each query is short."""

    def __init__(self, path: Path) -> None:
        self._db = _connect(path)
        self._db.execute("PRAGMA query_only=1")

    def close(self) -> None:
        self._db.close()

    def status(self, signature: bytes, last_id: int) -> tuple[int, Json] | None:
        """(slot, error) of a transaction."""
        row = self._db.execute(
            "SELECT slot, err FROM transactions WHERE signature=? AND id<=?", (signature, last_id)
        ).fetchone()
        return None if row is None else (row[0], _error(row[1]))

    def transaction(self, signature: bytes, last_id: int) -> tuple[int, bytes, dict[str, Json]] | None:
        """(slot, raw transaction, meta)."""
        row = self._db.execute(
            "SELECT slot, raw, meta FROM transactions WHERE signature=? AND id<=?", (signature, last_id)
        ).fetchone()
        return None if row is None else (row[0], row[1], json.loads(row[2]))

    def block(self, slot: int, last_id: int) -> list[tuple[bytes, bytes, dict[str, Json]]]:
        """(signature, raw transaction, meta) of a slot's transactions in order."""
        rows = self._db.execute(
            "SELECT signature, raw, meta FROM transactions WHERE slot=? AND id<=? ORDER BY id",
            (slot, last_id),
        )
        return [(signature, raw, json.loads(meta)) for signature, raw, meta in rows]

    def since(self, slot: int, last_id: int) -> list[Executed]:
        """The transactions of a slot and later ones, in order, without the accounts that they changed."""
        rows = self._db.execute(
            "SELECT t.id, t.signature, t.slot, s.time, t.err, t.meta FROM transactions t "
            "JOIN slots s ON s.slot=t.slot WHERE t.slot>=? AND t.id<=? ORDER BY t.id",
            (slot, last_id),
        )
        return [
            Executed(signature, at, when, b"", _error(err), json.loads(meta), self._keys_of(number), {})
            for number, signature, at, when, err, meta in rows
        ]

    def _keys_of(self, number: int) -> tuple[bytes, ...]:
        rows = self._db.execute("SELECT address FROM mentions WHERE id=?", (number,))
        return tuple(row[0] for row in rows)

    def slot(self, slot: int) -> SlotRow | None:
        row = self._db.execute("SELECT slot, blockhash, time FROM slots WHERE slot=?", (slot,)).fetchone()
        return None if row is None else SlotRow(*row)

    def slots(self, first: int, last: int, limit: int) -> list[int]:
        rows = self._db.execute(
            "SELECT slot FROM slots WHERE slot BETWEEN ? AND ? ORDER BY slot LIMIT ?", (first, last, limit)
        )
        return [row[0] for row in rows]

    def oldest_slot(self) -> int:
        row = self._db.execute("SELECT min(slot) FROM slots").fetchone()
        return int(row[0] or 0)

    def signatures_for(
        self, address: bytes, last_id: int, limit: int, before: bytes | None, until: bytes | None
    ) -> list[tuple[bytes, int, Json, str | None]]:
        """(signature, slot, error, memo) of transactions that name an address, newest first."""
        newest = last_id
        oldest = 0
        if before is not None:
            newest = self._id_of(before, default=0) - 1
        if until is not None:
            oldest = self._id_of(until, default=0)
        rows = self._db.execute(
            "SELECT t.signature, t.slot, t.err, t.meta FROM mentions m JOIN transactions t ON t.id=m.id "
            "WHERE m.address=? AND m.id<=? AND m.id>? ORDER BY m.id DESC LIMIT ?",
            (address, newest, oldest, limit),
        )
        return [
            (signature, slot, _error(err), json.loads(meta).get("memo"))
            for signature, slot, err, meta in rows
        ]

    def _id_of(self, signature: bytes, default: int) -> int:
        row = self._db.execute("SELECT id FROM transactions WHERE signature=?", (signature,)).fetchone()
        return default if row is None else int(row[0])

    def transactions_in(self, first_slot: int, last_slot: int) -> int:
        row = self._db.execute(
            "SELECT count(*) FROM transactions WHERE slot BETWEEN ? AND ?", (first_slot, last_slot)
        ).fetchone()
        return int(row[0])
