"""Updates before bulk, rare before common, few streams a peer: by the clock of the test, so the same every time."""

from __future__ import annotations

import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from psyche_train.network.sharing import FairShare, Rates, Slots

FRAME = 65_507
RATE = 1_000_000
"""Bytes a second of the link in these tests."""


class Link:
    """A link that moves one frame after another, in order of asking."""

    def __init__(self, rate: float = RATE) -> None:
        self._turn = trio.StrictFIFOLock()
        self._rate = rate

    async def move(self, count: int) -> None:
        async with self._turn:
            await trio.sleep(count / self._rate)


async def update(share: FairShare, link: Link, frames: int) -> None:
    with share.urgent():
        for _ in range(frames):
            await link.move(FRAME)
            share.moved(FRAME)


async def bulk(share: FairShare, link: Link, moved: list[int]) -> None:
    while True:
        await share.give_way(FRAME)
        await link.move(FRAME)
        moved[0] += 1


async def test_updates_keep_most_of_the_link_and_bulk_never_stops(autojump_clock: MockClock) -> None:
    for downloads in (1, 12):
        share, link = FairShare(), Link()
        moved = [[0] for _ in range(downloads)]
        async with trio.open_nursery() as nursery:
            for counter in moved:
                nursery.start_soon(bulk, share, link, counter)
            await trio.sleep(2)
            before = sum(counter[0] for counter in moved)
            assert before >= 0.95 * 2 * RATE / FRAME, "bulk has the whole link while nothing is urgent"
            began = trio.current_time()
            await update(share, link, 64)
            took_s = trio.current_time() - began
            # the frames of bulk that were queued on the link already, then one in WEIGHT
            alone_s = 64 * FRAME / RATE
            assert took_s <= 1.2 * alone_s + downloads * FRAME / RATE
            during = sum(counter[0] for counter in moved) - before
            assert during >= 64 // 8, "and is not starved by updates"
            await trio.sleep(2)
            shares = [counter[0] for counter in moved]
            assert max(shares) - min(shares) <= 2, "downloads take turns"
            nursery.cancel_scope.cancel()


async def test_update_to_a_stalled_peer_does_not_stop_bulk(autojump_clock: MockClock) -> None:
    share, link, moved = FairShare(), Link(), [0]
    async with trio.open_nursery() as nursery:
        with share.urgent():  # nothing moves: the peer is gone
            nursery.start_soon(bulk, share, link, moved)
            await trio.sleep(10)
            assert moved[0] >= 30
        await trio.sleep(1)
        assert moved[0] >= 30 + 14
        nursery.cancel_scope.cancel()
    assert not share.contended


async def test_cancelled_bulk_does_not_block_the_next(autojump_clock: MockClock) -> None:
    share = FairShare()
    with share.urgent():
        for _ in range(5):
            with trio.move_on_after(0.01):
                await share.give_way(FRAME)
        began = trio.current_time()
        await share.give_way(FRAME)
        assert trio.current_time() - began <= 0.26
    with trio.fail_after(0.001):
        await share.give_way(FRAME)


async def test_streams_go_to_updates_then_to_what_is_rare_then_in_order(autojump_clock: MockClock) -> None:
    slots, entered, let_go = Slots(4, 2), [], {}
    wanted = [  # (name, bulk, known holders)
        ("bulk of 9", True, 9), ("bulk of 1", True, 1), ("common", False, 8), ("rare", False, 1),
        ("bulk of 2", True, 2), ("second rare", False, 1), ("unknown", False, 0),
    ]  # fmt: skip

    async def work(name: str, is_bulk: bool, holders: int) -> None:
        let_go[name] = trio.Event()
        async with slots.take(b"peer", bulk=is_bulk, holders=lambda: holders):
            entered.append(name)
            await let_go[name].wait()

    async with trio.open_nursery() as nursery:
        for name in ("a", "b", "c", "d"):
            nursery.start_soon(work, name, False, 1)
            await wait_all_tasks_blocked()
        assert entered == ["a", "b", "c", "d"]
        for item in wanted:
            nursery.start_soon(work, *item)
            await wait_all_tasks_blocked()
        assert entered == ["a", "b", "c", "d"], "four streams at most"
        assert slots.load(b"peer") == 11
        assert slots.load(b"other") == 0
        del entered[:]
        for name in ("a", "b", "c", "d"):
            let_go[name].set()
            await wait_all_tasks_blocked()
        assert entered == ["unknown", "rare", "second rare", "common"]
        del entered[:]
        for name in ("unknown", "rare", "second rare"):
            let_go[name].set()
            await wait_all_tasks_blocked()
        assert entered == ["bulk of 1", "bulk of 2"], "bulk never has more than two"
        nursery.start_soon(work, "late update", False, 5)
        await wait_all_tasks_blocked()
        assert entered[-1] == "late update", "so that an update finds a stream free"
        let_go["bulk of 1"].set()
        await wait_all_tasks_blocked()
        assert entered[-1] == "bulk of 9"
        nursery.cancel_scope.cancel()
    assert slots.load(b"peer") == 0


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.sampled_from(["take", "cancel"])), max_size=30)
)
def test_no_stream_is_lost_or_taken_twice(steps: list[tuple[bool, int, str]]) -> None:
    async def main() -> None:
        slots, inside, most = Slots(3, 1), {False: 0, True: 0}, [0, 0]
        scopes: list[trio.CancelScope] = []

        async def work(is_bulk: bool, rank: int) -> None:
            with trio.CancelScope() as scope:
                scopes.append(scope)
                async with slots.take(b"p", bulk=is_bulk, holders=lambda: rank):
                    inside[is_bulk] += 1
                    most[0] = max(most[0], inside[False] + inside[True])
                    most[1] = max(most[1], inside[True])
                    try:
                        await trio.sleep(1 + rank)
                    finally:
                        inside[is_bulk] -= 1

        async with trio.open_nursery() as nursery:
            for is_bulk, rank, act in steps:
                nursery.start_soon(work, is_bulk, rank)
                await trio.sleep(0.3)
                if act == "cancel":
                    scopes[(7 * rank + 3) % len(scopes)].cancel()
        assert most[0] <= 3
        assert most[1] <= 1
        assert slots.load(b"p") == 0
        with trio.fail_after(1):
            async with slots.take(b"p", bulk=True, holders=lambda: 0):
                pass

    trio.run(main, clock=MockClock(autojump_threshold=0))


def test_rates_follow_what_peers_do() -> None:
    rates = Rates()
    assert rates.of(b"a") is None
    rates.note(b"a", 1_000_000, 1.0)
    rates.note(b"a", 1_000_000, 10.0)
    assert rates.of(b"a") == 550_000
    rates.forget(lambda peer: peer != b"a")
    assert rates.of(b"a") is None
