"""How much a peer may send: windows that grow while they are the limit, out of a bounded pool."""

from __future__ import annotations

from psyche_train.network.mux.frames import BASE_WINDOW, MuxProtocolError

MAX_WINDOW = 16 << 20
"""Fills 2.5 Gbit/s at 50 ms."""
POOL_PER_CONNECTION = 32 << 20
POOL_PER_HOST = 512 << 20
GROW_WITHIN_RTTS = 4
"""A window of which half was read within so many round trips was too small (go-yamux's rule)."""


class WindowPool:
    """Bytes that windows may have beyond their base, within those of a `parent`."""

    def __init__(self, size: int, parent: WindowPool | None = None) -> None:
        self.left = size
        self._parent = parent

    def take(self, count: int) -> int:
        """Up to `count` bytes of the pool."""
        taken = min(count, self.left)
        if self._parent is not None:
            taken = self._parent.take(taken)
        self.left -= taken
        return taken

    def give_back(self, count: int) -> None:
        """Return what was taken."""
        self.left += count
        if self._parent is not None:
            self._parent.give_back(count)


class ReceiveWindow:
    """What the peer may still send on one stream.

    Attributes:
        size: bytes that may be on their way or unread at once.
    """

    def __init__(self, pool: WindowPool, now: float) -> None:
        self.size = BASE_WINDOW
        self._pool = pool
        self._open = BASE_WINDOW
        self._read = 0
        self._since = now

    def received(self, count: int) -> None:
        """The peer sent bytes.

        Raises:
            MuxProtocolError: more than it may.
        """
        self._open -= count
        if self._open < 0:
            raise MuxProtocolError(f"{-self._open} bytes beyond the window of {self.size}")

    def read(self, count: int, now: float, rtt_s: float) -> int:
        """Bytes were read here; returns how many more the peer may now be told to send (0: nothing yet)."""
        self._read += count
        if 2 * self._read < self.size:
            return 0
        credit, self._read = self._read, 0
        self._open += credit
        if now - self._since < GROW_WITHIN_RTTS * rtt_s:
            credit += self.widen(2 * self.size)
        self._since = now
        return credit

    def widen(self, size: int) -> int:
        """Grow to `size` as far as limits and pool allow; returns by how much, to be told to the peer."""
        grown = self._pool.take(max(0, min(size, MAX_WINDOW) - self.size))
        self.size += grown
        self._open += grown
        return grown

    def release(self) -> None:
        """Give the pool back what it gave; the window is of no use any more."""
        self._pool.give_back(self.size - BASE_WINDOW)
        self.size = BASE_WINDOW
