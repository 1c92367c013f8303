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
from psyche_chain.client.ports import Adapter, Network
from psyche_chain.client.view import GENESIS, ChainView, RoundStatus
from psyche_chain.client.weights import Weights
from psyche_train.network import FetchError, NetworkError
from psyche_train.records import Accepted, RoundRecord

LOG_DEADLINE_S = 10.0
BLOB_DEADLINE_S = 15.0
CHECKPOINT_DEADLINE_S = 600.0
MAX_UPDATE_BYTES = 256 << 20
PEERS_SCHEME = "peers:"


class NotYet(Exception):
    """The duty cannot be done now; it is tried again. The message says what is missing."""


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
    ) -> None:
        self._weights = weights
        self._network = network
        self._adapter = adapter
        self._state_dir = state_dir
        self._events = events
        self._tier = tier

    async def fold(self, records: Sequence[RoundRecord], view: ChainView) -> None:
        """Fold verified records in order.

        Raises:
            NotYet: a blob is not to be had.
        """
        for record in records:
            blobs = await self._gather(record, view)
            await self._weights.fold(record, blobs)
        await self._compare(view.checkpoint)

    async def catch_up(self, view: ChainView) -> None:
        """Make one step towards the head: a replay, or a checkpoint to replay from.

        Raises:
            NotYet: no record, blob or checkpoint is to be had that leads on.
        """
        own = self._weights.history
        if records := await self._records(own, view):
            await self.fold(records, view)
            return
        if not await self._must_restart(own, view):
            raise NotYet(f"no peer has the records after {own.hex()[:16]}")
        checkpoint = view.checkpoint
        if not checkpoint.agreed or checkpoint.history == GENESIS:
            await self._weights.reset()
        else:
            await self._restore(checkpoint)

    async def _records(self, start: bytes, view: ChainView) -> list[RoundRecord] | None:
        """Verified records from `start` on: from the own log, else from peers."""
        records = link_through(start, [self._weights.log.after(start)], view)
        if records:
            return records
        if start == view.history:
            return []
        try:
            candidates = await self._network.fetch_log(start, deadline_s=LOG_DEADLINE_S)
        except NetworkError as error:
            raise NotYet(str(error)) from error
        return link_through(start, candidates, view)

    async def _must_restart(self, own: bytes, view: ChainView) -> bool:
        """Whether to leave the own weights for the last agreed checkpoint."""
        start = view.checkpoint.history if view.checkpoint.agreed else GENESIS
        if own == start:
            return False
        if start == view.history:
            return True
        after = self._weights.log.after(start)
        is_in_own_past = any(head(start, after[: i + 1]) == own for i in range(len(after)))
        if not is_in_own_past:
            return view.checkpoint.agreed or own != GENESIS
        # The own weights are newer than the checkpoint: leave them only if the log provably went elsewhere.
        around = link(start, view) or await self._records(start, view)
        return around is not None and all(head(start, around[:i]) != own for i in range(len(around) + 1))

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
                    max_bytes=MAX_UPDATE_BYTES,
                    holders=holders_of(view, record.number, accepted.slot),
                )
            except FetchError as error:
                failures.append(str(error))

        async with trio.open_nursery() as nursery:
            for accepted in record.accepted:
                nursery.start_soon(fetch, accepted)
        if failures:
            raise NotYet(f"round {record.number}: {'; '.join(failures)}")
        return blobs

    async def _restore(self, checkpoint: Checkpoint) -> None:
        path = self._local(checkpoint.history)
        if path is None:
            path = await self._download(checkpoint)
        await self._weights.restore(path, self._adapter.position_of(checkpoint))
        self._events.emit("restore", step=checkpoint.step, path=path, history=checkpoint.history)

    def _local(self, history: bytes) -> Path | None:
        """The own checkpoint of that history, if there is one."""
        for position in sorted((self._state_dir / "checkpoints").glob("step-*/position.json")):
            try:
                found = json.loads(position.read_text())["history"]
            except (OSError, ValueError, KeyError, TypeError):
                continue
            if found == history.hex():
                return position.parent
        return None

    async def _download(self, checkpoint: Checkpoint) -> Path:
        blob_id = blob_id_of(checkpoint.uri)
        if blob_id is None:
            where = f"at {checkpoint.uri}" if checkpoint.uri else "nowhere"
            raise NotYet(f"the checkpoint of step {checkpoint.step} is {where}, not with peers")
        try:
            data = await self._network.fetch(
                blob_id, deadline_s=CHECKPOINT_DEADLINE_S, max_bytes=1 << 40, holders=()
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
            await self._weights.restore(
                await self._download(checkpoint), self._adapter.position_of(checkpoint)
            )


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
