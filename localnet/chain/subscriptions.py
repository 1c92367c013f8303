"""The websocket's subscriptions: who is told what, and when.

Notices for `processed` and `confirmed` go out with the commit; those for `finalized`, Solana's default, when
the slot is 32 slots old. A subscriber that does not read is cut off when its queue is full.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from solders.signature import Signature

from localnet.chain.bank import Published
from localnet.chain.errors import RpcError, invalid_params
from localnet.chain.records import FINALITY_SLOTS, GONE, AccountRecord, Executed, Json
from localnet.chain.rpc import encode
from localnet.chain.rpc.dispatch import dump
from localnet.chain.rpc.params import Params, address, signature, unknown_variant, wrong_type
from localnet.chain.rpc.registry import Node
from localnet.chain.txmeta import text

MAX_QUEUED = 4_096
MAX_QUEUED_BYTES = 16 << 20
"""What may wait for a client that reads slowly; one message of any size always may."""
MAX_SUBSCRIPTIONS = 1_000
_TOO_MANY = -32005
_BAD_KEY = "Invalid Request: Invalid pubkey provided"
_LOGS = ("all", "allWithVotes", "mentions")
_PARAMETERS = {
    "account": (1, 1),
    "program": (1, 1),
    "logs": (1, 1),
    "signature": (1, 1),
    "slot": (0, 0),
    "root": (0, 0),
    "slotsUpdates": (0, 0),
}
"""How many parameters each kind must and may have."""


class Client:
    """One websocket connection's outgoing messages, bounded in number and size; None ends it.

    A client that does not read is cut off: what waits for it is dropped, and its connection is closed.
    """

    def __init__(self) -> None:
        self.subscriptions: dict[int, Subscription] = {}
        self.cut_off = asyncio.Event()
        self._queue: asyncio.Queue[str] = asyncio.Queue()
        self._num_bytes = 0

    def send(self, message: Json) -> None:
        """Queue a message; where that is too much, cut the client off."""
        if self.cut_off.is_set():
            return
        shown = dump(message)
        self._num_bytes += len(shown)
        if self._queue.qsize() >= MAX_QUEUED or (self._num_bytes > MAX_QUEUED_BYTES and self._queue.qsize()):
            self.cut_off.set()
            self._queue = asyncio.Queue()
            return
        self._queue.put_nowait(shown)

    async def next(self) -> str:
        """The next message to send."""
        shown = await self._queue.get()
        self._num_bytes -= len(shown)
        return shown


@dataclass(slots=True, eq=False)
class Subscription:
    id: int
    kind: str
    client: Client
    finalized: bool
    on_transactions: Callable[[Subscription, list[Executed], int], None] | None = None
    watches: Callable[[bytes, AccountRecord], bool] | None = None
    """Which changed accounts it is told of; None: none."""
    seen: dict[bytes, None] = field(default_factory=dict)

    def notify(self, slot: int | None, value: Json) -> None:
        result = value if slot is None else {"context": {"slot": slot}, "value": value}
        self.client.send(
            {
                "jsonrpc": "2.0",
                "method": f"{self.kind}Notification",
                "params": {"result": result, "subscription": self.id},
            }
        )


class Hub:
    """All subscriptions of a server. Event loop only."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._next_id = 0
        self._all: dict[int, Subscription] = {}
        # What was confirmed before a restart becomes final after it, and is told then. Whoever reconnects asks
        # for accounts anew, so those are not.
        newest_final = node.view.slot - FINALITY_SLOTS
        self._unfinalized: deque[Executed] = deque(node.history.since(newest_final + 1, node.view.last_id))
        self._in_slot = [0, 0]
        """Transactions of the current slot: those that succeeded and those that failed."""
        node.view.listen(self._published)

    def subscribe(self, client: Client, kind: str, params: Params) -> int:
        """Start a subscription.

        Raises:
            RpcError: unknown kind, bad parameters, too many.
        """
        if len(client.subscriptions) >= MAX_SUBSCRIPTIONS:
            raise RpcError(_TOO_MANY, f"Too many subscriptions; max {MAX_SUBSCRIPTIONS} a connection")
        params.check_count(*_PARAMETERS[kind])
        make = getattr(self, f"_subscribe_{kind.lower()}")
        self._next_id += 1
        subscription = Subscription(self._next_id, kind, client, True)
        make(subscription, params)
        self._all[subscription.id] = subscription
        client.subscriptions[subscription.id] = subscription
        return subscription.id

    def unsubscribe(self, client: Client, subscription_id: int) -> bool:
        """End a subscription of whatever kind, as a validator does; raises RpcError where there is none."""
        found = client.subscriptions.get(subscription_id)
        if found is None:
            raise invalid_params("Invalid subscription id.")
        self._drop(found)
        return True

    def leave(self, client: Client) -> None:
        """End all subscriptions of a connection."""
        for subscription in list(client.subscriptions.values()):
            self._drop(subscription)

    def _drop(self, subscription: Subscription) -> None:
        self._all.pop(subscription.id, None)
        subscription.client.subscriptions.pop(subscription.id, None)

    # Kinds.

    def _subscribe_account(self, subscription: Subscription, params: Params) -> None:
        key = address(params.string(0), _BAD_KEY)
        config = params.config(1, "RpcAccountInfoConfig")
        encoding = encode.Encoding.from_config(config)
        subscription.finalized = config.finalized
        view = self._node.view

        def on_transactions(this: Subscription, transactions: list[Executed], slot: int) -> None:
            changes = [tx.changes[key] for tx in transactions if key in tx.changes]
            if changes:
                this.notify(slot, encode.account(view, key, changes[-1], encoding))

        subscription.on_transactions = on_transactions
        subscription.watches = lambda address, record: address == key

    def _subscribe_program(self, subscription: Subscription, params: Params) -> None:
        program = address(params.string(0), _BAD_KEY)
        config = params.config(1, "RpcProgramAccountsConfig")
        encoding = encode.Encoding.from_config(config)
        given = config.get("filters", list, [])
        if len(given) > encode.MAX_FILTERS:
            raise invalid_params(f"Invalid params: Too many filters provided; max {encode.MAX_FILTERS}")
        tests = encode.filters(given)
        subscription.finalized = config.finalized
        view = self._node.view
        subscription.seen = dict.fromkeys(view.owned_by(program))

        def on_transactions(this: Subscription, transactions: list[Executed], slot: int) -> None:
            changes = {key: record for tx in transactions for key, record in tx.changes.items()}
            for key, record in changes.items():
                if record.owner == program and record is not GONE:
                    this.seen[key] = None
                else:
                    this.seen.pop(key, None)
                    continue
                if all(test(record.data) for test in tests):
                    shown = encode.account(view, key, record, encoding)
                    this.notify(slot, {"pubkey": text(key), "account": shown})

        subscription.on_transactions = on_transactions
        subscription.watches = lambda address, record: record.owner == program or address in subscription.seen

    def _subscribe_logs(self, subscription: Subscription, params: Params) -> None:
        which = params.peek(0)
        mentioned: bytes | None = None
        if isinstance(which, dict):
            mentioned = _mentioned(which)
        elif not isinstance(which, str):
            raise wrong_type(which, "string or map")
        elif which not in ("all", "allWithVotes"):
            raise unknown_variant(which, *_LOGS)
        subscription.finalized = params.config(1, "RpcTransactionLogsConfig").finalized

        def on_transactions(this: Subscription, transactions: list[Executed], slot: int) -> None:
            for tx in transactions:
                if mentioned is None or mentioned in tx.keys:
                    name = str(Signature.from_bytes(tx.signature))
                    logs = tx.meta["logMessages"]
                    this.notify(tx.slot, {"signature": name, "err": tx.err, "logs": logs})

        subscription.on_transactions = on_transactions

    def _subscribe_signature(self, subscription: Subscription, params: Params) -> None:
        wanted = signature(params.string(0), "Invalid Request: Invalid signature provided")
        config = params.config(1, "RpcSignatureSubscribeConfig")
        subscription.finalized = config.finalized
        received = config.get("enableReceivedNotification", bool, False)

        def on_transactions(this: Subscription, transactions: list[Executed], slot: int) -> None:
            for tx in transactions:
                if tx.signature == wanted:
                    if received and not this.finalized:
                        this.notify(slot, "receivedSignature")
                    this.notify(slot, {"err": tx.err})
                    self._drop(this)
                    return

        subscription.on_transactions = on_transactions
        status = self._node.history.status(wanted, self._node.view.last_id)
        if status is not None and (
            not config.finalized or status[0] <= self._node.view.slot - FINALITY_SLOTS
        ):
            # Already there: told right after the subscription's id.
            asyncio.get_running_loop().call_soon(self._tell_late, subscription, status[1])

    def _tell_late(self, subscription: Subscription, err: Json) -> None:
        if subscription.id in self._all:
            subscription.notify(self._node.view.slot, {"err": err})
            self._drop(subscription)

    def _subscribe_slot(self, subscription: Subscription, params: Params) -> None:
        subscription.on_transactions = None

    def _subscribe_root(self, subscription: Subscription, params: Params) -> None:
        subscription.on_transactions = None

    def _subscribe_slotsupdates(self, subscription: Subscription, params: Params) -> None:
        subscription.on_transactions = None

    # Delivery.

    def _published(self, published: Published) -> None:
        slot = self._node.view.slot
        if published.transactions:
            self._unfinalized.extend(self._slim(tx) for tx in published.transactions)
            # The slot they are in: the next one may have begun with the same commit.
            self._deliver(published.transactions, published.transactions[-1].slot, finalized=False)
            for tx in published.transactions:
                self._in_slot[tx.err is not None] += 1
        for row in published.slots:
            self._deliver_slot(row.slot)
        final: list[Executed] = []
        while self._unfinalized and self._unfinalized[0].slot <= slot - FINALITY_SLOTS:
            final.append(self._unfinalized.popleft())
        if final:
            self._deliver(final, slot, finalized=True)

    def _slim(self, tx: Executed) -> Executed:
        """A transaction without the accounts that nobody waits for: they can be large, and stay 32 slots."""
        waiting = [s for s in self._all.values() if s.finalized and s.watches is not None]
        kept = {
            key: record
            for key, record in tx.changes.items()
            if any(s.watches is not None and s.watches(key, record) for s in waiting)
        }
        return replace(tx, changes=kept, raw=b"")

    def _deliver(self, transactions: list[Executed], slot: int, *, finalized: bool) -> None:
        for subscription in list(self._all.values()):
            if subscription.client.cut_off.is_set():
                continue  # its connection is being closed
            if subscription.on_transactions is not None and subscription.finalized == finalized:
                subscription.on_transactions(subscription, transactions, slot)

    def _deliver_slot(self, slot: int) -> None:
        root = max(0, slot - FINALITY_SLOTS)
        for subscription in list(self._all.values()):
            if subscription.kind == "slot":
                subscription.notify(None, {"parent": slot - 1, "root": root, "slot": slot})
            elif subscription.kind == "root" and slot >= FINALITY_SLOTS:
                subscription.notify(None, root)
            elif subscription.kind == "slotsUpdates":
                for update in _slot_updates(slot, root, *self._in_slot):
                    subscription.notify(None, update)
        self._in_slot = [0, 0]


def _mentioned(which: dict[str, Json]) -> bytes:
    """The one address whose logs are wanted."""
    if len(which) != 1:
        raise invalid_params("Invalid params: invalid value: map, expected map with a single key.")
    (kind,) = which
    if kind != "mentions":
        raise unknown_variant(kind, *_LOGS)
    keys = which[kind]
    if not isinstance(keys, list):
        raise wrong_type(keys, "a sequence")
    if len(keys) != 1:
        raise invalid_params("Invalid Request: Only 1 address supported")
    return address(str(keys[0]), "Invalid Request: Invalid mentions provided")


def _slot_updates(slot: int, root: int, succeeded: int, failed: int) -> list[Json]:
    """What slotsUpdates tells when a slot begins: the one before is complete, and confirmed as it is."""
    now = int(time.time() * 1000)
    stats = {
        "maxTransactionsPerEntry": succeeded + failed,
        "numFailedTransactions": failed,
        "numSuccessfulTransactions": succeeded,
        "numTransactionEntries": int(succeeded + failed > 0),
    }
    last = {"slot": slot - 1, "timestamp": now}
    return [
        {"type": "frozen", **last, "stats": stats},
        {"type": "root", "slot": root, "timestamp": now},
        {"type": "completed", **last},
        {"type": "createdBank", "parent": slot - 1, "slot": slot, "timestamp": now},
        {"type": "optimisticConfirmation", **last},
    ]


KINDS = tuple(_PARAMETERS)
