"""The libp2p host of a member: connections to every other member, kept up, watched and guarded."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
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

from psyche_train.network.identity import check_free, dialable, key_pair_of, peer_id_of, reported
from psyche_train.network.scopes import shielded
from psyche_train.network.streams import StreamBroken, close_quietly, describe, read_exactly, write_all
from psyche_train.network.transport import GuardedSession, MemberNoise, MemberTCP, Traffic
from psyche_train.network.types import MAX_ADDRS, Peer
from psyche_train.network.wire import PING_BYTES, PING_PROTOCOL

logger = logging.getLogger(__name__)

DIAL_S = 10.0
PING_EVERY_S = 5.0
PING_S = 10.0
"""With `PING_EVERY_S`: a frozen peer is noticed after 15 s at most."""
OPEN_S = 12.0
RETRY_FIRST_S = 0.5
RETRY_CAP_S = 15.0
COURTESY_S = 2.0
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
    strikes: int = 0
    changed: trio.Event = field(default_factory=trio.Event)


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
        self._listen = Multiaddr(listen)
        self._refusals = 0
        self._kick = trio.Event()
        self.host: Any = new_host(
            key_pair=pair,
            sec_opt={NOISE: MemberNoise(pair, self._is_member, self._on_stranger)},
            muxer_opt=cast(Any, {YAMUX: Yamux}),
            transports=[MemberTCP(self.traffic)],
            listen_addrs=[self._listen],
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
        self.handle(PING_PROTOCOL, _answer_pings)

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
        """Listen and keep all members connected until cancelled.

        Raises:
            OSError: the listening address is in use or not ours.
        """
        check_free(self._listen)
        async with self.host.run(listen_addrs=[self._listen]):
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._keep_connected)
                    nursery.start_soon(self._keep_alive)
                    task_status.started()
                    await trio.sleep_forever()
            finally:
                with shielded(3):
                    await self.host.close()

    def addresses(self) -> list[str]:
        """Where this member can be dialled, without the `/p2p/` suffix."""
        return list(self._announce) or reported(self.host.get_transport_addrs())

    async def set_members(self, peers: Sequence[Peer]) -> None:
        """Replace the member table; connections of keys that are no longer in it are closed."""
        wanted = {peer.key: peer for peer in peers if peer.key != self.key}
        for key in [key for key in self.members if key not in wanted]:
            member = self.members.pop(key)
            del self._by_id[member.id]
            await self.drop(member.id, "left the member table")
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
            member = Member(peer, identity, trio.current_time() + self._courtesy(key))
            self.members[key] = self._by_id[identity] = member
        self._kick.set()

    def connected(self, key: bytes) -> bool:
        """Whether there is a live connection to the member."""
        member = self.members.get(key)
        return member is not None and any(not c.is_closed for c in self.swarm.get_connections(member.id))

    def member_of(self, identity: bytes) -> Member | None:
        """The member with these libp2p identity bytes."""
        return self._by_id.get(ID(identity))

    def learn_addresses(self, member: Member, addrs: Sequence[str]) -> None:
        """Addresses that a member says it has now; tried besides those of the chain."""
        fresh = tuple(addrs[:MAX_ADDRS])
        if set(fresh) - set(member.extra_addrs):
            member.extra_addrs = fresh
            member.next_dial = min(member.next_dial, trio.current_time() + self._courtesy(member.peer.key))

    async def open_stream(self, key: bytes, protocol: str) -> Any:
        """A stream to a connected member.

        Negotiation is never cut short by our own cancellation; if it does not end, the connection is dropped.

        Raises:
            StreamBroken: no connection, or the peer does not answer.
        """
        member = self.members.get(key)
        if member is None:
            raise StreamBroken("is not a member")
        if not self.connected(key):
            raise StreamBroken(f"no connection ({member.error})")
        await trio.lowlevel.checkpoint()
        with shielded(OPEN_S):
            try:
                return await self.host.new_stream(member.id, [protocol])
            except Exception as exc:
                raise StreamBroken(f"refused a stream ({describe(exc)})") from exc
        await self.drop(member.id, "did not answer a new stream")
        raise StreamBroken(f"did not answer a new stream within {OPEN_S:.0f} s")

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

    def _courtesy(self, key: bytes) -> float:
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

    async def _keep_connected(self) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                now = trio.current_time()
                for member in list(self.members.values()):
                    if (
                        not member.dialling
                        and now >= member.next_dial
                        and not self.connected(member.peer.key)
                    ):
                        member.dialling = True
                        nursery.start_soon(self._dial, member)
                self._kick = trio.Event()
                with trio.move_on_after(0.25):
                    await self._kick.wait()

    async def _dial(self, member: Member) -> None:
        errors: list[str] = []
        try:
            for addr in dict.fromkeys((*member.peer.addrs[:MAX_ADDRS], *member.extra_addrs)):
                if self.connected(member.peer.key) or member.peer.key not in self.members:
                    break
                try:
                    self.swarm.unblock_peer(member.id)
                    with trio.fail_after(DIAL_S):
                        await self.swarm.dial_addr(dialable(addr), member.id)
                    break
                except trio.TooSlowError:
                    errors.append(f"{addr}: no answer within {DIAL_S:.0f} s")
                except Exception as exc:
                    errors.append(f"{addr}: {describe(exc)}")
        finally:
            member.dialling = False
        now = trio.current_time()
        if self.connected(member.peer.key):
            member.failures, member.error = 0, "connected"
            member.next_dial = now + self._courtesy(member.peer.key) + random.uniform(0.1, 0.4)
            logger.info("event=connected slot=%d key=%s", member.peer.slot, member.peer.key.hex())
            return
        member.failures += 1
        delay_s = min(RETRY_CAP_S, RETRY_FIRST_S * 2 ** min(member.failures, 10)) * random.uniform(0.6, 1.0)
        member.next_dial = now + delay_s
        member.error = "; ".join(errors) or "it lists no address: it has to dial us"
        if member.failures & (member.failures - 1) == 0:
            logger.warning(
                "event=dial_failed slot=%d key=%s failures=%d why=%s "
                "hint=it may be down, behind NAT without a forwarded port, or not have us in its table",
                member.peer.slot, member.peer.key.hex(), member.failures, member.error,
            )  # fmt: skip

    async def _keep_alive(self) -> None:
        async with trio.open_nursery() as nursery:
            while True:
                await trio.sleep(PING_EVERY_S)
                for member in list(self.members.values()):
                    if self.connected(member.peer.key):
                        nursery.start_soon(self._check_alive, member)

    async def _check_alive(self, member: Member) -> None:
        """Ping a member; drop its connections if it neither answers nor sends anything else."""
        why = ""
        with trio.move_on_after(PING_S) as scope:
            try:
                stream = await self.open_stream(member.peer.key, PING_PROTOCOL)
                token = os.urandom(PING_BYTES)
                try:
                    await write_all(stream, token)
                    if await read_exactly(stream, PING_BYTES) != token:
                        why = "answered a ping with other bytes"
                finally:
                    await close_quietly(stream, reset=scope.cancel_called)
            except StreamBroken as exc:
                why = str(exc)
        if scope.cancelled_caught:
            why = f"no answer to a ping for {PING_S:.0f} s"
        if not why:
            member.strikes = 0
            return
        member.strikes += 1
        now = trio.current_time()
        for connection in list(self.swarm.get_connections(member.id)):
            if now - _last_read(connection) > PING_S or member.strikes > 3:
                member.error = why
                await self.drop(member.id, why.replace(" ", "_"))
                return


async def _answer_pings(stream: Any, _key: bytes) -> None:
    await write_all(stream, await read_exactly(stream, PING_BYTES))


def _abort(connection: Any) -> None:
    """Close the socket under a libp2p connection."""
    session = getattr(connection.muxed_conn, "secured_conn", None)
    if isinstance(session, GuardedSession):
        session.abort()


def _last_read(connection: Any) -> float:
    session = getattr(connection.muxed_conn, "secured_conn", None)
    return session.stream.last_read if isinstance(session, GuardedSession) else 0.0


def _remote(stream: Any) -> str:
    return str(getattr(getattr(stream, "muxed_conn", None), "peer_id", "unknown"))
