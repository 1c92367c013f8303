"""Bring the weights to the head of the log, whatever they were before.

A member is never out of the run because its weights are behind or beside the log: the chain says which
history is right, records lead to it, blobs hold the updates, and a checkpoint is a place to start from.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import trio

from psyche_chain.chain.state import Checkpoint
from psyche_chain.client.events import EventLog
from psyche_chain.client.ledger import head, link, link_through
from psyche_chain.client.ports import Adapter, Network, NotYet
from psyche_chain.client.sharing import PEERS_SCHEME, Sharing, blob_id_of
from psyche_chain.client.view import GENESIS, ChainView, RoundStatus
from psyche_chain.client.weights import Weights
from psyche_train.blobs import BlobStoreError
from psyche_train.fold.digest import weights_hash
from psyche_train.network import NetworkError
from psyche_train.records import Accepted, RoundRecord

__all__ = ["PEERS_SCHEME", "CatchUp", "blob_id_of", "holders_of"]

LOG_DEADLINE_S = 10.0
LOG_OF_ONE_PEER_S = 60.0
"""How long the log of one peer is followed, however slowly it hands it over."""
LOGS_AT_ONCE = 16
MAX_LOG_PAGES = 1000
BLOB_DEADLINE_S = 15.0


class CatchUp:
    """Folds closed rounds, from the ring, the own log or peers, and starts from a checkpoint if it must."""

    def __init__(
        self,
        weights: Weights,
        network: Network,
        adapter: Adapter,
        state_dir: Path,
        events: EventLog,
        *,
        tier: int,
        elsewhere: str | None = None,
        confirm: Callable[[Checkpoint], Awaitable[None]] | None = None,
    ) -> None:
        self._elsewhere = elsewhere
        self._confirm = confirm
        self._weights = weights
        self._network = network
        self._adapter = adapter
        self._state_dir = state_dir
        self._events = events
        self._tier = tier
        self.sharing = Sharing(network, adapter, state_dir, events)
        self.compared: bytes = GENESIS
        """History of the agreed checkpoint with which the own weights were last compared."""

    async def fold(self, records: Sequence[RoundRecord], view: ChainView) -> None:
        """Fold verified records in order; if a blob is lost, go on from a newer checkpoint.

        Raises:
            NotYet: a blob is not to be had, and there is no newer checkpoint.
        """
        try:
            await self._replay(records, view)
        except NotYet:
            if not await self._jump_ahead(view):
                raise

    async def catch_up(self, view: ChainView) -> None:
        """Make one step towards the head, the cheapest that is possible.

        The own log leads there; else a checkpoint that is newer than the own weights; else the log of peers;
        else the own weights are on a branch that the chain has left, and the last agreed checkpoint is taken.

        Raises:
            NotYet: no record, blob or checkpoint is to be had that leads on.
        """
        reasons = []
        for attempt in (self._replay_own_log, self._jump_ahead, self._replay_peers_log, self._start_over):
            try:
                if await attempt(view):
                    return
            except NotYet as error:
                reasons.append(str(error))
        own = self._weights.history.hex()[:16]
        raise NotYet("; ".join(dict.fromkeys(reasons)) or f"no peer has the records after history {own}")

    async def _replay(self, records: Sequence[RoundRecord], view: ChainView) -> None:
        await self.compare(view.checkpoint)
        for record in records:
            blobs = await self._gather(record, view)
            await self._weights.fold(record, blobs)
            await self.compare(view.checkpoint)

    async def _replay_own_log(self, view: ChainView) -> bool:
        own = self._weights.history
        records = link_through(own, [self._weights.records_after(own)], view)
        await self._replay(records or [], view)
        return bool(records)

    async def _jump_ahead(self, view: ChainView) -> bool:
        """Take the agreed checkpoint if it is newer than the own weights."""
        if not view.checkpoint.agreed or view.checkpoint.step <= self._weights.step:
            return False
        await self._be_sure(view.checkpoint)
        await self._restore(view.checkpoint)
        return True

    async def _replay_peers_log(self, view: ChainView) -> bool:
        records = await self._records_of_peers(self._weights.history, view)
        await self._replay(records or [], view)
        return bool(records)

    async def _start_over(self, view: ChainView) -> bool:
        """Leave the own weights for the agreed checkpoint, if the chain's log does not pass through them."""
        own, checkpoint = self._weights.history, view.checkpoint
        start = checkpoint.history if checkpoint.agreed else GENESIS
        if own == start:
            return False
        if start != view.history:
            after = self._weights.records_after(start)
            if any(head(start, after[: i + 1]) == own for i in range(len(after))):
                # The own weights are newer: only proof that the log went elsewhere counts.
                around = link(start, view) or await self._records_of_peers(start, view)
                if around is None or any(head(start, around[:i]) == own for i in range(len(around) + 1)):
                    return False
        await self._be_sure(checkpoint)
        if start == GENESIS:
            await self._weights.reset()
        else:
            await self._restore(checkpoint)
        return True

    async def _records_of_peers(self, start: bytes, view: ChainView) -> list[RoundRecord] | None:
        """Verified records from `start` on, of whoever has them.

        All are asked at once; where no answer reaches a history that the chain shows, each peer's log is followed
        by itself, page by page, so that one that lies leads nobody but itself astray, and several at the same
        time, so that those who let wait do not add up.
        """
        candidates = await self._ask_for_log(start)
        if records := link_through(start, candidates or [[]], view):
            return records
        if not candidates:
            return None
        found: list[list[RoundRecord]] = []
        limit = trio.CapacityLimiter(LOGS_AT_ONCE)
        async with trio.open_nursery() as nursery:

            async def follow(peer: bytes) -> None:
                async with limit:
                    with trio.move_on_after(LOG_OF_ONE_PEER_S), suppress(NotYet):
                        if records := await self._follow_log_of(peer, start, view):
                            found.append(records)  # verified: anybody's are the same
                            nursery.cancel_scope.cancel()

            for slot in view.slots.values():
                if slot.p2p_key != self._network.peer_key:
                    nursery.start_soon(follow, slot.p2p_key)
        return max(found, key=len, default=None)

    async def _follow_log_of(self, peer: bytes, start: bytes, view: ChainView) -> list[RoundRecord] | None:
        chain: list[RoundRecord] = []
        at = start
        for _ in range(MAX_LOG_PAGES):
            page = next(iter(await self._ask_for_log(at, peer)), [])
            numbers = [record.number for record in (*chain[-1:], *page)]
            if not page or numbers != sorted(set(numbers)) or numbers[-1] >= view.next_round:
                return None
            chain += page
            if records := link_through(start, [chain], view):
                return records
            at = head(at, page)
        return None

    async def _ask_for_log(self, after: bytes, *peers: bytes) -> list[list[RoundRecord]]:
        try:
            return await self._network.fetch_log(after, deadline_s=LOG_DEADLINE_S, peers=peers)
        except NetworkError as error:
            raise NotYet(str(error)) from error

    async def _gather(self, record: RoundRecord, view: ChainView) -> dict[int, bytes]:
        """The blobs of a record's accepted slots.

        Raises:
            NotYet: at least one of them is not to be had.
        """
        blobs: dict[int, bytes] = {}
        failures: list[str] = []

        async def fetch(accepted: Accepted) -> None:
            try:
                blobs[accepted.slot] = await self._network.fetch(
                    accepted.commitment,
                    deadline_s=BLOB_DEADLINE_S,
                    max_bytes=self._weights.max_update_bytes,
                    holders=holders_of(view, record.number, accepted.slot),
                )
            except (NetworkError, BlobStoreError) as error:  # uncaught they would end the nursery, as a group
                failures.append(str(error))

        async with trio.open_nursery() as nursery:
            for accepted in record.accepted:
                nursery.start_soon(fetch, accepted)
        if failures:
            raise NotYet(f"round {record.number}: {'; '.join(failures)}")
        return blobs

    async def _be_sure(self, checkpoint: Checkpoint) -> None:
        """Before the own weights are given up: one endpoint that lies must not be enough for it.

        Raises:
            NotYet: most of the chain's endpoints do not show this checkpoint.
        """
        if self._confirm is not None:
            await self._confirm(checkpoint)

    async def _restore(self, checkpoint: Checkpoint) -> None:
        path: Path | str | None = await trio.to_thread.run_sync(self._local, checkpoint)
        if path is not None:
            await self._weights.restore(path, self._adapter.position_of(checkpoint))
        else:
            path = await self._restore_from_peers(checkpoint)
        self._events.emit("restore", step=checkpoint.step, path=path, history=checkpoint.history)

    def _local(self, checkpoint: Checkpoint) -> Path | None:
        """The own checkpoint of that history, if there is one and it is whole."""
        for position in sorted((self._state_dir / "checkpoints").glob("step-*/position.json")):
            try:
                found = json.loads(position.read_text())["history"]
            except (OSError, ValueError, KeyError, TypeError):
                continue
            if found != checkpoint.history.hex():
                continue
            try:
                self._adapter.verify_own(position.parent, checkpoint)
            except ValueError as error:
                self._events.emit("error", message=f"an own checkpoint is not used: {error}")
                continue
            return position.parent
        return None

    async def _restore_from_peers(self, checkpoint: Checkpoint) -> Path | str:
        """Take the agreed weights from members, else from where the user said; returns where they were."""
        source: Any
        try:
            source = await self.sharing.download(checkpoint)
            where: Path | str = checkpoint.uri
        except NotYet as error:
            if self._elsewhere is None:
                raise
            source = where = await self._from_elsewhere(self._elsewhere, checkpoint, str(error))
        await self._weights.restore(source, self._adapter.position_of(checkpoint))
        return where

    async def _from_elsewhere(self, reference: str, checkpoint: Checkpoint, why: str) -> Path:
        """The agreed weights from where the user said; they count only if they have the agreed hash."""

        def fetch() -> Path:
            from psyche_train.checkpoints.remote import fetch

            path = fetch(reference)
            self._adapter.verify(path, checkpoint.weights_hash)
            return path

        try:
            return await trio.to_thread.run_sync(fetch, abandon_on_cancel=True)  # type: ignore[call-arg]
        except (ValueError, OSError) as error:
            raise NotYet(f"{why}; {reference}: {error}") from error

    async def compare(self, checkpoint: Checkpoint) -> None:
        """At the history of an agreed checkpoint, have the agreed weights; others are replaced.

        A slice is compared part by part with the index that members share; where nobody hands that over, it stays
        as it is.

        Raises:
            NotYet: the own weights are others, and the agreed ones are not to be had.
        """
        if not checkpoint.agreed or self._weights.history != checkpoint.history:
            return
        if self.compared == checkpoint.history:
            return
        found = await self._weights.digests()
        if self._tier == 0:
            is_agreed = weights_hash(found) == checkpoint.weights_hash
        else:
            try:
                agreed = [part.digest for part in (await self.sharing.index(checkpoint)).parts]
            except NotYet as error:
                self._events.emit(
                    "error", message=f"the own slice was not compared with the agreed one: {error}"
                )
                agreed = found
            is_agreed = found == agreed[: len(found)]
        if not is_agreed:
            await self._be_sure(checkpoint)
            self._events.emit(
                "error",
                message=f"the weights at step {checkpoint.step} have digests {[g.hex()[:16] for g in found]}, "
                f"which do not belong to the agreed hash {checkpoint.weights_hash.hex()}: taking the agreed weights",
            )
            await self._restore_from_peers(checkpoint)
            await self._weights.save()  # in the place of the wrong one
        self.compared = checkpoint.history


def holders_of(view: ChainView, number: int, slot: int) -> list[bytes]:
    """Peer keys of those who should have a blob: its author, and who attested its round."""
    round_ = view.round(number)
    attested = (
        sorted(round_.attested) if round_ is not None and round_.status >= RoundStatus.COMMITTED else []
    )
    slots = [slot, *(s for s in attested if s != slot)]
    return [view.slots[s].p2p_key for s in slots if s in view.slots]
