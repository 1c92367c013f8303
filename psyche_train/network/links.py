"""Keeping every member connected: dialling, and noticing connections that are dead or frozen."""

from __future__ import annotations

import logging
import os
import random
from typing import Any

import trio

from psyche_train.network.identity import dialable
from psyche_train.network.node import Member, Node
from psyche_train.network.session import NoiseSession
from psyche_train.network.streams import StreamBroken, close_quietly, describe, read_exactly, write_all
from psyche_train.network.types import MAX_ADDRS
from psyche_train.network.wire import PING_BYTES, PING_PROTOCOL

logger = logging.getLogger(__name__)

DIAL_S = 10.0
PING_EVERY_S = 5.0
PING_S = 10.0
"""With `PING_EVERY_S`: a frozen peer is noticed after 15 s at most."""
RETRY_FIRST_S = 0.5
RETRY_CAP_S = 15.0
MAX_STRIKES = 6
"""Pings without an answer before a connection that still carries bytes is given up."""


class Links:
    """Dials and pings the members of a node while `run` runs."""

    def __init__(self, node: Node) -> None:
        self.node = node
        node.handle(PING_PROTOCOL, _answer_pings)

    async def run(self) -> None:
        """Dial, dial again, and ping, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.keep_connected)
            nursery.start_soon(self.keep_alive)

    async def keep_connected(self) -> None:
        """Dial every member that is not connected and whose time has come."""
        async with trio.open_nursery() as nursery:
            while True:
                now = trio.current_time()
                for member in list(self.node.members.values()):
                    if (
                        not member.dialling
                        and now >= member.next_dial
                        and not self.node.connected(member.peer.key)
                    ):
                        member.dialling = True
                        nursery.start_soon(self._dial, member)
                self.node.kick = trio.Event()
                with trio.move_on_after(0.25):
                    await self.node.kick.wait()

    async def _dial(self, member: Member) -> None:
        errors: list[str] = []
        try:
            for addr in dict.fromkeys((*member.peer.addrs[:MAX_ADDRS], *member.extra_addrs)):
                if self.node.connected(member.peer.key) or member.peer.key not in self.node.members:
                    break
                try:
                    self.node.swarm.unblock_peer(member.id)
                    with trio.fail_after(DIAL_S):
                        await self.node.swarm.dial_addr(dialable(addr), member.id)
                    break
                except trio.TooSlowError:
                    errors.append(f"{addr}: no answer within {DIAL_S:.0f} s")
                except Exception as exc:
                    errors.append(f"{addr}: {describe(exc)}")
        finally:
            member.dialling = False
        now = trio.current_time()
        if self.node.connected(member.peer.key):
            member.failures, member.error = 0, "connected"
            member.next_dial = now + self.node.courtesy(member.peer.key) + random.uniform(0.1, 0.4)
            logger.info("event=connected slot=%d key=%s", member.peer.slot, member.peer.key.hex())
            return
        if not errors and not member.peer.addrs and not member.extra_addrs:
            member.error = "it lists no address: it has to dial us"
            member.next_dial = now + RETRY_CAP_S
            return
        member.failures += 1
        delay_s = min(RETRY_CAP_S, RETRY_FIRST_S * 1.6 ** min(member.failures, 10)) * random.uniform(0.6, 1.0)
        member.next_dial = now + delay_s
        member.error = "; ".join(errors) or "left the member table"
        if member.failures & (member.failures - 1) == 0:
            logger.warning(
                "event=dial_failed slot=%d key=%s failures=%d why=%s "
                "hint=it may be down, behind NAT without a forwarded port, or not have us in its table",
                member.peer.slot, member.peer.key.hex(), member.failures, member.error,
            )  # fmt: skip

    async def keep_alive(self) -> None:
        """Ping every connected member."""
        async with trio.open_nursery() as nursery:
            while True:
                await trio.sleep(PING_EVERY_S)
                for member in list(self.node.members.values()):
                    if self.node.connected(member.peer.key) and not member.pinging:
                        nursery.start_soon(self._check_alive, member)

    async def _check_alive(self, member: Member) -> None:
        """Ping a member; drop its connections if it neither answers nor sends anything else."""
        why = f"no answer to a ping for {PING_S:.0f} s"
        member.pinging = True
        try:
            with trio.move_on_after(PING_S):
                why = await self._ping(member.peer.key)
        finally:
            member.pinging = False
        if not why:
            member.strikes = 0
            return
        member.strikes += 1
        now = trio.current_time()
        connections = self.node.swarm.get_connections(member.id)
        if member.strikes > MAX_STRIKES or all(now - _last_read(c) > PING_S for c in connections):
            member.error = why
            await self.node.drop(member.id, why.replace(" ", "_"))

    async def _ping(self, key: bytes) -> str:
        """Why a member did not answer a ping; empty if it did."""
        token = os.urandom(PING_BYTES)
        try:
            stream = await self.node.open_stream(key, PING_PROTOCOL)
            answered = False
            try:
                await write_all(stream, token)
                answered = await read_exactly(stream, PING_BYTES) == token
            finally:
                await close_quietly(stream, reset=not answered)
        except StreamBroken as exc:
            return str(exc)
        return "" if answered else "answered a ping with other bytes"


async def _answer_pings(stream: Any, _key: bytes) -> None:
    await write_all(stream, await read_exactly(stream, PING_BYTES))


def _last_read(connection: Any) -> float:
    session = getattr(connection.muxed_conn, "secured_conn", None)
    return session.stream.last_read if isinstance(session, NoiseSession) else 0.0
