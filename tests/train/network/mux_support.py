"""Two muxers with a line in memory between them, and a peer that speaks single frames."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import trio
from libp2p.peer.id import ID

from psyche_train.network.mux import Muxer
from psyche_train.network.mux.frames import HEADER, Frame, FrameParser

LINE_BYTES = 100_000


class LineEnd:
    """A `Channel`: what is sent comes out of `other`, cut anywhere, and waits while it is full."""

    def __init__(self, is_initiator: bool, dice: random.Random) -> None:
        self.is_initiator = is_initiator
        self.other: LineEnd = self
        self.arrived = bytearray()
        self.ended = False
        self.reading = True
        self._dice = dice
        self._changed = trio.Event()

    async def receive(self) -> list[memoryview]:
        while not (self.arrived and self.reading):
            if self.ended:
                return []
            await self._changed.wait()
        count = self._dice.choice([1, 11, 12, 13, 1000, 70_000])
        data = bytes(self.arrived[:count])
        del self.arrived[:count]
        self.other.change()
        await trio.lowlevel.checkpoint()
        cut = self._dice.randrange(len(data) + 1)
        return [piece for piece in (memoryview(data)[:cut], memoryview(data)[cut:]) if len(piece)]

    async def send(self, parts: Iterable[bytes | memoryview]) -> None:
        for byte_string in parts:
            while len(self.other.arrived) > LINE_BYTES and not self.ended:
                await self._changed.wait()
            if self.ended:
                raise ConnectionResetError("the line is cut")
            self.other.arrived += byte_string
            self.other.change()
        await trio.lowlevel.checkpoint()

    def change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def abort(self) -> None:
        for end in (self, self.other):
            end.ended = True
            end.change()

    def get_remote_address(self) -> None:
        return None


def line(seed: int = 0) -> tuple[LineEnd, LineEnd]:
    dice = random.Random(seed)
    ends = LineEnd(True, dice), LineEnd(False, dice)
    ends[0].other, ends[1].other = ends[1], ends[0]
    return ends


@asynccontextmanager
async def two_muxers(seed: int = 0) -> AsyncIterator[tuple[Muxer, Muxer]]:
    muxers = [Muxer(end, ID(b"peer")) for end in line(seed)]
    async with trio.open_nursery() as nursery:
        for muxer in muxers:
            nursery.start_soon(muxer.start)
        yield muxers[0], muxers[1]
        for muxer in muxers:
            await muxer.close()


class RawPeer:
    """The other end of a muxer that was dialled by it; sends and sees frames."""

    def __init__(self, end: LineEnd) -> None:
        self.end = end
        self.parser = FrameParser()

    async def send(self, *frames: bytes) -> None:
        await self.end.send(frames)

    async def seen(self) -> list[Frame]:
        """Frames until the line ends or goes quiet; their bodies are copies."""
        frames: list[Frame] = []
        while True:
            pieces: list[Any] = []
            with trio.move_on_after(0.02):
                pieces = await self.end.receive()
            if not pieces:
                return frames
            for piece in pieces:
                frames += [f._replace(body=memoryview(bytes(f.body))) for f in self.parser.feed(piece)]


@asynccontextmanager
async def attacked() -> AsyncIterator[tuple[Muxer, RawPeer]]:
    """A muxer, and the hostile peer that dialled it."""
    theirs, ours = line()
    muxer = Muxer(ours, ID(b"peer"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(muxer.start)
        await muxer.event_started.wait()
        yield muxer, RawPeer(theirs)
        await muxer.close()


def frame(kind: int, flags: int, stream: int, value: int = 0, body: bytes = b"", version: int = 0) -> bytes:
    return HEADER.pack(version, kind, flags, stream, value) + body


def data(stream: int, body: bytes, flags: int = 0) -> bytes:
    return frame(0, flags, stream, len(body), body)
