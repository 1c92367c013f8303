"""The muxer: every byte in order whatever is cut, cancelled or slow; no frame costs more than its connection."""

from __future__ import annotations

import random
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from libp2p.stream_muxer.exceptions import (
    MuxedConnUnavailable,
    MuxedStreamClosed,
    MuxedStreamEOF,
    MuxedStreamError,
    MuxedStreamReset,
)

from psyche_train.network.mux import MuxStream
from psyche_train.network.mux import muxer as muxer_module
from psyche_train.network.mux.frames import (
    ACK,
    BASE_WINDOW,
    DATA,
    FIN,
    MAX_PAYLOAD,
    PING,
    RST,
    SYN,
    WINDOW,
    FrameParser,
    MuxProtocolError,
)
from psyche_train.network.mux.muxer import MAX_CONTROL, MAX_STREAMS
from psyche_train.network.mux.window import MAX_WINDOW, POOL_PER_CONNECTION, ReceiveWindow, WindowPool
from tests.train.network.mux_support import attacked, data, frame, two_muxers

ODD = settings(max_examples=40, deadline=None)


async def read_all(stream: MuxStream, dice: random.Random | None = None) -> bytes:
    """Until its end."""
    got = b""
    while True:
        for _ in range(dice.choice([0, 0, 0, 30]) if dice else 0):  # a slow reader
            await trio.lowlevel.checkpoint()
        try:
            got += await stream.read(dice.choice([1, 100, 40_000, 1 << 20]) if dice else None)
        except MuxedStreamEOF:
            return got


@ODD
@given(st.integers(0, 2**32))
async def test_streams_carry_prefixes_of_what_was_written_and_all_of_it_unless_cancelled(seed: int) -> None:
    dice = random.Random(seed)
    written: dict[bytes, bytes] = {}
    whole: set[bytes] = set()
    read: dict[bytes, bytes] = {}

    async def write(stream: MuxStream, name: bytes) -> None:
        content = dice.randbytes(dice.choice([0, 1, 5000, 150_000, 600_000]))
        written[name] = content
        await stream.write(name)
        at, patience = 0, dice.choice([2, 20, 10**9, 10**9])
        with trio.CancelScope() as scope:
            while at < len(content):
                count = dice.choice([1000, 65_507, 300_000])
                if patience < 10**9 and dice.random() < 0.5:
                    nursery.start_soon(cancel_after, scope, dice.randrange(patience))
                await stream.write(memoryview(content)[at : at + count])
                at += count
        if scope.cancelled_caught and dice.random() < 0.5:
            return await stream.reset()
        if not scope.cancelled_caught:
            whole.add(name)
        return await stream.close()

    async def cancel_after(scope: trio.CancelScope, steps: int) -> None:
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        scope.cancel()

    async def serve(muxer: Any) -> None:
        async with trio.open_nursery() as handlers:
            while True:
                try:
                    handlers.start_soon(take, await muxer.accept_stream())
                except MuxedConnUnavailable:
                    return

    async def take(stream: MuxStream) -> None:
        name = b""
        try:
            while len(name) < 4:
                name += await stream.read(4 - len(name))
            read[name] = b""
            read[name] = await read_all(stream, dice)
        except (MuxedStreamReset, MuxedStreamEOF):
            pass
        await stream.close()

    async def run(muxer: Any, number: int) -> None:
        stream = await muxer.open_stream()
        with trio.CancelScope():
            await write(stream, b"%04d" % number)

    with trio.fail_after(60):
        async with two_muxers(seed) as muxers, trio.open_nursery() as nursery:
            for muxer in muxers:
                nursery.start_soon(serve, muxer)
            async with trio.open_nursery() as writers:
                for number in range(dice.randrange(1, 9)):
                    writers.start_soon(run, dice.choice(muxers), number)
            for muxer in muxers:
                assert not muxer.why_closed
            # the connection is whole: one more stream in each direction carries everything
            for muxer, number in zip(muxers, (9998, 9999), strict=True):
                stream = await muxer.open_stream()
                written[b"%04d" % number] = b"z" * 200_000
                whole.add(b"%04d" % number)
                await stream.write(b"%04d" % number)
                await stream.write(b"z" * 200_000)
                await stream.close()
            while any(read.get(name) != written[name] for name in whole) or any(
                muxer._streams for muxer in muxers
            ):
                await trio.lowlevel.checkpoint()
            for muxer in muxers:
                assert muxer._pool.left == POOL_PER_CONNECTION
                await muxer.close()
    for name, got in read.items():
        assert written[name].startswith(got)


@ODD
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.builds(
                frame,
                st.integers(0, 4),
                st.integers(0, 15),
                st.integers(0, 6),
                st.sampled_from([0, 1, 100, BASE_WINDOW, 2**31, 2**32 - 1]),
                st.binary(max_size=120),
            ),
            st.builds(data, st.integers(1, 9), st.binary(max_size=200), st.integers(0, 15)),
        ),
        max_size=60,
    )
)
async def test_any_bytes_close_the_connection_at_worst(parts: list[bytes]) -> None:
    async with attacked() as (muxer, peer):
        try:
            for part in parts:
                await peer.send(part)
        except ConnectionResetError:
            assert muxer.why_closed
        while peer.end.other.arrived and not muxer.why_closed:
            await trio.lowlevel.checkpoint()
        assert len(muxer._streams) <= MAX_STREAMS
        assert len(muxer._control) <= MAX_CONTROL


@given(st.data())
def test_frames_are_the_same_however_they_are_cut(draw: st.DataObject) -> None:
    bodies = draw.draw(st.lists(st.binary(max_size=50), max_size=8))
    flags = draw.draw(st.lists(st.sampled_from([0, SYN, FIN, RST, SYN | FIN]), min_size=8, max_size=8))
    raw = b"".join(data(2 * i + 1, b, flags[i]) + frame(PING, ACK, 0, i) for i, b in enumerate(bodies))
    whole = [(f.kind, f.flags, f.stream, bytes(f.body)) for f in FrameParser().feed(memoryview(raw))]
    parser, joined, at = FrameParser(), [], 0
    while at < len(raw):
        count = draw.draw(st.integers(1, 30))
        for f in parser.feed(memoryview(raw)[at : at + count]):
            last = joined[-1] if joined else None
            if f.kind == DATA and last and last[0] == DATA and last[2] == f.stream and not f.flags & SYN:
                joined[-1] = (DATA, last[1] | f.flags, f.stream, last[3] + bytes(f.body))
            else:
                joined.append((f.kind, f.flags, f.stream, bytes(f.body)))
        at += count
    assert joined == whole


OPEN = frame(WINDOW, SYN, 1)


@pytest.mark.parametrize(
    ("frames", "why"),
    [
        ([frame(DATA, 0, 1, version=1)], "version 1"),
        ([frame(3, 0, 0)], "kind 3"),
        ([frame(DATA, 2, 1)], "flags 0x2"),
        ([frame(DATA, 0, 0, 5)], "for stream 0"),
        ([frame(PING, SYN, 1)], "kind 2 for stream 1"),
        ([frame(PING, SYN | ACK, 0)], "ping with flags"),
        ([frame(DATA, SYN, 1, 2**32 - 1)], "data frame of 4294967295 bytes"),
        ([frame(DATA, SYN, 2)], "opens stream 2"),
        ([OPEN, OPEN], "opens stream 1 after 1"),
        ([frame(WINDOW, SYN, 7), frame(WINDOW, SYN, 5)], "opens stream 5 after 7"),
        ([frame(DATA, SYN | FIN, 1), frame(WINDOW, SYN, 1)], "opens stream 1 after 1"),
        ([data(1, b"x")], "stream 1, which was never opened"),
        ([frame(WINDOW, RST, 4)], "stream 4, which was never opened"),
        ([OPEN, frame(DATA, FIN, 1), data(1, b"x")], "after the end"),
        ([OPEN, frame(DATA, FIN, 1), frame(DATA, FIN, 1)], "ended twice"),
        ([OPEN, data(1, bytes(MAX_PAYLOAD)), data(1, bytes(30))], "1 bytes beyond the window of 65536"),
        ([OPEN, frame(WINDOW, 0, 1, 2**32 - 1)], "a send window of"),
    ],
)
async def test_frames_that_are_not_allowed_close_the_connection(frames: list[bytes], why: str) -> None:
    async with attacked() as (muxer, peer):

        async def accept() -> None:
            while True:
                await muxer.accept_stream()

        await peer.send(*frames)
        with trio.fail_after(5):
            with pytest.raises(MuxedConnUnavailable, match="broke the protocol"):
                await accept()
        assert why in muxer.why_closed
        with pytest.raises(MuxedConnUnavailable):
            await muxer.open_stream()


async def test_floods_of_opens_and_pings_are_bounded() -> None:
    async with attacked() as (muxer, peer):
        await peer.send(*(frame(WINDOW, SYN, 2 * i + 1) for i in range(MAX_STREAMS + 50)))
        refused = [f.stream for f in await peer.seen() if f.flags & RST]
        assert refused == [2 * i + 1 for i in range(MAX_STREAMS, MAX_STREAMS + 50)]
        assert len(muxer._streams) == MAX_STREAMS
        # resetting them makes no room while this side has not got rid of them
        await peer.send(*(frame(WINDOW, RST, 2 * i + 1) for i in range(MAX_STREAMS)))
        await peer.seen()
        await peer.send(frame(WINDOW, SYN, 1001))
        assert [(f.stream, f.flags) for f in await peer.seen()] == [(1001, RST)]
        with trio.move_on_after(0.1):
            await muxer.accept_stream()  # finds none alive
        await peer.send(frame(WINDOW, SYN, 1003))
        assert await peer.seen() == []
        assert (await muxer.accept_stream()).stream_id == 1003

        peer.end.reading = False
        with pytest.raises(ConnectionResetError):
            await peer.send(*(frame(PING, SYN, 0, i) for i in range(100_000)))
        assert f"{MAX_CONTROL} answers wait to be read" in muxer.why_closed


async def test_many_tiny_frames_take_no_more_memory_than_their_bytes() -> None:
    async with attacked() as (muxer, peer):
        await peer.send(OPEN, *(data(1, b"%d" % (i % 10)) for i in range(20_000)))
        stream = await muxer.accept_stream()
        got = b""
        while len(got) < 20_000:
            got += await stream.read()
            assert len(stream._chunks) < 3
        assert got == b"0123456789" * 2000


async def test_frames_of_streams_that_we_reset_are_ignored() -> None:
    async with attacked() as (muxer, peer):
        await peer.send(OPEN)
        await (await muxer.accept_stream()).reset()
        assert [f.flags for f in await peer.seen() if f.stream == 1] == [RST]
        await peer.send(data(1, b"late"), frame(WINDOW, 0, 1, 5), frame(DATA, FIN, 1), frame(WINDOW, SYN, 3))
        assert (await muxer.accept_stream()).stream_id == 3
        assert not muxer.why_closed


async def test_small_writes_pass_a_large_one_and_large_ones_share() -> None:
    async with attacked() as (muxer, peer):
        peer.end.reading = False
        streams = [await muxer.open_stream() for _ in range(3)]
        await peer.send(*(frame(WINDOW, 0, s.stream_id, 16 << 20) for s in streams))
        big = bytes(4 << 20)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(streams[0].write, big)
            while len(peer.end.arrived) < 100_000:  # one batch is on its way, the line is full
                await trio.lowlevel.checkpoint()
            nursery.start_soon(streams[1].write, big)
            nursery.start_soon(streams[2].write, b"urgent")
            await trio.testing.wait_all_tasks_blocked()
            peer.end.reading = True
            peer.end.change()
            order = [f.stream for f in await peer.seen() if f.kind == DATA and f.value]
            nursery.cancel_scope.cancel()
        first, second, small = (s.stream_id for s in streams)
        order = [s for i, s in enumerate(order) if not i or s != order[i - 1]]  # frames may come in parts
        assert order[:2] == [first, small], "the small write waits for no more than the batch on its way"
        assert order[2:8] in ([first, second] * 3, [second, first] * 3)


async def test_half_close_reset_and_closing() -> None:
    async with two_muxers() as (one, two):
        here = await one.open_stream()
        await here.write(b"question")
        await here.close_write()
        there = await two.accept_stream()
        assert await read_all(there) == b"question"
        with pytest.raises(MuxedStreamClosed):
            await here.write(b"more")
        await there.write(b"answer")
        await there.close()
        assert await read_all(here) == b"answer"
        assert here.is_closed
        await here.close()

        here = await one.open_stream()
        await here.write(b"x" * 100)
        there = await two.accept_stream()
        await there.reset()
        with trio.fail_after(5), pytest.raises(MuxedStreamReset, match="the peer reset"):
            await here.read(1)
        with pytest.raises(MuxedStreamReset):
            await here.write(b"x")

        here = await one.open_stream()
        await here.write(b"kept")
        there = await two.accept_stream()
        while sum(map(len, there._chunks)) < 4:
            await trio.lowlevel.checkpoint()
        await one.close()
        assert await there.read() == b"kept"
        with trio.fail_after(5), pytest.raises(MuxedStreamReset, match="the peer closed the connection"):
            await there.read()
        with pytest.raises(MuxedStreamReset, match="closed here"):
            await here.read()


async def test_silent_peer_a_stalled_write_and_abandoned_streams_end(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with two_muxers() as (one, two):
        here = await one.open_stream()
        began = trio.current_time()
        with pytest.raises(MuxedStreamError, match="took no bytes for 15 s"):
            await here.write(bytes(1 << 20))
        assert trio.current_time() - began == pytest.approx(15, abs=0.1)
        await (await one.open_stream()).close()  # and the other side never ends it
        await trio.sleep(300)
        assert set(one._streams) == {here.stream_id}
        assert not one.why_closed
        assert not two.why_closed
    async with attacked() as (muxer, _):
        began = trio.current_time()
        with pytest.raises(MuxedConnUnavailable, match="nothing came for 30 s"):
            await muxer.accept_stream()
        assert trio.current_time() - began <= muxer_module.DEAD_S + muxer_module.PING_EVERY_S


@given(st.lists(st.tuples(st.integers(0, 300_000), st.floats(0, 1)), max_size=60), st.integers(0, 40 << 20))
def test_windows_never_exceed_their_pool(steps: list[tuple[int, float]], room: int) -> None:
    host = WindowPool(room)
    windows = [ReceiveWindow(WindowPool(POOL_PER_CONNECTION, host), 0.0) for _ in range(2)]
    open_for = [BASE_WINDOW, BASE_WINDOW]
    unread = [0, 0]
    now = 0.0
    for i, (count, wait) in enumerate(steps):
        which, now = i % 2, now + wait
        sent = min(count, open_for[which])
        windows[which].received(sent)
        open_for[which] -= sent
        unread[which] += sent
        taken = unread[which] // (1 + i % 3)
        unread[which] -= taken
        open_for[which] += windows[which].read(taken, now, 0.1)
        assert open_for[which] + unread[which] <= windows[which].size <= MAX_WINDOW
        assert host.left == room - sum(w.size - BASE_WINDOW for w in windows) >= 0
    with pytest.raises(MuxProtocolError):
        windows[0].received(open_for[0] + windows[0].size + 1)
    for window in windows:
        window.release()
    assert host.left == room


def test_window_that_is_the_limit_grows_to_16_mib_and_one_that_is_not_stays() -> None:
    fast, slow = (ReceiveWindow(WindowPool(POOL_PER_CONNECTION), 0.0) for _ in range(2))
    for step in range(1, 30):
        for window, seconds in ((fast, 0.1), (slow, 1.0)):
            half = window.size // 2
            window.received(half)
            window.read(half, step * seconds, 0.1)
    assert fast.size == MAX_WINDOW
    assert slow.size == BASE_WINDOW
