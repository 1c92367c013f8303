"""What must hold, looked at after every transaction and every fold, and at the end.

Nothing here believes a member: weights, pay and samples are computed anew from what the chain shows and from
the blobs that were ever published.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from localnet.simulator.chain import PAY_PER_TIER, Shown
from localnet.simulator.model import Position, describe, first_parts, fold_parts, weights_hash
from localnet.simulator.plan import Plan
from psyche_chain.chain.state import RoundStatus, RoundView
from psyche_chain.client.events import plain
from psyche_chain.client.ledger import record_of
from psyche_chain.client.view import GENESIS, ChainView
from psyche_train.records import RoundRecord

MAX_TASKS = 80
"""Of one member: a duty each for a few rounds' blobs, and a handful of loops."""


@dataclass(frozen=True, slots=True)
class Violation:
    """Something that must not be."""

    kind: str
    message: str


@dataclass(slots=True)
class _Closed:
    """A round that the chain closed."""

    before: bytes
    record: RoundRecord
    round: RoundView


@dataclass(slots=True)
class Referee:
    """Keeps the books of one schedule."""

    plan: Plan
    published: Mapping[bytes, bytes]
    stop: Callable[[], None]
    log: Callable[[str], None]
    violations: list[Violation] = field(default_factory=list)
    expected: dict[bytes, list[bytes]] = field(default_factory=dict)
    """History -> all parts of the weights at it, as they must be."""
    pay: Counter[bytes] = field(default_factory=Counter)
    """Wallet -> points."""
    events: Counter[str] = field(default_factory=Counter)
    _closed: dict[bytes, _Closed] = field(default_factory=dict)
    """By the history after it."""
    _opened_at: dict[int, bytes] = field(default_factory=dict)
    """Round -> history when it was opened."""
    _status: dict[int, RoundStatus] = field(default_factory=dict)
    _commitments: dict[tuple[int, int], bytes] = field(default_factory=dict)
    _top: int = 1
    _carry: int = 0
    _history: bytes = GENESIS
    _newest: Shown | None = None

    def __post_init__(self) -> None:
        self._top = max(1, *self.plan.tiers)
        self.expected[GENESIS] = first_parts(self._top, 0)

    def wrong(self, kind: str, message: str) -> None:
        """Note a violation; the schedule ends."""
        self.log(f"VIOLATION {kind}: {message}")
        self.violations.append(Violation(kind, message))
        self.stop()

    # members

    def said(self, member: int, event: dict[str, Any]) -> None:
        """An event of a member's diary."""
        name = event["event"]
        self.events[name] += 1
        rest = {k: v for k, v in event.items() if k not in ("t", "event", "path")}
        self.log(f"member {member} {name} {json.dumps(rest, default=plain) if rest else ''}")

    def folded(self, member: int, position: Position, parts: Sequence[bytes], tier: int) -> None:
        """A member's weights are at a position: they must be those of the log there."""
        must = self.expected.get(position.history)
        if must is None:
            self.wrong("weights", f"member {member} is at history {position.history.hex()[:16]}, no log's")
        elif list(parts) != must[: len(parts)]:
            self.wrong("weights", f"member {member} has other weights at step {position.step}")

    def updates_between(self, have: Collection[bytes], end: bytes) -> Iterator[bytes]:
        """Blobs of the accepted updates from the nearest of the histories that somebody has up to the end."""
        while end not in have:
            closed = self._closed[end]
            yield from (a.commitment for a in closed.record.accepted)
            end = closed.before

    def served(self, number: int) -> None:
        """A hidden blob of a round was served."""
        if self._status.get(number, RoundStatus.CLOSED) is RoundStatus.OPEN:
            self.wrong("reveal", f"a blob of round {number} was served before its commits were over")

    # the chain

    def changed(self, shown: Shown) -> None:
        """Look at a new state of the run."""
        view = shown.view
        self.log(
            f"chain {view.phase.label} epoch {view.epoch} step {view.step} round {view.next_round - 1} "
            f"nonce {view.nonce} history {view.history.hex()[:8]}"
        )
        self._newest = shown
        for round_ in view.rounds:
            self._opened_at.setdefault(round_.number, view.history)
            if round_.trained:
                self._look_at_commitments(round_)
        for round_ in view.rounds:
            was = self._status.get(round_.number)
            self._status[round_.number] = round_.status
            if round_.status is RoundStatus.CLOSED and was is not RoundStatus.CLOSED:
                self._close(view, round_, shown.state.round_rate)
        if view.history != self._history:
            self._rewind(view)
        self._look_at_checkpoint(view)
        if shown.state.total_earned != sum(self.pay.values()):
            self.wrong("pay", f"{shown.state.total_earned} points earned, {sum(self.pay.values())} expected")

    def _look_at_commitments(self, round_: RoundView) -> None:
        for slot in sorted(round_.committed):
            found = round_.commitments[slot]
            first = self._commitments.setdefault((round_.number, slot), found)
            if first != found:
                self.wrong("commitment", f"slot {slot} has two commitments in round {round_.number}")
        if not round_.committed <= round_.assigned:
            self.wrong("commitment", f"round {round_.number} has commitments of slots that were not asked")

    def _close(self, view: ChainView, round_: RoundView, rate: int) -> None:
        record = record_of(view, round_)
        if record is None:
            self.wrong("history", f"round {round_.number} does not show what it accepted")
            return
        before = self._history
        after = record.next_history(before)
        missing = [a.slot for a in record.accepted if a.commitment not in self.published]
        if missing:
            self.wrong(
                "accepted", f"round {round_.number} accepted blobs of slots {missing} that nobody made"
            )
            return
        blobs = {a.slot: self.published[a.commitment] for a in record.accepted}
        self.expected[after] = fold_parts(self.expected[before], self._top, record, blobs)
        self._closed[after] = _Closed(before, record, round_)
        self._history = after
        self._earn(view, record, rate)
        for slot, blob in blobs.items():
            self._look_at_update(round_, slot, blob)

    def _earn(self, view: ChainView, record: RoundRecord, rate: int) -> None:
        shares = {a.slot: a.weight * PAY_PER_TIER[a.tier] for a in record.accepted}
        total, sum_ = rate + self._carry, sum(shares.values())
        if not sum_:
            return
        paid = 0
        for slot, share in shares.items():
            amount = total * share // sum_
            self.pay[bytes(view.slots[slot].wallet)] += amount
            paid += amount
        self._carry = total - paid

    def _look_at_update(self, round_: RoundView, slot: int, blob: bytes) -> None:
        """An update must have been trained from the weights that the log had when its round was opened."""
        try:
            said = describe(blob)
        except ValueError:  # a hostile one: only its author may have attested it
            if round_.attested - {slot}:
                self.wrong("accepted", f"round {round_.number} accepted garbage of slot {slot}")
            return
        history, opened = bytes.fromhex(said["history"]), self._opened_at[round_.number]
        must = self.expected[history][: self._top - said["tier"] + 1]
        if history != opened:
            self.wrong(
                "stale", f"slot {slot} trained round {round_.number} from other weights than the log's"
            )
        elif bytes.fromhex(said["weights"]) != weights_hash(must):
            self.wrong("weights", f"slot {slot} trained round {round_.number} from wrong weights")

    def _rewind(self, view: ChainView) -> None:
        start = view.checkpoint.history if view.checkpoint.agreed else GENESIS
        if view.history != start:
            self.wrong("history", f"the chain is at {view.history.hex()[:16]}, its records lead elsewhere")
        self.events["rewind"] += 1
        self.log(f"chain rewound to step {view.step}")
        self._history = view.history

    def _look_at_checkpoint(self, view: ChainView) -> None:
        for checkpoint in (view.checkpoint, view.pending):
            if not checkpoint.agreed:
                continue
            must = self.expected.get(checkpoint.history)
            if must is None or weights_hash(must) != checkpoint.weights_hash:
                self.wrong("agreement", f"agreed weights of step {checkpoint.step} are not the log's")

    # the end

    def look_at_samples(self) -> None:
        """Every sample was trained once, or waits to be."""
        assert self._newest is not None
        state = self._newest.state
        times: Counter[int] = Counter()
        at = self._history
        while at != GENESIS:
            closed = self._closed[at]
            at = closed.before
            if closed.record.trained:
                for start, stop in self._accepted_samples(closed):
                    times.update(range(start, stop))
        for interval in state.returned:
            times.update(interval)
        for round_ in state.rounds:
            if round_.trained and round_.status in (RoundStatus.OPEN, RoundStatus.COMMITTED):
                filled = sum(len(f) for f in round_.fills)
                for piece in (
                    *round_.fills,
                    range(round_.data_index, round_.data_index + round_.samples - filled),
                ):
                    times.update(piece)
        twice = sorted(s for s, n in times.items() if n > 1)
        lost = sorted(set(range(state.data_index)) - set(times))
        if twice:
            self.wrong("samples", f"{len(twice)} samples were trained twice, the first is {twice[0]}")
        if len(lost) != state.lost_samples:
            self.wrong("samples", f"{len(lost)} samples are lost, the chain says {state.lost_samples}")

    def _accepted_samples(self, closed: _Closed) -> list[tuple[int, int]]:
        from psyche_train.assign import intervals

        round_, found = closed.round, []
        weights = [(slot, self._weight_of(slot)) for slot in sorted(round_.assigned)]
        shares = intervals(round_.samples, round_.fills, round_.data_index, weights)
        for accepted in closed.record.accepted:
            share = [(r.start, r.stop) for r in shares[accepted.slot]]
            try:
                said = [tuple(pair) for pair in describe(self.published[accepted.commitment])["samples"]]
            except ValueError:
                said = share
            if said != share:
                self.wrong("samples", f"slot {accepted.slot} trained other samples in round {round_.number}")
            found += share
        return found

    def _weight_of(self, slot: int) -> int:
        assert self._newest is not None
        return self._newest.view.slots[slot].weight

    def look_at_pay(self, wallet: bytes, tokens: int) -> None:
        """What a wallet could claim."""
        if tokens != self.pay[wallet]:
            self.wrong("pay", f"a wallet was paid {tokens}, {self.pay[wallet]} are right")
