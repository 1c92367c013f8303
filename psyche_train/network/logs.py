"""Asking peers for the round records that this member missed."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import trio

from psyche_train.network.node import Node
from psyche_train.network.streams import StreamBroken, close_quietly, read_exactly, write_all
from psyche_train.network.wire import (
    LOG_PROTOCOL,
    MAX_LOG_BYTES,
    MAX_LOG_RECORDS,
    REPLY_BYTES,
    LogRequest,
    Reply,
    Status,
    WireError,
    unpack_records,
)
from psyche_train.records import RecordError, RoundRecord

logger = logging.getLogger(__name__)

MAX_PEERS = 5
"""Peers asked in one go."""
PAUSE_S = 0.5
GRACE_S = 2.0
"""After the first chain, the other peers have this long to offer theirs."""


async def fetch_chains(
    node: Node, after: bytes, *, deadline_s: float, peers: Sequence[bytes] = ()
) -> list[list[RoundRecord]]:
    """Candidate chains of records after a history, each from one peer, without duplicates; unverified.

    Peers are asked in turn, a few at once, until one of them knows more or time is up (then: an empty list).

    Args:
        peers: only these are asked; empty is all members. Those who are named answer once: an empty list comes
            at once if they know no more.
    """
    chains: dict[tuple[RoundRecord, ...], None] = {}

    async def ask(key: bytes, nursery: trio.Nursery) -> None:
        try:
            chain = tuple(await _ask(node, key, after))
            if chain:
                chains[chain] = None
                nursery.cancel_scope.deadline = trio.current_time() + GRACE_S
        except (StreamBroken, WireError, RecordError) as exc:
            logger.info("event=log_refused peer=%s why=%s", key.hex(), exc)

    turn = 0
    with trio.move_on_after(deadline_s):
        while not chains:
            connected = [k for k in node.members if node.connected(k) and (not peers or k in peers)]
            chosen = [connected[(turn + i) % len(connected)] for i in range(min(MAX_PEERS, len(connected)))]
            turn += MAX_PEERS
            async with trio.open_nursery() as nursery:
                for key in chosen:
                    nursery.start_soon(ask, key, nursery)
            if peers and turn >= len(connected):
                break
            if not chains:
                await trio.sleep(PAUSE_S)
    return [list(chain) for chain in chains]


async def _ask(node: Node, key: bytes, after: bytes) -> list[RoundRecord]:
    stream = await node.open_stream(key, LOG_PROTOCOL)
    clean = False
    try:
        await write_all(stream, LogRequest(after, MAX_LOG_RECORDS, MAX_LOG_BYTES).to_bytes())
        reply = Reply.from_bytes(await read_exactly(stream, REPLY_BYTES))
        if reply.status is not Status.OK:
            raise StreamBroken(reply.status.reason)
        if reply.first > MAX_LOG_RECORDS or reply.second > MAX_LOG_BYTES:
            raise WireError(f"log answer of {reply.first} records and {reply.second} bytes is too large")
        records = unpack_records(reply.first, await read_exactly(stream, reply.second))
        clean = True
        return [RoundRecord.from_bytes(record) for record in records]
    finally:
        await close_quietly(stream, reset=not clean)
