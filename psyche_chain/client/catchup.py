"""Bring the weights to the head of the log, whatever they were before.

A member is never out of the run because its weights are behind or beside the log: the chain says which
history is right, records lead to it, blobs hold the updates, and a checkpoint is a place to start from.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import trio

from psyche_chain.chain.state import Checkpoint
from psyche_chain.client.events import EventLog
from psyche_chain.client.ledger import head, link, link_through
from psyche_chain.client.ports import Adapter, Network, NotYet
from psyche_chain.client.view import GENESIS, ChainView, RoundStatus
from psyche_chain.client.weights import Weights
from psyche_train.blobs import BlobStoreError
from psyche_train.network import FetchError, NetworkError
from psyche_train.records import Accepted, RoundRecord

LOG_DEADLINE_S = 10.0
MAX_LOG_PAGES = 1000
BLOB_DEADLINE_S = 15.0
CHECKPOINT_DEADLINE_S = 600.0
MAX_CHECKPOINT_BYTES = 1 << 40
PEERS_SCHEME = "peers:"


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
    ) -> None:
        self._elsewhere = elsewhere
        self._weights = weights
        self._network = network
        self._adapter = adapter
        self._state_dir = state_dir
        self._events = events
        self._tier = tier

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
        for record in records:
            blobs = await self._gather(record, view)
            await self._weights.fold(record, blobs)
        await self._compare(view.checkpoint)

    async def _replay_own_log(self, view: ChainView) -> bool:
        own = self._weights.history
        records = link_through(own, [self._weights.records_after(own)], view)
        await self._replay(records or [], view)
        return bool(records)

    async def _jump_ahead(self, view: ChainView) -> bool:
        """Take the agreed checkpoint if it is newer than the own weights."""
        if not view.checkpoint.agreed or view.checkpoint.step <= self._weights.step:
            return False
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
        if start == GENESIS:
            await self._weights.reset()
        else:
            await self._restore(checkpoint)
        return True

    async def _records_of_peers(self, start: bytes, view: ChainView) -> list[RoundRecord] | None:
        """Verified records from `start` on; peers answer in pages, so it may take several questions.

        A page that is whole but does not reach anything that the chain shows is followed by the next one.
        """
        chain: list[RoundRecord] = []
        at = start
        for _ in range(MAX_LOG_PAGES):
            try:
                candidates = await self._network.fetch_log(at, deadline_s=LOG_DEADLINE_S)
            except NetworkError as error:
                raise NotYet(str(error)) from error
            if records := link_through(start, [[*chain, *more] for more in candidates] or [chain], view):
                return records
            longest = max(candidates, key=len, default=[])
            if not longest:
                return None
            chain = [*chain, *longest]
            at = head(start, chain)
        return None

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

    async def _restore(self, checkpoint: Checkpoint) -> None:
        path = await trio.to_thread.run_sync(self._local, checkpoint)
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

    async def _restore_from_peers(self, checkpoint: Checkpoint) -> Path:
        """Take the agreed weights from peers; the file is not kept beside the blob."""
        try:
            path = await self._download(checkpoint)
        except NotYet as error:
            if self._elsewhere is None:
                raise
            path = await self._from_elsewhere(self._elsewhere, checkpoint, str(error))
        try:
            await self._weights.restore(path, self._adapter.position_of(checkpoint))
        finally:
            if path.is_file():
                path.unlink()
        return path

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

    async def _download(self, checkpoint: Checkpoint) -> Path:
        blob_id = blob_id_of(checkpoint.uri)
        if blob_id is None:
            where = f"at {checkpoint.uri}" if checkpoint.uri else "nowhere"
            raise NotYet(f"the checkpoint of step {checkpoint.step} is {where}, not with peers")
        try:
            data = await self._network.fetch(
                blob_id, deadline_s=CHECKPOINT_DEADLINE_S, max_bytes=MAX_CHECKPOINT_BYTES, holders=()
            )
        except FetchError as error:
            raise NotYet(f"the checkpoint of step {checkpoint.step}: {error}") from error
        path = self._state_dir / f"download-{checkpoint.history.hex()[:16]}.safetensors"
        await trio.to_thread.run_sync(path.write_bytes, data)
        try:
            await trio.to_thread.run_sync(self._adapter.verify, path, checkpoint.weights_hash)
        except ValueError as error:
            path.unlink()
            raise NotYet(f"the checkpoint of step {checkpoint.step} is not the agreed one: {error}") from None
        return path

    async def _compare(self, checkpoint: Checkpoint) -> None:
        """At the history of an agreed checkpoint the full model must have the agreed hash."""
        if self._tier != 0 or not checkpoint.agreed or self._weights.history != checkpoint.history:
            return
        if (found := await self._weights.weights_hash()) != checkpoint.weights_hash:
            self._events.emit(
                "error",
                message=f"the weights at step {checkpoint.step} have hash {found.hex()}, agreed is "
                f"{checkpoint.weights_hash.hex()}: taking the agreed weights",
            )
            await self._restore_from_peers(checkpoint)


def blob_id_of(uri: str) -> bytes | None:
    """The blob that a `peers:` uri names; None for any other uri."""
    try:
        blob_id = bytes.fromhex(uri.removeprefix(PEERS_SCHEME))
    except ValueError:
        return None
    return blob_id if uri.startswith(PEERS_SCHEME) and len(blob_id) == 32 else None


def holders_of(view: ChainView, number: int, slot: int) -> list[bytes]:
    """Peer keys of those who should have a blob: its author, and who attested its round."""
    round_ = view.round(number)
    attested = (
        sorted(round_.attested) if round_ is not None and round_.status >= RoundStatus.COMMITTED else []
    )
    slots = [slot, *(s for s in attested if s != slot)]
    return [view.slots[s].p2p_key for s in slots if s in view.slots]
