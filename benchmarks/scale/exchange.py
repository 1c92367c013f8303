"""A simulation of one round's exchange: every member fetches every other member's update.

Discrete events, nothing drawn but from the seed. A member has a line with a rate each way and one processor for its
network process; bytes pass the sender's line, then the receiver's, in grains of a piece or more, and each line serves
what comes first. Who asks whom for what follows `psyche_train.network.fetch`: the author first, further holders after
`HEDGE_S`, of long blobs ranges of what is missing from several holders at once, the least claimed first, at most so
many streams to a peer, and a pause after a refusal. Not modelled: loss, TCP's start, failures.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from psyche_train.blobs import PIECE
from psyche_train.network.fetch import (
    FIRST_PIECES,
    HEDGE_S,
    LARGE_WORKERS_PER_PEER,
    MAX_LARGE_WORKERS,
    MAX_PER_PEER,
    MAX_WORKERS,
    PIECES_PER_RANGE,
    RANGE_S,
    RETRY_CAP_S,
    RETRY_FIRST_S,
)
from psyche_train.network.gossip import batch_s
from psyche_train.network.wire import MAX_RANGE_BYTES

RULES = 1
"""Grows when the simulation changes: what was simulated before is then simulated again."""
GRAINS = 16
"""A long blob is simulated in so many grains at least: what a grain holds moves as one."""
WINDOW = 2
"""Grains of one stream that are under way at a time."""
RANKED = 24
"""Of many holders so many, drawn, are compared; a member compares all."""


@dataclass(frozen=True, slots=True)
class Line:
    """A member's line, bytes a second."""

    up: float
    down: float


@dataclass(frozen=True, slots=True)
class Costs:
    """CPU seconds of a network process, one thread, at either end."""

    stream_s: float = 0.0
    """To open a stream and ask for a range, or to be asked."""
    byte_s: float = 0.0
    """For each byte: seal or open, hash, write or read."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """What is simulated: one line and one blob for each member."""

    lines: tuple[Line, ...]
    blobs: tuple[int, ...]
    """Bytes of each member's update."""
    one_way_s: float = 0.025
    spread_s: float = 0.4
    """Within this time all members see that the commits are over."""
    open_round_trips: int = 2
    """Of opening a stream: multistream-select."""
    costs: Costs = Costs()
    grains: int = GRAINS
    """In which a long blob moves: fewer are simulated sooner, and less exactly."""
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.lines) != len(self.blobs) or not self.lines:
            raise ValueError(f"{len(self.lines)} lines for {len(self.blobs)} blobs")
        if min(self.blobs) < 1 or min(min(line.up, line.down) for line in self.lines) <= 0:
            raise ValueError("blobs and lines must have more than nothing")

    def bound_s(self) -> float:
        """No exchange is shorter: what each must get over its own line, and all together over all lines."""
        total, count = sum(self.blobs), len(self.blobs)
        down = max((total - b) / line.down for b, line in zip(self.blobs, self.lines, strict=True))
        first = max(b / line.up for b, line in zip(self.blobs, self.lines, strict=True)) if count > 1 else 0.0
        return max(down, first, (count - 1) * total / sum(line.up for line in self.lines))


@dataclass(slots=True)
class Outcome:
    """What happened."""

    done_s: list[float]
    """When each member had all blobs."""
    bytes_in: list[int]
    """Of blobs, over each member's line."""
    bytes_out: list[int]
    cpu_s: list[float]
    requests: int = 0
    """Streams that were opened."""
    refused: int = 0
    ended_s: float = 0.0
    """When the last byte arrived: what was under way twice still comes when all is there."""

    @property
    def all_s(self) -> float:
        """When everybody had everything."""
        return max(self.done_s)


@dataclass(slots=True, eq=False)
class _Job:
    """One blob on its way to one member."""

    member: int
    author: int
    length: int
    grain: int
    started: float
    missing: set[int]
    claims: Counter[int] = field(default_factory=Counter)
    working: Counter[int] = field(default_factory=Counter)
    failures: Counter[int] = field(default_factory=Counter)
    retry_at: dict[int, float] = field(default_factory=dict)
    has_manifest: bool = False
    woken_at: float = -1.0

    @property
    def large(self) -> bool:
        return self.has_manifest and self.length > MAX_RANGE_BYTES

    def bytes_of(self, grain: int) -> int:
        return min(self.grain, self.length - grain * self.grain)


@dataclass(slots=True, eq=False)
class _Stream:
    """One worker of a job at one holder."""

    job: _Job
    holder: int
    grains: list[int] = field(default_factory=list)
    sent: int = 0
    arrived: int = 0
    began: float = 0.0


class Simulation:
    """Runs one exchange."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        count = len(exchange.lines)
        self._rng = random.Random(f"exchange {exchange.seed}")
        self._events: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._number = itertools.count()
        self.now = 0.0
        self._batch_s = batch_s(count)
        self._up, self._down, self._cpu = [0.0] * count, [0.0] * count, [0.0] * count
        self._revealed = [self._rng.uniform(0, exchange.spread_s) for _ in range(count)]
        self._holders: list[list[int]] = [[author] for author in range(count)]
        """Of each blob: who has it, in the order in which they had it."""
        self._has = [{author} for author in range(count)]
        """Of each member: whose blobs it has."""
        self._told: list[list[float]] = [[0.0] for _ in range(count)]
        """When the others know of each holder."""
        self._streams: list[Counter[int]] = [Counter() for _ in range(count)]
        self._waiting: list[dict[int, list[tuple[int, _Stream]]]] = [{} for _ in range(count)]
        self._rates: list[dict[int, float]] = [{} for _ in range(count)]
        self._left = [count - 1] * count
        self.outcome = Outcome([0.0] * count, [0] * count, [0] * count, [0.0] * count)

    def run(self) -> Outcome:
        """Simulate until everybody has everything."""
        count = len(self.exchange.lines)
        for member in range(count):
            for author in range(count):
                if author != member:
                    self._at(self._revealed[member], self._start, member, author)
        while self._events:
            self.now, _, act, args = heapq.heappop(self._events)
            act(*args)
        self.outcome.ended_s = self.now
        if any(self._left):
            raise AssertionError(f"{sum(self._left)} blobs were never fetched")
        return self.outcome

    def _at(self, time: float, act: Callable[..., None], *args: object) -> None:
        heapq.heappush(self._events, (time, next(self._number), act, args))

    def _work(self, member: int, seconds: float, since: float) -> float:
        """The member's one processor does this next; returns when it is done."""
        self._cpu[member] = max(self._cpu[member], since) + seconds
        self.outcome.cpu_s[member] += seconds
        return self._cpu[member]

    def _start(self, member: int, author: int) -> None:
        length = self.exchange.blobs[author]
        pieces = -(-length // PIECE)
        grain = PIECE * max(1, min(PIECES_PER_RANGE, pieces // self.exchange.grains))
        job = _Job(member, author, length, grain, self.now, set(range(-(-length // grain))))
        self._dispatch(job)
        for hedge in range(1, MAX_WORKERS):
            self._at(job.started + hedge * HEDGE_S, self._dispatch, job)

    def _dispatch(self, job: _Job) -> None:
        """Start as many workers as the rules allow."""
        if not job.missing:
            return
        allowed = min(MAX_WORKERS, 1 + int((self.now - job.started) / HEDGE_S + 1e-9))
        each = 1
        if job.large:
            allowed, each = MAX_LARGE_WORKERS, LARGE_WORKERS_PER_PEER
        free = allowed - job.working.total()
        if free <= 0:
            return
        soonest = float("inf")
        for holder in self._candidates(job):
            while free > 0 and job.working[holder] < each:
                if (retry_at := job.retry_at.get(holder, 0.0)) > self.now:
                    soonest = min(soonest, retry_at)
                    break
                job.working[holder] += 1
                free -= 1
                self._queue(_Stream(job, holder))
            if free <= 0:
                return
        if soonest < float("inf") and job.woken_at <= self.now:
            job.woken_at = soonest
            self._at(soonest, self._dispatch, job)

    def _candidates(self, job: _Job) -> Iterator[int]:
        """The author, then those who are known to hold it, the least busy and the fastest first."""
        yield job.author
        streams, rates = self._streams[job.member], self._rates[job.member]
        holders, told = self._holders[job.author], self._told[job.author]
        places: Sequence[int] = range(1, len(holders))
        if len(places) > RANKED:
            places = self._rng.sample(places, RANKED)
        known = [holders[at] for at in places if told[at] <= self.now and holders[at] != job.member]
        taste = (job.member * 7919 + job.author * 104729) % 1000003
        known.sort(key=lambda h: (streams[h], -rates.get(h, 0.0), (h * 15485863 + taste) % 1000003))
        yield from known

    def _queue(self, stream: _Stream) -> None:
        """Wait for one of the few streams to the holder: of all that wait, the rarest blob goes first."""
        member, holder = stream.job.member, stream.holder
        if self._streams[member][holder] < MAX_PER_PEER:
            self._streams[member][holder] += 1
            self._open(stream)
        else:
            self._waiting[member].setdefault(holder, []).append((next(self._number), stream))

    def _open(self, stream: _Stream) -> None:
        exchange, job = self.exchange, stream.job
        if not self._claim(stream):
            return self._end(stream)
        self.outcome.requests += 1
        ready = self._work(job.member, exchange.costs.stream_s, self.now)
        trips = 2 * exchange.open_round_trips + 1
        return self._at(ready + trips * exchange.one_way_s, self._asked, stream)

    def _asked(self, stream: _Stream) -> None:
        """The request is at the holder."""
        ready = self._work(stream.holder, self.exchange.costs.stream_s, self.now)
        self._at(ready, self._answer, stream)

    def _answer(self, stream: _Stream) -> None:
        job, holder = stream.job, stream.holder
        if job.author in self._has[holder] and self._revealed[holder] <= self.now:
            return self._send(stream)
        self.outcome.refused += 1
        return self._at(self.now + self.exchange.one_way_s, self._refused, stream)

    def _refused(self, stream: _Stream) -> None:
        job = stream.job
        job.failures[stream.holder] += 1
        hidden = self._revealed[stream.holder] > self.now - self.exchange.one_way_s
        pause_s = RETRY_FIRST_S if hidden else RETRY_FIRST_S * 1.3 ** job.failures[stream.holder]
        job.retry_at[stream.holder] = self.now + min(RETRY_CAP_S, pause_s)
        self._unclaim(stream)
        self._end(stream)

    def _claim(self, stream: _Stream) -> bool:
        """The next range: missing grains that fewest work at; what others are at is taken from its end."""
        job = stream.job
        if not job.missing:
            return False
        rate = self._rates[job.member].get(stream.holder)
        pieces = PIECES_PER_RANGE if not job.has_manifest else FIRST_PIECES
        if rate is not None:
            pieces = max(1, min(PIECES_PER_RANGE, int(rate * RANGE_S / PIECE)))
        most = max(1, pieces * PIECE // job.grain)
        fewest = min(job.claims[g] for g in job.missing)
        free = [g for g in job.missing if job.claims[g] == fewest]
        at, step = (max(free), -1) if fewest else (min(free), 1)
        grains = [at]
        while len(grains) < most and (at := at + step) in job.missing and job.claims[at] == fewest:
            grains.append(at)
        job.claims.update(grains)
        stream.grains, stream.sent, stream.arrived, stream.began = sorted(grains), 0, 0, self.now
        return True

    def _unclaim(self, stream: _Stream) -> None:
        stream.job.claims.subtract(stream.grains)

    def _send(self, stream: _Stream) -> None:
        """Put as many grains on the sender's line as the window allows; a stream that is reset sends no more."""
        while (
            stream.sent < len(stream.grains) and stream.sent - stream.arrived < WINDOW and stream.job.missing
        ):
            size = stream.job.bytes_of(stream.grains[stream.sent])
            stream.sent += 1
            holder, line = stream.holder, self.exchange.lines[stream.holder]
            ready = self._work(holder, size * self.exchange.costs.byte_s, self.now)
            self._up[holder] = max(self._up[holder], ready) + size / line.up
            self.outcome.bytes_out[holder] += size
            self._at(self._up[holder] + self.exchange.one_way_s, self._arrives, stream, size)

    def _arrives(self, stream: _Stream, size: int) -> None:
        """The grain is at the receiver's line."""
        member = stream.job.member
        self._down[member] = max(self._down[member], self.now) + size / self.exchange.lines[member].down
        self._at(self._down[member], self._received, stream, size)

    def _received(self, stream: _Stream, size: int) -> None:
        ready = self._work(stream.job.member, size * self.exchange.costs.byte_s, self.now)
        self._at(ready, self._take, stream, size)

    def _take(self, stream: _Stream, size: int) -> None:
        job, exchange = stream.job, self.exchange
        self.outcome.bytes_in[job.member] += size
        was_missing = bool(job.missing)
        first = not job.has_manifest
        job.has_manifest = True
        job.missing.discard(stream.grains[stream.arrived])
        stream.arrived += 1
        if not job.missing:
            if was_missing:
                self._finish(job)
            self._unclaim(stream)
            return self._end(stream)
        if first and job.large:
            self._dispatch(job)
        if stream.arrived < len(stream.grains):
            return self._send(stream)
        self._unclaim(stream)
        taken = sum(job.bytes_of(g) for g in stream.grains) / max(self.now - stream.began, 1e-6)
        known = self._rates[job.member].get(stream.holder)
        self._rates[job.member][stream.holder] = taken if known is None else (taken + known) / 2
        if not self._claim(stream):
            return self._end(stream)
        return self._at(self.now + exchange.one_way_s, self._answer, stream)

    def _finish(self, job: _Job) -> None:
        member = job.member
        self._has[member].add(job.author)
        self._holders[job.author].append(member)
        self._told[job.author].append(self.now + self._batch_s + 2 * self.exchange.one_way_s)
        self._left[member] -= 1
        if not self._left[member]:
            self.outcome.done_s[member] = self.now

    def _end(self, stream: _Stream) -> None:
        job, holder = stream.job, stream.holder
        job.working[holder] -= 1
        waiting = self._waiting[job.member].get(holder)
        if waiting:
            first = min(waiting, key=lambda w: (len(self._holders[w[1].job.author]), w[0]))
            waiting.remove(first)
            self._open(first[1])
        else:
            self._streams[job.member][holder] -= 1
        if job.missing:
            self._dispatch(job)


def simulate(exchange: Exchange) -> Outcome:
    """One exchange; the same for the same arguments."""
    return Simulation(exchange).run()


def spread(
    lines: Sequence[Line], blobs: Sequence[int], count: int
) -> tuple[tuple[Line, ...], tuple[int, ...]]:
    """`count` members that take these lines and blobs in turns."""
    return (
        tuple(lines[i % len(lines)] for i in range(count)),
        tuple(blobs[i % len(blobs)] for i in range(count)),
    )
