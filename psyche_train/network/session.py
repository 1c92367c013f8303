"""A Noise session that works on many messages at once; on the wire it is py-libp2p's own.

The handshake is the library's. Of what it leaves behind only the two keys are taken
(`tests/train/network/test_network_contract.py` says so when that moves); from there on messages are sealed and
opened here, in place, in one buffer for each direction, and one read or write of the socket carries several.
Message: length u16 big-endian | ciphertext | tag[16]; nonce: four zero bytes, counter u64 little-endian
(https://noiseprotocol.org/noise.html, section 12; https://github.com/libp2p/specs/tree/master/noise).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import trio
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from libp2p.io.exceptions import ConnectionClosedError
from libp2p.security.secure_session import SecureSession

if TYPE_CHECKING:
    from psyche_train.network.transport import BufferedStream

TAG_BYTES = 16
MAX_MESSAGE = 65_535
MAX_PLAINTEXT = MAX_MESSAGE - TAG_BYTES
_LENGTH_BYTES = 2
MESSAGES_AT_ONCE = 4
_BUFFER_BYTES = MESSAGES_AT_ONCE * (_LENGTH_BYTES + MAX_MESSAGE)
QUIET_BYTES = 4096
"""Buffer of a direction in which only pings, requests and announcements go."""
_QUIET_TURNS = 16
"""After so many small reads or writes in a row a direction gives its large buffer back."""


class _Buffer:
    """Bytes of one direction: little while it is quiet, room for several messages while much goes through."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(QUIET_BYTES))
        self._quiet = 0

    def fit(self, count: int, used: int = 0) -> None:
        """Prepare for `count` bytes, of which the first `used` are kept."""
        large = len(self.view) > QUIET_BYTES
        self._quiet = 0 if count >= QUIET_BYTES else self._quiet + 1
        if count >= QUIET_BYTES and not large:
            self._replace(_BUFFER_BYTES, used)
        elif large and self._quiet >= _QUIET_TURNS:
            self._replace(QUIET_BYTES, used)

    def _replace(self, size: int, used: int) -> None:
        # whoever holds pieces of the old one keeps them
        kept, self.view = self.view[:used], memoryview(bytearray(size))
        self.view[:used] = kept


class Cipher:
    """ChaCha20-Poly1305 with Noise's counter as nonce, for one direction."""

    def __init__(self, key: bytes, count: int = 0) -> None:
        self._cipher = ChaCha20Poly1305(key)
        self._count = count

    def seal(self, view: memoryview) -> None:
        """Encrypt in place; the last 16 bytes of `view` become the tag."""
        self._cipher.encrypt_into(self._nonce(), view[:-TAG_BYTES], None, view)

    def open(self, view: memoryview) -> memoryview:
        """Decrypt in place and return the plaintext; InvalidTag if it was not sealed with this key and count."""
        plain = view[:-TAG_BYTES]
        self._cipher.decrypt_into(self._nonce(), view, None, plain)
        return plain

    def _nonce(self) -> bytes:
        count = self._count
        self._count = count + 1
        return b"\0\0\0\0" + count.to_bytes(8, "little")


def ciphers_of(session: Any) -> tuple[Cipher, Cipher]:
    """The ciphers for sending and receiving of a stock session whose handshake has just ended."""
    noise = session.conn.noise_state.noise_protocol
    sending, receiving = noise.cipher_state_encrypt, noise.cipher_state_decrypt
    return Cipher(sending.k, sending.n), Cipher(receiving.k, receiving.n)


class NoiseSession(SecureSession):  # type: ignore[misc, unused-ignore]
    """A secured connection. `receive` and `send` are for the muxer, `read` and `write` for everything else.

    A batch that was sent in part ends the connection, since nothing could follow it; `write` may be cancelled
    before it begins only.
    """

    def __init__(self, session: SecureSession, raw: Any, stream: BufferedStream) -> None:
        super().__init__(
            local_peer=session.local_peer,
            local_private_key=session.local_private_key,
            remote_peer=session.remote_peer,
            remote_permanent_pubkey=session.remote_permanent_pubkey,
            is_initiator=session.is_initiator,
            conn=raw,
        )
        self.stream = stream
        self._sealing, self._opening = ciphers_of(session)
        self._plain: deque[memoryview] = deque()
        """Opened but not read yet."""
        self._in = _Buffer()
        self._from, self._to = 0, 0
        """The bytes of `_in` that are still sealed."""
        self._out = _Buffer()
        self._came = 0
        """Bytes that lay in `_in` after the last read of the socket."""
        self._sending = trio.Lock()

    async def receive(self) -> list[memoryview]:
        """The next plaintext, valid until the next call; empty at the end of the connection.

        Raises:
            ConnectionClosedError: the socket broke, or a message was not sealed by the peer.
        """
        if self._plain:
            pieces = list(self._plain)
            self._plain.clear()
            return pieces
        while True:
            left = self._to - self._from
            view = self._in.view
            view[:left] = view[self._from : self._to]
            self._from, self._to = 0, left
            self._in.fit(max(left, self._came), left)
            count = await self.stream.receive_into(self._in.view[left:])
            if not count:
                return []
            self._to = self._came = left + count
            pieces = list(self._opened())
            if pieces:
                return pieces

    async def send(self, parts: Sequence[bytes | memoryview]) -> None:
        """Send plaintext, all of it.

        Raises:
            ConnectionClosedError: the socket broke or was closed.
        """
        async with self._sending:
            try:
                for filled in self._sealed(parts):
                    await self.stream.send(filled)
            except BaseException:
                self.abort()
                raise

    async def read(self, n: int | None = None) -> bytes:
        """Exactly `n` bytes, fewer only at the end; or some, without `n`."""
        if n == 0:
            return b""
        parts: list[memoryview | bytes] = []
        missing = n
        while missing is None or missing > 0:
            if not self._plain:
                # what was taken so far lies in the buffer that is filled again now
                parts = [bytes(part) for part in parts]
                self._plain.extend(await self.receive())
                if not self._plain:
                    if not parts:
                        raise ConnectionClosedError("the peer closed the connection", transport="tcp")
                    break
            piece = self._plain.popleft()
            if missing is None:
                return bytes(piece)
            if len(piece) > missing:
                self._plain.appendleft(piece[missing:])
                piece = piece[:missing]
            missing -= len(piece)
            parts.append(piece)
        return bytes(parts[0]) if len(parts) == 1 else b"".join(parts)

    async def write(self, data: bytes) -> None:
        """Send `data`, whoever is cancelled meanwhile; the watchdog's `abort` ends it if the peer is frozen."""
        await trio.lowlevel.checkpoint_if_cancelled()
        with trio.CancelScope(shield=True):
            await self.send((data,))

    def abort(self) -> None:
        """Close the socket at once, without a word: every task that reads or writes it fails now."""
        self.stream.abort()

    def _opened(self) -> Iterator[memoryview]:
        view = self._in.view
        while self._to - self._from >= _LENGTH_BYTES:
            start = self._from + _LENGTH_BYTES
            stop = start + (view[start - 2] << 8 | view[start - 1])
            if stop > self._to:
                return
            if stop - start < TAG_BYTES:
                raise ConnectionClosedError(f"a Noise message of {stop - start} bytes", transport="tcp")
            try:
                plain = self._opening.open(view[start:stop])
            except InvalidTag:
                raise ConnectionClosedError(
                    "a Noise message that the peer did not seal", transport="tcp"
                ) from None
            self._from = stop
            if len(plain):
                yield plain

    def _sealed(self, parts: Sequence[bytes | memoryview]) -> Iterator[memoryview]:
        """Buffers full of messages, each valid until the next one is asked for."""
        self._out.fit(sum(map(len, parts)) + _LENGTH_BYTES + TAG_BYTES)
        out = self._out.view
        begin, at = 0, _LENGTH_BYTES
        """Of the message that is being filled."""
        for part in parts:
            rest = memoryview(part)
            while len(rest):
                room = begin + _LENGTH_BYTES + MAX_PLAINTEXT - at
                if not room:
                    begin = self._seal(begin, at)
                    if begin + _LENGTH_BYTES + MAX_MESSAGE > len(out):
                        yield out[:begin]
                        begin = 0
                    at = begin + _LENGTH_BYTES
                    continue
                piece = rest[:room]
                out[at : at + len(piece)] = piece
                at += len(piece)
                rest = rest[len(piece) :]
        if at > begin + _LENGTH_BYTES:
            begin = self._seal(begin, at)
        if begin:
            yield out[:begin]

    def _seal(self, begin: int, at: int) -> int:
        """Seal the message whose plaintext ends at `at`; returns where the next one begins."""
        end = at + TAG_BYTES
        start = begin + _LENGTH_BYTES
        self._out.view[begin:start] = (end - start).to_bytes(_LENGTH_BYTES, "big")
        self._sealing.seal(self._out.view[start:end])
        return end
