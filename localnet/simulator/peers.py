"""The peers as a model: who reaches whom, after how long, and who serves what."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import trio

from localnet.simulator.weather import Weather
from psyche_train.blobs import BlobCorrupt, BlobMissing, BlobStoreError, blob_id
from psyche_train.network import FetchError, NetworkError
from psyche_train.records import RecordLog, RoundRecord

RETRY_S = 1.0
PAGE = 4
"""Records in one answer: few, so that a log takes several questions."""
LATENCY_S = (0.01, 0.25)
SLOW = 30.0


@dataclass(slots=True)
class Disk:
    """What a member's network process keeps on its disk."""

    blobs: dict[bytes, bytes] = field(default_factory=dict)
    hidden: dict[bytes, int] = field(default_factory=dict)

    def has_whole(self, name: bytes) -> bool:
        """Whether a blob is here; one that the disk has changed is deleted as soon as it is looked at."""
        blob = self.blobs.get(name)
        if blob is not None and blob_id(blob) != name:
            del self.blobs[name]
            return False
        return blob is not None

    def copy(self) -> Disk:
        return Disk(dict(self.blobs), dict(self.hidden))


@dataclass(slots=True)
class Peer:
    """A member as the others meet it."""

    key: bytes
    log: Path
    weather: Weather
    disk: Disk = field(default_factory=Disk)
    up: bool = False
    revealed: int = -1
    side: int = 0
    """Of a partition."""


class Peers:
    """All members, and the network between them."""

    def __init__(self, weather: Weather, rng: random.Random) -> None:
        self.all: dict[bytes, Peer] = {}
        self.weather = weather
        self.rng = rng
        self.published: dict[bytes, bytes] = {}
        """Every blob that any member ever made."""
        self.on_serve: Callable[[int], None] = lambda number: None
        """Told of every hidden blob that is served, by the round whose end it waited for."""

    def reaches(self, one: Peer, other: Peer) -> bool:
        """Whether a question arrives, and its answer."""
        if not (one.up and other.up) or other.weather.has("sleep"):
            return False
        if self.weather.has("partition") and one.side != other.side:
            return False
        for peer in (one, other):
            if any(peer.weather.has(kind) for kind in ("net_down", "net_error")):
                return False
            if peer.weather.has("net_lossy", chance=0.6):
                return False
        return True

    def keep(self, name: bytes) -> bool:
        """Whether any disk has a blob whole, its member's process running or not."""
        return any(
            (b := p.disk.blobs.get(name)) is not None and blob_id(b) == name for p in self.all.values()
        )

    def latency_s(self, one: Peer, other: Peer) -> float:
        """How long a question and its answer take."""
        factor = SLOW if one.weather.has("net_slow") or other.weather.has("net_slow") else 1.0
        return self.rng.uniform(*LATENCY_S) * factor


class SimNetwork:
    """One process' way to its peers; see `psyche_chain.client.ports.Network`."""

    def __init__(self, peers: Peers, own: Peer, rng: random.Random, edge: Callable[[], Any]) -> None:
        self._peers, self._own, self._rng, self._edge = peers, own, rng, edge
        self._known: list[bytes] = []
        own.revealed = -1

    @property
    def peer_key(self) -> bytes:
        return self._own.key

    async def addresses(self) -> list[str]:
        await self._call()
        return [f"/ip4/10.0.0.{self._own.key[0]}/tcp/4001"]

    async def set_members(self, members: Sequence[Any]) -> None:
        await self._call()
        self._known = [m.key for m in members]

    async def publish(self, blob: bytes, hidden_until: int | None = None) -> bytes:
        await self._call()
        if hidden_until is not None and self._own.weather.has("garbage"):
            blob = b"garbage " + blob[-16:]
        self._store(blob, hidden_until)
        return blob_id(blob)

    async def publish_file(self, path: Path, blob_id: bytes) -> None:
        await self._call()
        self._store(path.read_bytes(), None)  # noqa: ASYNC240 (a simulated disk)

    async def reveal(self, round: int) -> None:
        await self._call()
        self._own.revealed = max(self._own.revealed, round)

    async def fetch(
        self, blob_id: bytes, *, deadline_s: float, max_bytes: int, holders: Sequence[bytes] = ()
    ) -> bytes:
        deadline = trio.current_time() + deadline_s
        await self._ask()
        while not self._own.disk.has_whole(blob_id):
            for key in dict.fromkeys([*holders, *self._known]):
                if key == self.peer_key or key not in self._peers.all:
                    continue
                peer = self._peers.all[key]
                await trio.sleep(min(self._peers.latency_s(self._own, peer), 5.0))
                if not self._peers.reaches(self._own, peer) or peer.weather.has("hoard"):
                    continue
                blob = peer.disk.blobs[blob_id] if peer.disk.has_whole(blob_id) else None
                until = peer.disk.hidden.get(blob_id, -1)
                if blob is None or until > peer.revealed:
                    continue
                if until >= 0:
                    self._peers.on_serve(until)
                await self._edge()
                if len(blob) <= max_bytes:
                    self._store(blob, None)
                break
            if trio.current_time() >= deadline and blob_id not in self._own.disk.blobs:
                raise FetchError(blob_id, "nobody delivered it", {})
            if blob_id not in self._own.disk.blobs:
                await trio.sleep(min(RETRY_S, max(0.0, deadline - trio.current_time())))
            await self._edge()
        return self._own.disk.blobs[blob_id]

    async def obtain(
        self, blob_id: bytes, *, deadline_s: float, max_bytes: int, holders: Sequence[bytes] = ()
    ) -> None:
        await self.fetch(blob_id, deadline_s=deadline_s, max_bytes=max_bytes, holders=holders)

    def path(self, blob_id: bytes) -> Path:
        """A file with what the disk holds of a blob at this moment."""
        path = self._own.log.parent / "blobs" / blob_id.hex()
        path.unlink(missing_ok=True)
        if blob_id in self._own.disk.blobs:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(self._own.disk.blobs[blob_id])
        return path

    async def verify(self, blob_id: bytes) -> None:
        await self._call()
        if blob_id not in self._own.disk.blobs:
            raise BlobMissing(f"blob {blob_id.hex()} is not in the store")
        if not self._own.disk.has_whole(blob_id):
            raise BlobCorrupt(f"blob {blob_id.hex()} was damaged on disk and is removed")

    async def fetch_log(
        self, after: bytes, *, deadline_s: float, peers: Sequence[bytes] = ()
    ) -> list[list[RoundRecord]]:
        await self._ask()
        answers = []
        for peer in list(self._peers.all.values()):
            if peer is self._own or peer.key not in (peers or self._known):
                continue
            await trio.sleep(min(self._peers.latency_s(self._own, peer), deadline_s))
            if not self._peers.reaches(self._own, peer) or not peer.log.exists():
                continue
            records = RecordLog(peer.log, read_only=True).after(after)[:PAGE]
            if peer.weather.has("forge"):
                records = _forged(records, peer.weather.rng)
            if records:
                answers.append(records)
        await self._edge()
        return answers

    async def prune(self, keep: Collection[bytes]) -> None:
        await self._call()
        disk = self._own.disk
        for name in [b for b in disk.blobs if b not in keep]:
            del disk.blobs[name]

    async def _call(self) -> None:
        """To the network process and back."""
        await self._edge()
        await trio.sleep(self._rng.uniform(0.0, 0.02))

    async def _ask(self) -> None:
        """To the peers; only this fails without the network process."""
        await self._call()
        if self._own.weather.has("net_error", chance=0.7):
            raise NetworkError("the network process is gone")

    def _store(self, blob: bytes, hidden_until: int | None) -> None:
        if self._own.weather.has("disk_full"):
            raise BlobStoreError("cannot store a blob: No space left on device; free some disk space")
        name = blob_id(blob)
        if hidden_until is not None:
            self._own.disk.hidden[name] = max(hidden_until, self._own.disk.hidden.get(name, -1))
        self._own.disk.blobs.setdefault(name, blob)
        self._peers.published[name] = blob


def _forged(records: list[RoundRecord], rng: random.Random) -> list[RoundRecord]:
    """A log in which one record is not the chain's."""
    if not records:
        return []
    at = rng.randrange(len(records))
    forged = replace(records[at], seed=rng.randbytes(32))
    if records[at].accepted and rng.random() < 0.5:
        forged = replace(records[at], accepted=records[at].accepted[1:])
    return [*records[:at], forged, *records[at + 1 :]]
