"""The run's data among its members: who has them offers them, who lacks them fetches them by hash.

Only `Stdlib` (a member's library may have another text than the creator's) and `Peers` need this; all other
sources are the same for everyone from elsewhere.
"""

from __future__ import annotations

import trio

from psyche_chain.client.events import EventLog
from psyche_chain.client.ports import Network, NotYet
from psyche_chain.client.weights import Weights
from psyche_train.blobs import BlobStoreError
from psyche_train.network import NetworkError

DEADLINE_S = 600.0
"""For one shard; what has arrived is kept, so that the next try goes on."""
MAX_SHARD_BYTES = 1 << 30
AT_ONCE = 3
"""Shards that are fetched at once; updates go before them anyway."""


class RunData:
    """Sees to it that this member has the data, and that others can have what is here."""

    def __init__(self, weights: Weights, network: Network, events: EventLog) -> None:
        self._weights, self._network, self._events = weights, network, events
        self.shared = False
        """Whether everything that is here was offered to the others."""

    @property
    def complete(self) -> bool:
        """Whether samples can be read."""
        return not self._weights.data_missing

    @property
    def blobs(self) -> frozenset[bytes]:
        """Blobs that must stay in the store."""
        return self._weights.data_blobs

    async def share(self) -> None:
        """Offer what this member has; done once a process.

        Raises:
            BlobStoreError: the store cannot take it.
        """
        for offer in await self._weights.data_offers():
            if isinstance(offer, bytes):
                await self._network.publish(offer)
            else:
                await self._network.publish_file(offer.path, offer.blob)
        self.shared = True

    async def fetch(self) -> None:
        """Fetch what is missing, and what that says is missing, until the data are complete.

        Raises:
            NotYet: a part is not to be had now, or is not what the run's manifest says.
        """
        while missing := self._weights.data_missing:
            failures: list[str] = []
            limit = trio.CapacityLimiter(AT_ONCE)
            async with trio.open_nursery() as nursery:
                for blob in missing:
                    nursery.start_soon(self._obtain, blob, limit, failures)
            await self._weights.refresh_data()
            if failures:
                raise NotYet(f"the run's data: {len(failures)} of {len(missing)} blobs: {failures[0]}")
        self._events.emit("data", blobs=len(self.blobs))

    async def _obtain(self, blob: bytes, limit: trio.CapacityLimiter, failures: list[str]) -> None:
        async with limit:
            try:
                await self._network.obtain(blob, deadline_s=DEADLINE_S, max_bytes=MAX_SHARD_BYTES)
            except (NetworkError, BlobStoreError) as error:
                failures.append(str(error))
