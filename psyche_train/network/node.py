"""The libp2p host of a member: who may connect, streams to members, guards around the library."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import trio
from libp2p import new_host
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.peer.id import ID
from libp2p.rcmgr.manager import ResourceLimits, new_resource_manager
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.stream_muxer.yamux.yamux import Yamux
from multiaddr import Multiaddr

from psyche_train.network.identity import check_free, key_pair_of, peer_id_of, reported
from psyche_train.network.mux import MUX_PROTOCOL, Muxer, WindowPool
from psyche_train.network.mux.window import POOL_PER_HOST
from psyche_train.network.scopes import shielded
from psyche_train.network.session import NoiseSession
from psyche_train.network.streams import StreamBroken, close_quietly, describe
from psyche_train.network.transport import MemberNoise, MemberTCP, Traffic
from psyche_train.network.types import MAX_ADDRS, NOWHERE, Peer

logger = logging.getLogger(__name__)

OPEN_S = 12.0
COURTESY_S = 1.0
"""The member with the lower key dials at once; the other one waits this long for it."""
MAX_CONNECTIONS = 600

Handler = Callable[[Any, bytes], Awaitable[None]]


@dataclass(slots=True)
class Member:
    """One entry of the member table and what is known of its connection."""

    peer: Peer
    id: ID
    next_dial: float
    failures: int = 0
    dialling: bool = False
    error: str = "not dialled yet"
    extra_addrs: tuple[str, ...] = ()
    """Addresses that the member itself gossiped."""
    pinging: bool = False
    strikes: int = 0
    """Pings in a row without an answer."""


class Node:
    """One libp2p host. `run` owns every task; `peers`, `open_stream` and the rest may be used while it runs.

    Resource handling: leaving `run` closes the host inside its own context, since py-libp2p leaves sockets
    open otherwise. Error handling: nothing a peer sends ends `run`; what does (a bug, in us or in the
    library) ends the process, which is restarted.
    """

    def __init__(self, seed: bytes, listen: str, announce: Sequence[str] = ()) -> None:
        pair = key_pair_of(seed)
        self.key = bytes(pair.public_key.to_bytes())
        self.id = ID.from_pubkey(pair.public_key)
        self.traffic = Traffic()
        self.members: dict[bytes, Member] = {}
        self._by_id: dict[ID, Member] = {}
        self._announce = tuple(announce)
        self._listen = [] if listen == NOWHERE else [Multiaddr(listen)]
        self._refusals = 0
        self.kick = trio.Event()
        """Set when the member table changed."""
        self._nursery: trio.Nursery | None = None
        self.transport = MemberTCP(self.traffic)
        self.host: Any = new_host(
            key_pair=pair,
            sec_opt={NOISE: MemberNoise(pair, self._is_member, self._on_stranger)},
            muxer_opt=cast(Any, {MUX_PROTOCOL: partial(Muxer, pool=WindowPool(POOL_PER_HOST)), YAMUX: Yamux}),
            transports=[self.transport],
            listen_addrs=self._listen,
            connection_config=ConnectionConfig(
                min_connections=0, low_watermark=0, high_watermark=512, max_connections=MAX_CONNECTIONS
            ),
            resource_manager=new_resource_manager(
                limits=ResourceLimits(max_connections=2 * MAX_CONNECTIONS, max_streams=20_000),
                enable_metrics=False,
                enable_memory_limits=False,
                enable_circuit_breaker=False,
                enable_graceful_degradation=False,
            ),
            disable_identify_address_discovery=True,
        )
        self.swarm = cast(Any, self.host.get_network())
        self.swarm.retry_config = RetryConfig(max_retries=0)
        self.swarm.set_stream_handler(self._guarded(self.swarm.common_stream_handler))

    def handle(self, protocol: str, handler: Handler) -> None:
        """Serve a protocol by `handler(stream, member key)`; its exceptions only reset the stream."""

        async def serve(stream: Any) -> None:
            member = self._by_id.get(stream.muxed_conn.peer_id)
            broken = True
            try:
                if member is not None:
                    await handler(stream, member.peer.key)
                    broken = False
            except (StreamBroken, ValueError) as exc:
                logger.debug("event=stream_ended protocol=%s why=%s", protocol, describe(exc))
            finally:
                await close_quietly(stream, reset=broken)

        self.host.set_stream_handler(protocol, serve)

    async def run(self, *, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """Listen until cancelled; `Links` makes the connections.

        Raises:
            OSError: the listening address is in use or not ours.
        """
        for address in self._listen:
            check_free(address)
        async with self.host.run(listen_addrs=self._listen):
            try:
                # it dials whatever addresses peers claimed for themselves; ours come from the member table
                await self.swarm.auto_connector.stop()
                async with trio.open_nursery() as self._nursery:
                    task_status.started()
                    await trio.sleep_forever()
            finally:
                self._nursery = None
                with shielded(3):
                    await self.host.close()

    def addresses(self) -> list[str]:
        """Where this member can be dialled, without the `/p2p/` suffix."""
        if self._announce:
            return [address for address in self._announce if address != NOWHERE]
        return reported(self.host.get_transport_addrs()) if self._listen else []

    def set_members(self, peers: Sequence[Peer]) -> None:
        """Replace the member table; connections of keys that are no longer in it are closed."""
        wanted = {peer.key: peer for peer in peers if peer.key != self.key}
        for key in [key for key in self.members if key not in wanted]:
            member = self.members.pop(key)
            del self._by_id[member.id]
            if self._nursery is not None:
                self._nursery.start_soon(self.drop, member.id, "left_the_member_table")
        for key, peer in wanted.items():
            known = self.members.get(key)
            if known is not None:
                if set(peer.addrs) != set(known.peer.addrs):
                    known.next_dial, known.failures = trio.current_time(), 0
                known.peer = peer
                continue
            identity = peer_id_of(key)
            if identity is None:
                logger.warning("event=member_key_invalid key=%s slot=%d", key.hex(), peer.slot)
                continue
            member = Member(peer, identity, trio.current_time() + self.courtesy(key))
            self.members[key] = self._by_id[identity] = member
        self.kick.set()

    def connected(self, key: bytes) -> bool:
        """Whether there is a live connection to the member."""
        member = self.members.get(key)
        return member is not None and any(not c.is_closed for c in self.swarm.get_connections(member.id))

    def dialled(self) -> list[bytes]:
        """Members to which this side opened a connection: they can be dialled."""
        return [m.peer.key for m in self.members.values() if any(o for o in self._directions(m))]

    def dialled_us(self) -> bool:
        """Whether some member opened a connection to this side."""
        return any(not ours for m in self.members.values() for ours in self._directions(m))

    def _directions(self, member: Member) -> list[bool]:
        """For each live connection to a member, whether this side opened it."""
        live = (c for c in self.swarm.get_connections(member.id) if not c.is_closed)
        sessions = (getattr(c.muxed_conn, "secured_conn", None) for c in live)
        return [bool(s.is_initiator) for s in sessions if s is not None]

    def hosts_of(self, key: bytes) -> set[str]:
        """Hosts in a member's addresses, and those that its connections come from."""
        member = self.members.get(key)
        if member is None:
            return set()
        hosts = {a.split("/")[2] for a in (*member.peer.addrs, *member.extra_addrs) if a.count("/") >= 4}
        for connection in self.swarm.get_connections(member.id):
            session = getattr(connection.muxed_conn, "secured_conn", None)
            remote = session.get_remote_address() if session is not None else None
            if remote:
                hosts.add(remote[0])
        return hosts

    async def knock(self, key: bytes, address: Multiaddr) -> None:
        """Open a connection to a member, check its key, and close it again.

        Raises:
            Exception: of some kind of the library's: it cannot be dialled there.
        """
        member = self.members[key]
        raw = await self.transport.dial(address)
        try:
            session = await self.swarm.upgrader.upgrade_security(raw, True, member.id)
            await session.close()
        finally:
            with shielded(2):
                await raw.close()

    def member_of(self, identity: bytes) -> Member | None:
        """The member with these libp2p identity bytes."""
        return self._by_id.get(ID(identity))

    def learn_addresses(self, member: Member, addrs: Sequence[str]) -> None:
        """Addresses that a member says it has now; tried besides those of the chain."""
        fresh = tuple(addrs[:MAX_ADDRS])
        if set(fresh) - set(member.extra_addrs):
            member.extra_addrs = fresh
            member.next_dial = min(member.next_dial, trio.current_time() + self.courtesy(member.peer.key))

    async def open_stream(self, key: bytes, protocol: str) -> Any:
        """A stream to a connected member.

        Negotiation runs in a task of its own, so that a caller may be cancelled at once without leaving half
        an opened stream on the connection.

        Raises:
            StreamBroken: no connection, or the peer does not answer.
        """
        member = self.members.get(key)
        if member is None:
            raise StreamBroken("is not a member")
        if not self.connected(key) or self._nursery is None:
            raise StreamBroken(f"no connection ({member.error})")
        opening = _Opening()
        self._nursery.start_soon(self._open, member.id, protocol, opening)
        try:
            await opening.done.wait()
        except trio.Cancelled:
            opening.abandoned = True
            if opening.stream is not None:
                await close_quietly(opening.stream, reset=True)
            raise
        if opening.stream is None:
            raise StreamBroken(opening.error)
        return opening.stream

    async def _open(self, identity: ID, protocol: str, opening: _Opening) -> None:
        try:
            with trio.move_on_after(OPEN_S):
                stream = await self.host.new_stream(identity, [protocol])
                if opening.abandoned:
                    await close_quietly(stream, reset=True)
                else:
                    opening.stream = stream
        except Exception as exc:
            opening.error = f"refused a stream ({describe(exc)})"
        finally:
            opening.done.set()

    async def drop(self, identity: ID, why: str) -> None:
        """Close every connection of a peer at once, without waiting for it."""
        connections = list(self.swarm.get_connections(identity))
        for connection in connections:
            logger.info("event=connection_dropped peer=%s why=%s", identity, why)
            _abort(connection)
        with shielded(2):
            for connection in connections:
                try:
                    await connection.close()
                except Exception as exc:
                    logger.debug("event=close_failed peer=%s why=%s", identity, describe(exc))

    def courtesy(self, key: bytes) -> float:
        """Seconds to leave the other side for dialling first."""
        return 0.0 if self.key < key else COURTESY_S

    def _is_member(self, identity: ID) -> bool:
        return identity in self._by_id

    def _on_stranger(self, identity: ID) -> None:
        self._refusals += 1
        if self._refusals & (self._refusals - 1) == 0:  # 1, 2, 4, 8 ...: a flood does not fill the log
            logger.warning("event=stranger_refused peer=%s refusals=%d", identity, self._refusals)

    def _guarded(self, inner: Callable[[Any], Awaitable[None]]) -> Callable[[Any], Awaitable[None]]:
        """Any exception out of a stream handler would end the host: it ends the stream instead."""

        async def handle(stream: Any) -> None:
            try:
                await inner(stream)
            except Exception as exc:
                logger.info("event=handler_failed peer=%s why=%s", _remote(stream), describe(exc))
                await close_quietly(stream, reset=True)

        return handle


@dataclass(slots=True, eq=False)
class _Opening:
    """A stream that is being negotiated."""

    done: trio.Event = field(default_factory=trio.Event)
    stream: Any = None
    error: str = f"did not answer a new stream within {OPEN_S:.0f} s"
    abandoned: bool = False


def _abort(connection: Any) -> None:
    """Close the socket under a libp2p connection."""
    session = getattr(connection.muxed_conn, "secured_conn", None)
    if isinstance(session, NoiseSession):
        session.abort()


def _remote(stream: Any) -> str:
    return str(getattr(getattr(stream, "muxed_conn", None), "peer_id", "unknown"))
