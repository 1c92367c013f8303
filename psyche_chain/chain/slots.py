"""Which endpoints to believe about the chain's slot.

An endpoint may lag, stand still, go back, or name a slot of the far future. Believing such a slot would make
every honest answer after it look stale. So each endpoint's word is kept for itself, endpoints that tell about
the same are believed together, and an answer is compared with the newest slot that those have shown. No word
holds for ever: what nobody reaches any more is forgotten after `PATIENCE_S`.
"""

from dataclasses import dataclass
from typing import Final

LEAD: Final = 512
"""Slots by which honest endpoints may differ; three minutes on Solana, which calls a node behind at 128."""
RATE: Final = 100.0
"""Slots a second, at most, of any chain; words of different times are compared with it. Solana makes 2.5."""
FORGET_S: Final = 30.0
"""After this time an endpoint's word counts no more."""
FROZEN_S: Final = 8.0
"""An endpoint that shows nothing new for so long stands still."""
STEP: Final = 32
"""Slots that an endpoint may go back: several nodes may answer under one address."""
PATIENCE_S: Final = 4.0
"""How long answers older than the newest are refused if nobody is as new."""


class Stale(Exception):
    """An endpoint lags, or its slot cannot be true."""


@dataclass(slots=True)
class _Word:
    """What one endpoint said last."""

    slot: int
    at: float
    advanced_at: float
    """When its slot last grew."""
    blockhash: str = ""
    renewed_at: float = float("inf")
    """When its newest blockhash last changed; infinite before it was asked for one."""
    stepped_back_at: float = float("-inf")

    def is_odd(self, now: float) -> bool:
        """Whether it stands still, or went back: used only where there is no better one."""
        stands_still = self.at - min(self.advanced_at, self.renewed_at) > FROZEN_S
        return stands_still or now - self.stepped_back_at < FORGET_S


class SlotWatch:
    """Judges answers by their slot. Times are seconds of one monotonic clock."""

    def __init__(self) -> None:
        self.newest = 0
        """Newest slot that a believed answer has shown."""
        self._words: dict[int, _Word] = {}
        self._by: int | None = None
        self._at = float("-inf")
        """When an answer was last at least as new as `newest`."""

    def note(self, endpoint: int, slot: int, now: float, blockhash: str | None = None) -> None:
        """Remember what an endpoint said, whether it is believed or not."""
        word = self._words.get(endpoint)
        if word is None:
            word = self._words[endpoint] = _Word(slot, now, now)
        if slot > word.slot or slot < word.slot - STEP:
            word.advanced_at = now
        if slot < word.slot - STEP:  # it lied before, or lies now
            word.stepped_back_at = now
        if blockhash is not None and blockhash != word.blockhash:
            word.blockhash, word.renewed_at = blockhash, now
        word.slot, word.at = slot, now

    def drop(self, endpoint: int) -> None:
        """The endpoint does not answer: its word counts no more."""
        self._words.pop(endpoint, None)

    def trusted(self, now: float) -> frozenset[int]:
        """The endpoints that are believed; empty where nobody said anything lately.

        The largest group that agrees; of groups of one size the one that goes on from what was seen before,
        else the newest, because endpoints that lag are more common than those that lie.
        """
        live = {i: w for i, w in self._words.items() if now - w.at <= FORGET_S}
        live = {i: w for i, w in live.items() if not w.is_odd(now)} or live

        def group(one: _Word) -> frozenset[int]:
            return frozenset(i for i, w in live.items() if self._agree(one, w))

        def rank(members: frozenset[int]) -> tuple[int, bool, int]:
            top = max(live[i].slot for i in members)
            goes_on = abs(top - self.newest) <= LEAD + RATE * (now - self._at) if self.newest else True
            return len(members), goes_on, top

        return max((group(w) for w in live.values()), key=rank, default=frozenset())

    @staticmethod
    def _agree(one: _Word, other: _Word) -> bool:
        return abs(one.slot - other.slot) <= LEAD + RATE * abs(one.at - other.at)

    def judge(self, endpoint: int, slot: int, now: float) -> None:
        """Take note of an answer, and believe it or not.

        Raises:
            Stale: it must not be used.
        """
        self.note(endpoint, slot, now)
        trusted = self.trusted(now)
        top = max((self._words[i].slot for i in trusted), default=slot)
        if endpoint not in trusted:
            raise Stale(f"answers at slot {slot}, while others are at slot {top}")
        if slot < self.newest and self._is_void(trusted, top, now):
            self.newest = 0
        if slot < self.newest:
            raise Stale(f"answers at slot {slot}, but slot {self.newest} was seen")
        self.newest, self._by, self._at = slot, endpoint, now

    def observe(self, endpoint: int | None, slot: int, now: float) -> None:
        """An own transaction landed at `slot`, says `endpoint`: answers must be as new from now on.

        A slot that cannot be true is ignored.
        """
        if slot > self.newest and (not self.newest or slot <= self.newest + LEAD + RATE * (now - self._at)):
            self.newest, self._by, self._at = slot, endpoint, now

    def _is_void(self, trusted: frozenset[int], top: int, now: float) -> bool:
        """Whether the newest slot counts no more: a lie, or nobody reaches it."""
        outvoted = self._by in self._words and self._by not in trusted
        impossible = self.newest > top + LEAD + RATE * max(0.0, now - self._at)
        return outvoted or impossible or now - self._at > PATIENCE_S
