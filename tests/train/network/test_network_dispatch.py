"""Hundreds of fetches at once: who is asked, and how often, by the clock of the test."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from psyche_train.blobs import BlobStore
from psyche_train.network import fetch
from psyche_train.network.fetch import Fetcher, FetchFailed
from psyche_train.network.gossip import BATCH_S, IDS_PER_MESSAGE, MESSAGES_S, Holders, batch_s
from psyche_train.network.wire import Reply, Status


def key_of(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


class Members:
    """A node whose members refuse at once, but for what they hold: that they never deliver, as on a slow line."""

    def __init__(self, count: int, holds: dict[bytes, bytes]) -> None:
        self.key = key_of(0)
        self.members = {key_of(n): SimpleNamespace(error="none") for n in range(1, count)}
        self.asked: Counter[bytes] = Counter()
        self.holds = holds

    def connected(self, key: bytes) -> bool:
        return True

    async def open_stream(self, key: bytes, protocol: str) -> Any:
        self.asked[key] += 1
        await trio.sleep(0.01)
        return Answer(self.holds.get(key))


class Answer:
    """A stream to a member that holds one blob, or none."""

    def __init__(self, held: bytes | None) -> None:
        self._held = held
        self._data = Reply(Status.NOT_FOUND).to_bytes()

    async def write(self, data: bytes) -> None:
        if self._held is not None and self._held in data:
            self._data = b""

    async def read(self, count: int) -> bytes:
        if not self._data:
            await trio.sleep_forever()
        data, self._data = self._data[:count], self._data[count:]
        return data

    async def close(self) -> None: ...

    async def reset(self) -> None: ...


async def test_fetches_that_wait_for_slow_holders_do_not_ask_everybody_all_the_time(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    count, seconds = 24, 6.0
    blobs = {key_of(n): hashlib.sha256(b"blob" + bytes([n])).digest() for n in range(1, count)}
    node = Members(count, blobs)
    fetcher = Fetcher(node, BlobStore(tmp_path), Holders())  # type: ignore[arg-type]

    async def one(holder: bytes) -> None:
        with pytest.raises(FetchFailed):
            await fetcher.fetch(
                blobs[holder], deadline_s=seconds, max_bytes=1000, holders=[holder], urgent=True
            )

    async with trio.open_nursery() as nursery:
        for holder in blobs:
            nursery.start_soon(one, holder)
    probes = seconds * fetch.MAX_PROBES / fetch.PROBE_PAUSE_S
    assert count - 1 < sum(node.asked.values()) <= count - 1 + probes
    assert fetcher.probes == 0


async def test_a_blob_of_which_nobody_told_is_found_with_the_last_member(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    last = key_of(15)
    node = Members(16, {last: hashlib.sha256(b"blob").digest()})
    fetcher = Fetcher(node, BlobStore(tmp_path), Holders())  # type: ignore[arg-type]
    with pytest.raises(FetchFailed):
        await fetcher.fetch(
            hashlib.sha256(b"blob").digest(), deadline_s=5.0, max_bytes=1000, holders=[], urgent=True
        )
    assert node.asked[last] == 1
    assert fetcher.probes == 0


async def test_waiting_fetches_rank_no_members(
    autojump_clock: MockClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Members(8, {key_of(1): hashlib.sha256(b"blob").digest()})
    fetcher = Fetcher(node, BlobStore(tmp_path), Holders())  # type: ignore[arg-type]
    ranked = 0
    rank = fetch._Job._candidates

    def counted(job: fetch._Job, everybody: bool) -> list[bytes]:
        nonlocal ranked
        ranked += 1
        return rank(job, everybody)

    monkeypatch.setattr(fetch._Job, "_candidates", counted)
    with pytest.raises(FetchFailed):
        await fetcher.fetch(
            hashlib.sha256(b"blob").digest(),
            deadline_s=0.9 * fetch.HEDGE_S,
            max_bytes=1000,
            holders=[key_of(1)],
            urgent=True,
        )
    assert ranked == 1, "the one worker that is allowed is at work"


def test_many_members_announce_less_often_so_that_each_can_read_it_all() -> None:
    for members in range(2, 257):
        assert members / batch_s(members) <= max(MESSAGES_S, members / BATCH_S if members <= 5 else 0)
        # what a member announces in a round of four minutes fits all the same
        assert batch_s(members) * -(-members // IDS_PER_MESSAGE) <= 150
    assert batch_s(4) == BATCH_S
