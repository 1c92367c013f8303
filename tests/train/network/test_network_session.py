"""The Noise session's buffers: whatever sizes follow one another arrive whole, and a quiet session holds little."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.peer.id import ID

from psyche_train.network.session import MAX_PLAINTEXT, QUIET_BYTES, NoiseSession


class Wire:
    """A `BufferedStream` of which reads give what one write sent, cut anywhere."""

    def __init__(self, dice: random.Random) -> None:
        self.waiting = bytearray()
        self.largest_read = 0
        self._dice = dice

    async def send(self, data: memoryview) -> None:
        self.waiting += data

    async def receive_into(self, view: memoryview) -> int:
        assert len(view), "a full buffer cannot be read into"
        await trio.lowlevel.checkpoint()
        count = min(len(view), len(self.waiting), self._dice.choice([1, 17, 4096, 300_000]))
        view[:count] = self.waiting[:count]
        del self.waiting[:count]
        self.largest_read = max(self.largest_read, count)
        return count


def session_over(wire: Wire) -> NoiseSession:
    """A session that hears itself: it opens what it seals."""
    pair = create_new_key_pair()
    state = SimpleNamespace(k=bytes(32), n=0)
    protocol = SimpleNamespace(cipher_state_encrypt=state, cipher_state_decrypt=state)
    peer = ID.from_pubkey(pair.public_key)
    stock: Any = SimpleNamespace(
        local_peer=peer, local_private_key=pair.private_key, remote_peer=peer,
        remote_permanent_pubkey=pair.public_key, is_initiator=True,
        conn=SimpleNamespace(noise_state=SimpleNamespace(noise_protocol=protocol)),
    )  # fmt: skip
    stream: Any = wire
    return NoiseSession(stock, stream, stream)


def held(session: NoiseSession) -> int:
    return len(session._in.view) + len(session._out.view)


SIZES = st.one_of(
    st.integers(1, 200),
    st.integers(QUIET_BYTES - 40, QUIET_BYTES + 40),
    st.integers(MAX_PLAINTEXT - 3, MAX_PLAINTEXT + 3),
    st.just(5 * MAX_PLAINTEXT),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(SIZES, min_size=1, max_size=30), st.integers(0, 99))
def test_any_sequence_of_sizes_arrives(sizes: list[int], seed: int) -> None:
    async def both() -> None:
        dice = random.Random(seed)
        session = session_over(Wire(dice))
        for size in sizes:
            data = dice.randbytes(size)
            await session.send((data[: size // 2], data[size // 2 :]))
            assert await session.read(size) == data

    trio.run(both)


async def test_a_session_that_falls_quiet_gives_its_buffers_back() -> None:
    size = 1 << 20
    dice = random.Random(1)
    wire = Wire(dice)
    session = session_over(wire)
    assert held(session) <= 2 * QUIET_BYTES
    await session.send((bytes(size),))
    assert await session.read(size) == bytes(size)
    assert wire.largest_read > 100_000
    assert held(session) > 100 * QUIET_BYTES
    for _ in range(40):  # pings
        await session.send((b"ping",))
        assert await session.read(4) == b"ping"
    assert held(session) <= 2 * QUIET_BYTES
