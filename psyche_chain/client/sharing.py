"""Agreed checkpoints between members: offered part by part, fetched as far as a tier needs them, proven by hashes.

See `psyche_train.checkpoints.part_index` for the parts and their proof. Everything that was fetched is in the blob
store, so a member that stops at any point goes on with the pieces that are still missing.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trio

from psyche_chain.chain.state import Checkpoint
from psyche_chain.client.events import EventLog
from psyche_chain.client.ports import Adapter, Network, NotYet
from psyche_train.blobs import BlobCorrupt, BlobMissing
from psyche_train.checkpoints.errors import CheckpointError
from psyche_train.checkpoints.part_index import MAX_INDEX_BYTES, Part, PartIndex
from psyche_train.network import FetchError

INDEX_DEADLINE_S = 15.0
BLOB_DEADLINE_S = 60.0
"""For one blob of a checkpoint; what has arrived by then is kept and counts when it is asked for again.

Short, because nobody may have it any more: members drop a checkpoint's blobs when the next one is agreed.
"""
PEERS_SCHEME = "peers:"


class Sharing:
    """Offers and fetches agreed checkpoints for one member."""

    def __init__(self, network: Network, adapter: Adapter, folder: Path, events: EventLog) -> None:
        self._network = network
        self._adapter = adapter
        self._folder = folder
        self._events = events
        self._refused: dict[tuple[str, bytes], str] = {}
        """Uri and weights hash of what turned out not to be what the chain agreed on, and why."""

    async def offer(self, path: Path) -> tuple[str, frozenset[bytes]]:
        """Put the parts of a saved checkpoint into the store.

        Returns:
            The uri of the full model, empty for a slice; and the blobs that were stored.

        Raises:
            NotYet: the checkpoint on disk cannot be read any more.
            BlobStoreError: the disk is full or not writable.
        """
        folder = Path(
            await trio.to_thread.run_sync(lambda: tempfile.mkdtemp(dir=self._folder, prefix="offer-"))
        )
        try:
            offered = await trio.to_thread.run_sync(self._adapter.offered, path, folder)
            for one in offered:
                for file, (blob, _) in zip(one.paths, one.part.blobs, strict=True):
                    await self._network.publish_file(file, blob)
        except (CheckpointError, ValueError) as error:
            raise NotYet(f"the checkpoint {path} cannot be offered: {error}") from error
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(lambda: shutil.rmtree(folder, ignore_errors=True))
        index = PartIndex(tuple(one.part for one in offered))
        if not self._adapter.is_full(index):
            return "", index.blobs
        name = await self._network.publish(index.to_bytes())
        return PEERS_SCHEME + name.hex(), index.blobs | {name}

    async def index(self, checkpoint: Checkpoint, holders: Sequence[bytes] = ()) -> PartIndex:
        """The parts of an agreed checkpoint; they have the digests that give the agreed hash.

        Raises:
            NotYet: the checkpoint is not with members, nobody hands the index over, or it is a false one.
        """
        name = blob_id_of(checkpoint.uri)
        if name is None:
            place = f"at {checkpoint.uri!a}" if checkpoint.uri else "nowhere"  # a stranger wrote it
            raise NotYet(
                f"the checkpoint of step {checkpoint.step} is {place}, says the chain, not with peers: wait for "
                "the next checkpoint, or start again with --checkpoint-from and a place that has it (it is "
                f"taken only if it has the agreed weights hash {checkpoint.weights_hash.hex()})"
            )
        if (why := self._refused.get((checkpoint.uri, checkpoint.weights_hash))) is not None:
            raise NotYet(why)
        try:
            raw = await self._network.fetch(
                name, deadline_s=INDEX_DEADLINE_S, max_bytes=MAX_INDEX_BYTES, holders=holders
            )
        except FetchError as error:
            raise NotYet(f"the checkpoint of step {checkpoint.step}: {error}") from error
        try:
            index = PartIndex.from_bytes(raw)
            if index.weights_hash != checkpoint.weights_hash:
                raise ValueError(f"its parts have weights hash {index.weights_hash.hex()}")
            self._adapter.needed(index)
        except ValueError as error:
            raise self._refuse(checkpoint, error) from None
        return index

    async def download(self, checkpoint: Checkpoint) -> Any:
        """The own tier's weights of an agreed checkpoint, verified; only this tier's parts are fetched.

        Raises:
            NotYet: not to be had now, or what members call that checkpoint is not the agreed one.
            BlobStoreError: disk full or not writable.
        """
        parts = self._adapter.needed(await self.index(checkpoint))
        fetched = 0
        while True:
            for part in parts:
                fetched += await self._obtain(part, checkpoint)
            try:
                weights = await trio.to_thread.run_sync(self._adapter.assembled, parts, self._network.path)
                break
            except (CheckpointError, ValueError) as error:
                if not (damaged := await self._drop_damaged(parts)):
                    raise self._refuse(checkpoint, error) from None
                self._events.emit(
                    "error",
                    message=f"this disk damaged {damaged} blobs of the checkpoint of step {checkpoint.step}: "
                    f"they are fetched again ({error})",
                )
        total = sum(part.num_bytes for part in parts)
        self._events.emit("download", step=checkpoint.step, bytes=fetched, total_bytes=total)
        return weights

    async def copy(self, checkpoint: Checkpoint, holders: Sequence[bytes]) -> None:
        """Have all parts of an agreed checkpoint in the store, for the others.

        Raises:
            NotYet: somebody has to be asked again later.
        """
        for part in (await self.index(checkpoint, holders)).parts:
            await self._obtain(part, checkpoint, holders)

    async def _obtain(self, part: Part, checkpoint: Checkpoint, holders: Sequence[bytes] = ()) -> int:
        """Have a part's blobs in the store; returns the bytes of those that were not."""
        fetched = 0
        for blob, length in part.blobs:
            if await trio.to_thread.run_sync(_is_there, self._network.path(blob)):
                continue
            try:
                await self._network.obtain(
                    blob, deadline_s=BLOB_DEADLINE_S, max_bytes=length, holders=holders
                )
            except FetchError as error:
                raise NotYet(f"the checkpoint of step {checkpoint.step}: {error}") from error
            fetched += length
        return fetched

    async def _drop_damaged(self, parts: Sequence[Part]) -> int:
        """Delete blobs that are not what their ids say; returns how many."""
        damaged = 0
        for part in parts:
            for blob, _ in part.blobs:
                try:
                    await self._network.verify(blob)
                except (BlobCorrupt, BlobMissing):
                    damaged += 1
        return damaged

    def _refuse(self, checkpoint: Checkpoint, error: Exception) -> NotYet:
        why = (
            f"the checkpoint of step {checkpoint.step}: what {checkpoint.uri} names is not the agreed one "
            f"(weights hash {checkpoint.weights_hash.hex()}): {error}; it is not asked for again: wait for the next "
            "checkpoint, or start again with --checkpoint-from"
        )
        self._refused[(checkpoint.uri, checkpoint.weights_hash)] = why
        return NotYet(why)


def blob_id_of(uri: str) -> bytes | None:
    """The blob that a `peers:` uri names; None for any other uri."""
    try:
        name = bytes.fromhex(uri.removeprefix(PEERS_SCHEME))
    except ValueError:
        return None
    return name if uri.startswith(PEERS_SCHEME) and len(name) == 32 else None


def _is_there(path: Path) -> bool:
    return path.is_file()
