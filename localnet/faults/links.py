"""What a network does to bytes, without any network: links, paths between them, partitions.

Every member has one `Link` to all the others, as it has one line to the internet. What goes from one member to
another passes the uplink of the first and the downlink of the second.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import trio

PACKET_BYTES = 1448
"""Payload of a TCP segment on an ordinary line (MTU 1500, timestamps on)."""
MIN_RTO_S = 0.2
"""Linux's smallest retransmission timeout."""
MAX_RETRANSMISSIONS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A member's line: what it does to everything that leaves or reaches that member."""

    latency_s: float = 0.0
    """One way."""
    jitter_s: float = 0.0
    """Up to so much is added to the latency, uniformly."""
    loss: float = 0.0
    """Probability that a packet is lost."""
    up_bytes_s: float = math.inf
    down_bytes_s: float = math.inf

    def __post_init__(self) -> None:
        if not (self.latency_s >= 0 and self.jitter_s >= 0 and 0 <= self.loss < 1):
            raise ValueError(f"{self}: times must not be negative, loss is at least 0 and less than 1")
        if not (self.up_bytes_s > 0 and self.down_bytes_s > 0):
            raise ValueError(f"{self}: a line without any bandwidth is a partition")

    @classmethod
    def half_of(
        cls,
        *,
        latency_s: float = 0.0,
        jitter_s: float = 0.0,
        loss: float = 0.0,
        up_bytes_s: float = math.inf,
        down_bytes_s: float = math.inf,
    ) -> Link:
        """The link that two members need for these values from one to the other; bandwidth is each one's own."""
        return cls(
            latency_s=latency_s / 2,
            jitter_s=jitter_s / 2,
            loss=1 - math.sqrt(1 - loss),
            up_bytes_s=up_bytes_s,
            down_bytes_s=down_bytes_s,
        )


PERFECT = Link()


class Fabric:
    """The links of all members, and which of them cannot reach each other now.

    Args:
        links: by member; who is not named has a perfect one.
        seed: of everything that is drawn.
    """

    def __init__(self, links: Mapping[int, Link], seed: int = 0) -> None:
        self._links = dict(links)
        self._seed = seed
        self._free_at: dict[tuple[int | None, str], float] = {}
        self._apart: frozenset[int] = frozenset()
        self._drawn: dict[tuple[int | None, int | None], int] = {}
        self.changed = trio.Event()
        """Replaced whenever a partition begins or ends."""

    def link(self, member: int | None) -> Link:
        """A member's link; a perfect one for somebody who is not known."""
        return PERFECT if member is None else self._links.get(member, PERFECT)

    def set_link(self, member: int, link: Link) -> None:
        """Change a member's link; what is under way keeps its delay."""
        self._links[member] = link

    def partition(self, members: Iterable[int]) -> None:
        """Cut these members off from all others; among themselves they still talk."""
        self._apart = frozenset(members)
        self._tell()

    def heal(self) -> None:
        """End the partition."""
        self.partition(())

    @property
    def apart(self) -> frozenset[int]:
        """Members that are cut off from the others now."""
        return self._apart

    def is_cut(self, source: int | None, target: int | None) -> bool:
        """Whether nothing passes between these two now."""
        return (source in self._apart) != (target in self._apart)

    async def passable(self, source: int | None, target: int | None) -> None:
        """Wait until the two are not cut off from each other."""
        while self.is_cut(source, target):
            await self.changed.wait()

    def stream(self, source: int | None, target: int | None) -> random.Random:
        """Numbers for one direction of one connection: the n-th between two members has always the same."""
        count = self._drawn[source, target] = self._drawn.get((source, target), -1) + 1
        return random.Random(f"{self._seed} {source} {target} {count}")

    def passed_at(self, source: int | None, target: int | None, size: int, now: float) -> float:
        """When the last of `size` bytes is through both lines; each serves one packet after another."""
        at = self._occupy((source, "up"), self.link(source).up_bytes_s, size, now)
        return self._occupy((target, "down"), self.link(target).down_bytes_s, size, at)

    def waiting_s(self, source: int | None, target: int | None, now: float) -> float:
        """How long a packet would wait before the first of both lines serves it, or the second."""
        lines = ((source, "up"), (target, "down"))
        return max(self._free_at.get(line, 0.0) - now for line in lines)

    def delay_s(self, source: int | None, target: int | None, rng: random.Random) -> float:
        """Latency and jitter of one packet."""
        ends = (self.link(source), self.link(target))
        return sum(end.latency_s + end.jitter_s * rng.random() for end in ends)

    def loss(self, source: int | None, target: int | None) -> float:
        """Probability that a packet does not arrive."""
        return 1 - (1 - self.link(source).loss) * (1 - self.link(target).loss)

    def retransmission_s(
        self, source: int | None, target: int | None, size: int, rng: random.Random
    ) -> float:
        """How long TCP's answer to loss delays `size` bytes of a stream.

        Each of their packets is lost with the path's probability, and again; each time the timeout doubles (RFC
        6298). What is lost of one flight is repeated side by side, so the unluckiest packet counts.
        """
        loss = self.loss(source, target)
        if loss <= 0:
            return 0.0
        ends = (self.link(source), self.link(target))
        timeout_s = MIN_RTO_S + 2 * sum(end.latency_s for end in ends)
        worst = 0
        for _ in range(-(-size // PACKET_BYTES)):
            repeats = 0
            while repeats < MAX_RETRANSMISSIONS and rng.random() < loss:
                repeats += 1
            worst = max(worst, repeats)
        return timeout_s * float(2**worst - 1)

    def _occupy(self, line: tuple[int | None, str], bytes_s: float, size: int, now: float) -> float:
        if math.isinf(bytes_s):
            return now
        at = max(now, self._free_at.get(line, 0.0)) + size / bytes_s
        self._free_at[line] = at
        return at

    def _tell(self) -> None:
        before, self.changed = self.changed, trio.Event()
        before.set()
