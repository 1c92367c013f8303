"""`NetworkClient`: what the rest of a member uses of the peer network.

The client keeps what must not be lost (blobs on disk, the member table, the revealed round, open requests);
the process behind it may die at any moment and is told everything again when it is back.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from psyche_train._manifest import manifest_of_file
from psyche_train.blobs import BlobCorrupt, BlobMissing, BlobStore, BlobStoreError
from psyche_train.network.protocol import (
    AnyMessage,
    Ask,
    Cancel,
    Channel,
    Done,
    Failed,
    Fetch,
    FetchLog,
    MemberEntry,
    Members,
    Message,
    Published,
    Records,
    Reveal,
    State,
)
from psyche_train.network.pushed import pushed_lately
from psyche_train.network.scopes import shielded
from psyche_train.network.supervisor import Supervisor
from psyche_train.network.types import (
    MAX_ADDRS,
    FetchError,
    NetworkConfig,
    NetworkDown,
    NetworkError,
    NetworkStatus,
    Peer,
)
from psyche_train.records import RecordError, RoundRecord

logger = logging.getLogger(__name__)

STATUS_S = 3.0
GRACE_S = 5.0
"""The process reports the end of a fetch itself; the client waits this much longer for its report."""
MAX_UNANNOUNCED = 1024
URGENT_BYTES = 256 << 20
"""No update is allowed to be longer, no checkpoint or shard limited to less."""
PUSHED_KEPT_S = 3600.0
"""How long a blob that another member pushed here stays, whether or not this one has a use for it."""


@dataclass(slots=True, eq=False)
class _Open:
    """A request that has not been answered."""

    build: Callable[[], Message]
    """The message to send, with what is left of its deadline."""
    answered: trio.Event = field(default_factory=trio.Event)
    answer: AnyMessage | None = None
    body: bytes = b""


@asynccontextmanager
async def open_network(config: NetworkConfig) -> AsyncIterator[NetworkClient]:
    """Run the network process for as long as the context is open.

    Raises:
        BlobStoreError: the blob directory cannot be used.
        NetworkError: the socket cannot be created, or the process never starts (NetworkDown).
    """
    store = await trio.to_thread.run_sync(lambda: BlobStore(config.blob_dir, sweep=True))
    client = NetworkClient(config, store)
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        scope = nursery.cancel_scope

        async def supervise() -> None:
            nonlocal failure
            try:
                config.socket_path.parent.mkdir(parents=True, exist_ok=True)
                await client._supervisor.run()
            except (NetworkError, OSError) as exc:
                failure = exc if isinstance(exc, NetworkError) else NetworkError(str(exc))
                client._broken = failure
                scope.cancel()

        nursery.start_soon(supervise)
        try:
            yield client
        except Exception as exc:  # raised again below: a nursery would wrap it in a group
            failure = exc
        scope.cancel()
    if failure is not None:
        raise failure


class NetworkClient:
    """A member's side of the peer network; use it within `open_network`."""

    def __init__(self, config: NetworkConfig, store: BlobStore) -> None:
        key = Ed25519PrivateKey.from_private_bytes(config.seed).public_key()
        self.peer_key: bytes = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
        """This member's ed25519 public key."""
        self.store = store
        self._supervisor = Supervisor(config, self._on_ready, self._on_frame)
        self._members: tuple[Peer, ...] = ()
        self._revealed = -1
        self._recent: dict[bytes, None] = {}
        self._numbers = itertools.count(1)
        self._open: dict[int, _Open] = {}
        self._addresses: list[str] = []
        self._ready = trio.Event()
        self._broken: Exception | None = None

    @property
    def process_id(self) -> int | None:
        """Of the network process; None between two of them."""
        return self._supervisor.pid

    async def addresses(self) -> list[str]:
        """Multiaddrs where this member is dialled now; waits until the process listens.

        The port stays the same when the process is started again, unless another process took it.
        """
        await self._ready.wait()
        return list(self._addresses)

    async def set_members(self, members: Sequence[Peer]) -> None:
        """Replace the member table. Only these keys may connect; this member's own entry is ignored."""
        self._members = tuple(members)
        await self._tell(self._member_table())

    async def publish(self, blob: bytes, hidden_until: int | None = None) -> bytes:
        """Store a blob durably and let the others have it; returns its id.

        Args:
            blob: the bytes.
            hidden_until: not served to anybody before `reveal` of this round or a later one. It is on disk
                before the blob is, so that no crash shows a blob early.

        Raises:
            BlobStoreError: disk full or not writable.
        """
        name = await trio.to_thread.run_sync(lambda: self.store.put(blob, hidden_until=hidden_until))
        self._recent[name] = None
        while len(self._recent) > MAX_UNANNOUNCED:
            self._recent.pop(next(iter(self._recent)))
        await self._tell(Published(blob=name.hex()))
        return name

    async def publish_file(self, path: Path, blob_id: bytes) -> None:
        """Let the others have a file that is the blob `blob_id`; it is linked, not copied, where that works.

        Raises:
            BlobStoreError: it is another blob, or the disk refuses.
        """
        await trio.to_thread.run_sync(self.store.adopt, path, blob_id)
        self._recent[blob_id] = None
        while len(self._recent) > MAX_UNANNOUNCED:
            self._recent.pop(next(iter(self._recent)))
        await self._tell(Published(blob=blob_id.hex()))

    async def reveal(self, round: int) -> None:
        """Blobs hidden until this round or an earlier one may be served from now on."""
        self._revealed = max(self._revealed, round)
        await self._tell(Reveal(round=self._revealed))

    async def fetch(
        self,
        blob_id: bytes,
        *,
        deadline_s: float,
        max_bytes: int,
        holders: Sequence[bytes] = (),
        urgent: bool | None = None,
    ) -> bytes:
        """A blob's bytes, verified: from the local store, else from peers; kept in the store.

        Args:
            deadline_s: seconds from now. Restarts of the network process are bridged within it.
            max_bytes: a longer blob is refused before anything is allocated.
            holders: keys of members that probably have it, asked first.
            urgent: an update, which goes before checkpoints and data; None: what may not be longer than
                `URGENT_BYTES` is one, and so is what turns out to be short.

        Raises:
            FetchError: not delivered; names the peers tried and why each failed.
            BlobStoreError: the local store cannot be read.
        """
        deadline = trio.current_time() + deadline_s
        while True:
            try:
                data = await trio.to_thread.run_sync(self.store.get, blob_id)
            except (BlobMissing, BlobCorrupt) as exc:
                logger.debug("event=blob_not_local why=%s", exc)
            else:
                if len(data) > max_bytes:
                    raise FetchError(blob_id, f"it has {len(data)} bytes, allowed {max_bytes}", {})
                return data
            left_s = max(0.0, deadline - trio.current_time())
            await self.obtain(blob_id, deadline_s=left_s, max_bytes=max_bytes, holders=holders, urgent=urgent)

    async def obtain(
        self,
        blob_id: bytes,
        *,
        deadline_s: float,
        max_bytes: int,
        holders: Sequence[bytes] = (),
        urgent: bool | None = None,
    ) -> None:
        """Have a blob in the store, however large, without its bytes in memory; pieces are verified on arrival.

        Args, Raises: as for `fetch`.
        """
        deadline = trio.current_time() + deadline_s
        named = [key.hex() for key in holders]
        while not self.store.has(blob_id):
            number = next(self._numbers)

            def build(number: int = number) -> Message:
                left_s = max(0.0, deadline - trio.current_time())
                return Fetch(
                    request=number,
                    blob=blob_id.hex(),
                    deadline_s=left_s,
                    max_bytes=max_bytes,
                    holders=named,
                    urgent=True if urgent is None and max_bytes <= URGENT_BYTES else urgent,
                )

            answer, _ = await self._request(number, build, deadline + GRACE_S)
            if isinstance(answer, Failed):
                peers = {bytes.fromhex(key): why for key, why in answer.peers.items()}
                raise FetchError(blob_id, answer.why, peers)
            if not isinstance(answer, Done):
                why = f"not within {deadline_s:.1f} s: the network process does not answer"
                raise FetchError(blob_id, why, {})

    def path(self, blob_id: bytes) -> Path:
        """Where the file of a blob is, or would be, on this disk; only read it."""
        return self.store.path(blob_id)

    async def verify(self, blob_id: bytes) -> None:
        """Compare a blob on this disk with its id, piece by piece.

        Raises:
            BlobCorrupt: it is another; it was deleted, so that it can be fetched again.
            BlobMissing: it is not here.
        """
        await trio.to_thread.run_sync(verify_blob, self.store, blob_id)

    async def fetch_log(
        self, after: bytes, *, deadline_s: float, peers: Sequence[bytes] = ()
    ) -> list[list[RoundRecord]]:
        """Chains of round records that peers offer after a history; unverified, no two the same.

        A chain may be a prefix of what its peer has: verify it, then ask again after its end. Empty when no
        peer knew more within `deadline_s`.

        Args:
            peers: keys of the members that are asked; empty is all.
        """
        deadline = trio.current_time() + deadline_s
        number = next(self._numbers)

        def build() -> Message:
            left_s = max(0.0, deadline - trio.current_time())
            return FetchLog(
                request=number, after=after.hex(), deadline_s=left_s, peers=[key.hex() for key in peers]
            )

        answer, body = await self._request(number, build, deadline + GRACE_S)
        if not isinstance(answer, Records):
            return []
        chains, at = [], 0
        for lengths in answer.chains:
            chain = []
            for length in lengths:
                chain.append(body[at : at + length])
                at += length
            try:
                chains.append([RoundRecord.from_bytes(raw) for raw in chain])
            except RecordError as exc:
                logger.warning("event=chain_dropped why=%s", exc)
        return chains

    async def status(self) -> NetworkStatus:
        """Connections and counters; the newest known ones if the process does not answer within 3 s."""
        number = next(self._numbers)
        answer, _ = await self._request(number, lambda: Ask(request=number), trio.current_time() + STATUS_S)
        running = isinstance(answer, State)
        state = answer if isinstance(answer, State) else self._supervisor.state
        return NetworkStatus(
            running=running,
            connected=tuple(bytes.fromhex(key) for key in state.connected) if running and state else (),
            bytes_in=state.bytes_in if state else 0,
            bytes_out=state.bytes_out if state else 0,
            restarts=self._supervisor.restarts,
            unreachable={bytes.fromhex(k): why for k, why in state.unreachable.items()} if state else {},
            dialable=state.dialable if state else None,
            unpushed=state.unpushed if state else 0,
        )

    async def prune(self, keep: Collection[bytes]) -> None:
        """Delete all blobs but these, those being fetched, and those that others pushed here lately."""
        fetching = {
            bytes.fromhex(message.blob)
            for request in self._open.values()
            if isinstance(message := request.build(), Fetch)
        }
        pushed = await trio.to_thread.run_sync(pushed_lately, self.store, PUSHED_KEPT_S)
        await trio.to_thread.run_sync(self.store.prune, {*keep, *fetching, *pushed})

    def _member_table(self) -> Members:
        return Members(
            members=[
                MemberEntry(
                    key=peer.key.hex(),
                    addrs=[addr for addr in peer.addrs if len(addr) <= 256][:MAX_ADDRS],
                    slot=peer.slot,
                )
                for peer in self._members
            ]
        )

    async def _on_ready(self, channel: Channel, addresses: list[str]) -> None:
        """Tell a new process everything."""
        await channel.send(Reveal(round=self._revealed))
        await channel.send(self._member_table())
        for name in list(self._recent):
            await channel.send(Published(blob=name.hex()))
        for request in list(self._open.values()):
            await channel.send(request.build())
        self._addresses = addresses
        self._ready.set()

    def _on_frame(self, message: AnyMessage, body: bytes) -> None:
        number = getattr(message, "request", None)
        request = self._open.get(number) if number is not None else None
        if request is not None:
            request.answer, request.body = message, body
            request.answered.set()

    async def _tell(self, message: Message) -> None:
        """Send to the process that runs; a new one is told everything anyway."""
        channel = self._supervisor.channel
        if channel is not None:
            try:
                await channel.send(message)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                logger.debug("event=not_told kind=%s", type(message).__name__)

    async def _request(
        self, number: int, build: Callable[[], Message], until: float
    ) -> tuple[AnyMessage | None, bytes]:
        """Ask the process, and every process after it, until there is an answer or time is up."""
        if self._broken is not None:
            raise NetworkDown(str(self._broken)) from self._broken
        request = self._open[number] = _Open(build)
        try:
            with trio.move_on_at(until):
                await self._tell(build())
                await request.answered.wait()
        finally:
            del self._open[number]
            if request.answer is None:
                with shielded(1):
                    await self._tell(Cancel(request=number))
        return request.answer, request.body


def verify_blob(store: BlobStore, blob: bytes) -> None:
    """Read a whole blob on disk and compare it with its id; see `NetworkClient.verify`."""
    path = store.path(blob)
    try:
        with path.open("rb") as file:
            found = manifest_of_file(file).id
    except FileNotFoundError:
        raise BlobMissing(f"blob {blob.hex()} is not in {store.directory}") from None
    except OSError as exc:
        raise BlobStoreError(f"cannot read {path}: {exc.strerror or exc}; check the disk") from exc
    if found != blob:
        store.delete(blob)
        raise BlobCorrupt(f"blob {blob.hex()} in {store.directory} was damaged on disk and is removed")
