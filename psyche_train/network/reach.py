"""Can others dial this member? It asks those it is connected to, who try and say what happened.

A member that is asked opens one more TCP connection and checks, by a Noise handshake, that the asker's key is
at the other end. It dials only where it would dial this member anyway, or where the asker's own connection
comes from, and not often: nobody is made to knock on others' doors.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import trio
from multiaddr import Multiaddr

from psyche_train.network.identity import dialable
from psyche_train.network.node import Node
from psyche_train.network.streams import StreamBroken, close_quietly, describe, read_exactly, write_all
from psyche_train.network.types import MAX_ADDRS
from psyche_train.network.wire import (
    MAX_REACH_BYTES,
    REACH_BYTES,
    REACH_PROTOCOL,
    REPLY_BYTES,
    Reply,
    Status,
    WireError,
    pack_reach,
    reach_body_bytes,
    unpack_lines,
)

logger = logging.getLogger(__name__)

TRY_S = 6.0
"""For one address."""
ANSWER_S = 40.0
ASK_S = 15.0
ASK_AGAIN_S = 300.0
MEMBERS_ASKED = 3
MIN_GAP_S = 2.0
"""Between two requests of one member that are answered."""
MAX_AT_ONCE = 2


class Reach:
    """Answers other members, and keeps `dialable` up to date while `run` runs.

    Attributes:
        dialable: whether others can dial this member; None while nobody could be asked.
        answers: what each member that was asked last said about each address: empty, or why not.
    """

    def __init__(self, node: Node) -> None:
        self.dialable: bool | None = None
        self.answers: dict[bytes, dict[str, str]] = {}
        self._node = node
        self._last: dict[bytes, float] = {}
        self._at_once = trio.CapacityLimiter(MAX_AT_ONCE)
        node.handle(REACH_PROTOCOL, self._serve)

    @property
    def needs_push(self) -> bool:
        """Nobody can dial this member."""
        return self.dialable is False or not self._node.addresses()

    async def run(self) -> None:
        """Ask now and then, sooner after the addresses changed, until cancelled."""
        asked: list[str] = []
        while True:
            await trio.sleep(0.5)
            addresses = self._node.addresses()
            if not addresses:
                self.dialable = False
            elif self._node.dialled_us():
                self.dialable = True
            elif any(map(self._node.connected, self._node.members)):
                await self.ask(addresses)
                waits_s = ASK_S if self.dialable is None else ASK_AGAIN_S
                asked = addresses
                with trio.move_on_after(waits_s):
                    while self._node.addresses() == asked and not self._node.dialled_us():
                        await trio.sleep(0.5)

    async def ask(self, addresses: Sequence[str]) -> bool | None:
        """Ask some members to dial these addresses; sets and returns `dialable`."""
        self.answers = {}
        for key in [key for key in self._node.members if self._node.connected(key)][:MEMBERS_ASKED]:
            try:
                with trio.fail_after(ANSWER_S):
                    self.answers[key] = await self._ask_one(key, list(addresses)[:MAX_ADDRS])
            except (StreamBroken, WireError, trio.TooSlowError) as exc:
                logger.debug("event=reach_not_answered peer=%s why=%s", key.hex(), describe(exc))
        said = [why for reasons in self.answers.values() for why in reasons.values()]
        self.dialable = ("" in said) if said else None
        if self.dialable is False:
            logger.warning(
                "event=nobody_can_dial_us addresses=%s why=%s hint=forward the port, or go on: "
                "blobs are pushed to members that can be dialled",
                ",".join(addresses), said[0],
            )  # fmt: skip
        return self.dialable

    async def _ask_one(self, key: bytes, addresses: list[str]) -> dict[str, str]:
        stream = await self._node.open_stream(key, REACH_PROTOCOL)
        clean = False
        try:
            await write_all(stream, pack_reach(addresses))
            reply = Reply.from_bytes(await read_exactly(stream, REPLY_BYTES, idle_s=ANSWER_S))
            if reply.status is not Status.OK or reply.second > MAX_REACH_BYTES:
                raise StreamBroken(reply.status.reason)
            lines = unpack_lines(await read_exactly(stream, reply.second)) if reply.first else []
            if len(lines) != len(addresses) or reply.first != len(addresses):
                raise WireError(f"answered {len(lines)} lines about {len(addresses)} addresses")
            clean = True
            return dict(zip(addresses, lines, strict=True))
        finally:
            await close_quietly(stream, reset=not clean)

    async def _serve(self, stream: Any, key: bytes) -> None:
        size = reach_body_bytes(await read_exactly(stream, REACH_BYTES))
        addresses = unpack_lines(await read_exactly(stream, size)) if size else []
        now = trio.current_time()
        if len(addresses) > MAX_ADDRS or now < self._last.get(key, -MIN_GAP_S) + MIN_GAP_S:
            return await write_all(stream, Reply(Status.BUSY).to_bytes())
        self._last[key] = now
        for gone in [other for other in self._last if other not in self._node.members]:
            del self._last[gone]
        async with self._at_once:
            lines = [await self._try(key, address) for address in addresses]
        body = "\n".join(lines).encode("ascii", "replace")[:MAX_REACH_BYTES]
        head = Reply(Status.OK, len(lines), len(body))
        return await write_all(stream, head.to_bytes() + body)

    async def _try(self, key: bytes, address: str) -> str:
        """Why a member cannot be dialled at an address; empty if it can."""
        try:
            parsed = dialable(address)
            if _host(parsed) not in self._node.hosts_of(key):
                return "not an address of this member on chain, nor where it connects from"
            with trio.fail_after(TRY_S):
                await self._node.knock(key, parsed)
        except trio.TooSlowError:
            return f"no answer within {TRY_S:.0f} s"
        except ValueError as exc:
            return _printable(str(exc))
        except Exception as exc:
            return _printable(describe(exc))
        return ""


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() and c.isascii() else "?" for c in text[:200])


def _host(address: Multiaddr) -> str:
    return str(address).split("/")[2]
