"""What a member owes the run now.

`decide` is a pure function of one snapshot of the chain, the member's own state and the time. It remembers
nothing: a member that crashed, slept or missed snapshots decides the same as one that watched all along.
What the chain shows as done is never decided again, and what is in `MyState.busy` is not decided twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from solders.pubkey import Pubkey

from psyche_chain.client.ledger import link
from psyche_chain.client.view import (
    GENESIS,
    PRESENT,
    ChainView,
    MyState,
    Phase,
    RoundStatus,
    RoundView,
    Slot,
    SlotStatus,
)
from psyche_train.records import RoundRecord

TRAINING = frozenset({Phase.ROUND_TRAIN, Phase.ROUND_WITNESS})
EPOCH = frozenset({Phase.WARMUP, Phase.ROUND_TRAIN, Phase.ROUND_WITNESS, Phase.COOLDOWN})


@dataclass(frozen=True, slots=True)
class Duty:
    """One thing to do. Two duties with the same `key` are the same duty."""

    @property
    def key(self) -> str:
        """Name of the duty, unique among the duties of one snapshot."""
        return type(self).__name__.lower()


@dataclass(frozen=True, slots=True)
class Join(Duty):
    """Become a member (again)."""


@dataclass(frozen=True, slots=True)
class Leave(Duty):
    """Stop being a member, gracefully."""

    slot: int


@dataclass(frozen=True, slots=True)
class UpdateContact(Duty):
    """Write the own addresses to the membership."""

    contact: str


@dataclass(frozen=True, slots=True)
class Ready(Duty):
    """Say that the own weights are at the log's head."""

    slot: int
    epoch: int

    @property
    def key(self) -> str:
        return f"ready {self.epoch}"


@dataclass(frozen=True, slots=True)
class Weights(Duty):
    """A duty that needs the model. They share a key, so that only one of them is done at a time."""

    @property
    def key(self) -> str:
        return "weights"


@dataclass(frozen=True, slots=True)
class Fold(Weights):
    """Fold closed rounds; the records are verified against the chain's history."""

    records: tuple[RoundRecord, ...]


@dataclass(frozen=True, slots=True)
class CatchUp(Weights):
    """The ring does not reach back to the own weights: replay from peers or start from a checkpoint."""


@dataclass(frozen=True, slots=True)
class Save(Weights):
    """Write a checkpoint of the weights at `history`."""

    history: bytes
    step: int


@dataclass(frozen=True, slots=True)
class Validate(Weights):
    """Measure the validation loss."""


@dataclass(frozen=True, slots=True)
class Train(Weights):
    """Train the own share of a round and store the blob."""

    round: RoundView
    slot: int


@dataclass(frozen=True, slots=True)
class Commit(Duty):
    """Write the id of the own blob to the chain."""

    slot: int
    round: int
    blob_id: bytes

    @property
    def key(self) -> str:
        return f"commit {self.round}"


@dataclass(frozen=True, slots=True)
class Reveal(Duty):
    """Serve the own blobs up to this round."""

    round: int

    @property
    def key(self) -> str:
        return f"reveal {self.round}"


@dataclass(frozen=True, slots=True)
class Fetch(Duty):
    """Bring one committed blob to this disk and check it."""

    round: int
    slot: int
    blob_id: bytes

    @property
    def key(self) -> str:
        return f"fetch {self.round} {self.slot}"


@dataclass(frozen=True, slots=True)
class Witness(Duty):
    """Attest which blobs of a round are here and decode."""

    slot: int
    round: int
    seen: frozenset[int]

    @property
    def key(self) -> str:
        return f"witness {self.round}"


@dataclass(frozen=True, slots=True)
class Attest(Duty):
    """Vote for the digests of the own weights in a cooldown."""

    slot: int
    step: int
    history: bytes

    @property
    def key(self) -> str:
        return f"attest {self.step}"


@dataclass(frozen=True, slots=True)
class Offer(Duty):
    """Put the full model of a saved checkpoint into the blob store, for the uri and for newcomers."""

    history: bytes

    @property
    def key(self) -> str:
        return f"offer {self.history.hex()}"


@dataclass(frozen=True, slots=True)
class Record(Duty):
    """Write the uri of the agreed checkpoint to the chain."""

    slot: int
    step: int
    uri: str

    @property
    def key(self) -> str:
        return f"record {self.step}"


@dataclass(frozen=True, slots=True)
class Tidy(Duty):
    """Clean up after a checkpoint was agreed."""

    history: bytes


@dataclass(frozen=True, slots=True)
class Tick(Duty):
    """Move the run on; anyone may, and about one member should."""

    nonce: int

    @property
    def key(self) -> str:
        return f"tick {self.nonce}"


@dataclass(frozen=True, slots=True)
class Finish(Duty):
    """The run is finished and the weights are at its end, saved."""


def decide(view: ChainView, me: MyState, now: float) -> list[Duty]:
    """All duties of this moment, the most urgent first.

    Args:
        view: a snapshot of the chain.
        me: this member.
        now: time of the chain's clock in seconds.
    """
    slot = view.slot_of(me.wallet)
    duties: list[Duty] = []
    for duty in _leaving(slot) if me.stopping else _all(view, me, slot, now):
        if duty.key not in me.busy and all(duty.key != other.key for other in duties):
            duties.append(duty)
    return duties


def _leaving(slot: Slot | None) -> Iterator[Duty]:
    if slot is not None and slot.status in PRESENT:
        yield Leave(slot.index)


def _all(view: ChainView, me: MyState, slot: Slot | None, now: float) -> Iterator[Duty]:
    yield from _membership(view, me, slot)
    over = max((r.number for r in view.rounds if r.status >= RoundStatus.COMMITTED), default=0)
    if over > me.revealed:
        yield Reveal(over)
    if slot is not None and slot.status == SlotStatus.ACTIVE:
        yield from _round(view, me, slot, now)
        if view.phase == Phase.COOLDOWN and me.history == view.history:
            yield from _cooldown(view, me, slot, now)
    yield from _weights(view, me, slot)
    yield from _blobs(view, me)
    if view.checkpoint.agreed and view.checkpoint.history != me.tidied and me.history == view.history:
        yield Tidy(view.checkpoint.history)
    if slot is not None and slot.status in PRESENT and tick_due(view, now):
        yield Tick(view.nonce)
    at_head = me.history == view.history
    if view.phase == Phase.FINISHED and at_head and _is_saved(view, me) and view.history in me.validated:
        yield Finish()


def _membership(view: ChainView, me: MyState, slot: Slot | None) -> Iterator[Duty]:
    if view.phase in (Phase.UNINITIALIZED, Phase.FINISHED) or not me.contact:
        return
    if slot is None or slot.status not in PRESENT:
        yield Join()
    elif me.contact_on_chain is not None and me.contact_on_chain != me.contact:
        yield UpdateContact(me.contact)


def _round(view: ChainView, me: MyState, slot: Slot, now: float) -> Iterator[Duty]:
    """Commit, witness and ready of an active member."""
    round_ = view.open_round
    blob_id = me.trained.get(round_.number) if round_ is not None else None
    if round_ is not None and blob_id is not None and _owes_training(round_, slot):
        yield Commit(slot.index, round_.number, blob_id)
    for attested in view.rounds:
        if attested.status == RoundStatus.COMMITTED and slot.index in attested.witnesses - attested.attested:
            held = me.held.get(attested.number, frozenset()) & attested.committed
            given_up = me.given_up.get(attested.number, frozenset())
            last_call = view.phase == Phase.ROUND_WITNESS and now >= witness_deadline(view)
            if last_call or attested.committed <= held | given_up:
                yield Witness(slot.index, attested.number, held)
    at_head = me.history == view.history
    if view.phase in (Phase.WARMUP, *TRAINING) and not slot.ready and at_head:
        yield Ready(slot.index, view.epoch)


def _owes_training(round_: RoundView, slot: Slot) -> bool:
    return round_.status == RoundStatus.OPEN and slot.index in round_.assigned - round_.committed


def _weights(view: ChainView, me: MyState, slot: Slot | None) -> Iterator[Duty]:
    """Fold, catch up, save, validate or train: the first that applies."""
    records = link(me.history, view)
    if records is None:
        yield CatchUp()
    elif records:
        yield Fold(tuple(records))
    elif view.phase not in TRAINING and not _is_saved(view, me):
        yield Save(view.history, view.step)
    elif view.phase not in TRAINING and view.history not in me.validated:
        yield Validate()
    else:
        round_, is_active = view.open_round, slot is not None and slot.status == SlotStatus.ACTIVE
        if round_ is None or slot is None or not is_active or round_.number in me.trained:
            return
        if _owes_training(round_, slot):
            yield Train(round_, slot.index)


def _is_saved(view: ChainView, me: MyState) -> bool:
    return view.history == GENESIS or view.history in me.saved


def _blobs(view: ChainView, me: MyState) -> Iterator[Duty]:
    """Everyone fetches what is revealed: witnesses to attest it, all to fold it."""
    for round_ in view.rounds:
        if round_.status == RoundStatus.COMMITTED:
            held = me.held.get(round_.number, frozenset())
            for slot in sorted(round_.committed - held):
                yield Fetch(round_.number, slot, round_.commitments[slot])


def _cooldown(view: ChainView, me: MyState, slot: Slot, now: float) -> Iterator[Duty]:
    if not _is_saved(view, me):
        return
    if not slot.attested and not view.uri_missing:
        yield Attest(slot.index, view.step, view.history)
    if slot.tier != 0:
        return
    uri = me.uris.get(view.history)
    if uri is None:
        if view.history != GENESIS:
            yield Offer(view.history)
        return
    is_mine = view.uploader == slot.index or (_uploader_is_gone(view) and now >= _takeover(view, slot))
    if view.uri_missing and view.pending.history == view.history and is_mine:
        yield Record(slot.index, view.step, uri)


def _uploader_is_gone(view: ChainView) -> bool:
    """Whether the program lets any active tier-0 member record the uri."""
    uploader = view.slots.get(view.uploader) if view.uploader is not None else None
    return uploader is None or uploader.status != SlotStatus.ACTIVE or not uploader.ready


def _takeover(view: ChainView, slot: Slot) -> float:
    """When this member steps in for a lost uploader: one after the other, from a quarter of the time on."""
    full = [s.index for s in view.active() if s.tier == 0 and s.index != view.uploader]
    turn = full.index(slot.index) if slot.index in full else 0
    return view.phase_start + view.config.cooldown_time * min(0.25 + 0.1 * turn, 0.9)


def witness_deadline(view: ChainView) -> float:
    """Time at which a witness attests what it has: early enough to land before the witness time is over."""
    time_s = view.config.round_witness_time
    margin_s = min(max(1.0, time_s / 4), 5.0, time_s / 2)
    return view.phase_start + time_s - margin_s


def training_is_over(view: ChainView, number: int, slot: int) -> bool:
    """Whether a training in progress for that round can no longer end in a commit."""
    round_ = view.round(number)
    return round_ is None or round_.status != RoundStatus.OPEN or slot not in round_.assigned


def tick_due(view: ChainView, now: float) -> bool:
    """Whether the run would move on if somebody sent `tick` now, as far as a member can tell."""
    config, since = view.config, now - view.phase_start
    match view.phase:
        case Phase.WAITING_FOR_MEMBERS:
            eligible = [s for s in view.present() if s.next_tier <= config.max_tier]
            full = sum(s.next_tier == 0 for s in eligible)
            enough = len(eligible) >= config.init_min_clients and full >= config.min_full_members
            return enough and since >= config.waiting_for_members_extra_time
        case Phase.WARMUP:
            ready = [s for s in view.active() if s.ready]
            enough = (
                len(ready) >= config.min_clients
                and sum(s.tier == 0 for s in ready) >= config.min_full_members
            )
            return since >= config.warmup_time or (enough and len(ready) == len(view.active()))
        case Phase.ROUND_TRAIN:
            late = view.rounds[-1].assigned - view.rounds[-1].committed if view.rounds else frozenset()
            done = not _any_active(view, late) and _all_attested(view)
            return since >= config.max_round_train_time or done
        case Phase.ROUND_WITNESS:
            return since >= config.round_witness_time or _all_attested(view)
        case Phase.COOLDOWN:
            return since >= config.cooldown_time or (view.pending.agreed and not view.uri_missing)
        case _:
            return False


def _any_active(view: ChainView, slots: frozenset[int]) -> bool:
    return any(s in view.slots and view.slots[s].status == SlotStatus.ACTIVE for s in slots)


def _all_attested(view: ChainView) -> bool:
    """Whether everyone who can attest the round before the newest has done so."""
    before = [r for r in view.rounds[:-1] if r.status == RoundStatus.COMMITTED]
    return not any(_any_active(view, r.witnesses - r.attested) for r in before)


def needed_by_others(view: ChainView, wallet: Pubkey, digest: bytes) -> bool:
    """Whether a member of a finished run may still need what this one holds.

    Args:
        view: a snapshot of the finished run.
        wallet: this member.
        digest: of the smallest slice of the final weights. Every member that attested them left it on
            chain, in the row of the last round.
    """
    votes = view.rounds[-1].commitments if view.rounds else ()
    return any(
        s.wallet != wallet and (s.index >= len(votes) or votes[s.index] != digest) for s in view.present()
    )


def state_of(view: ChainView, me: MyState) -> str:
    """One word for what this member is at, for progress displays."""
    slot = view.slot_of(me.wallet)
    if view.phase == Phase.FINISHED and me.history == view.history:
        return "finished"
    if link(me.history, view) is None:
        return "syncing"
    if slot is None or slot.status != SlotStatus.ACTIVE or view.phase not in EPOCH:
        return "waiting"
    if me.history != view.history:
        return "folding"
    if view.phase == Phase.COOLDOWN:
        return "idle" if slot.attested else "checkpointing"
    round_ = view.open_round
    if round_ is not None and _owes_training(round_, slot):
        return "training"
    if any(r.status == RoundStatus.COMMITTED and slot.index in r.witnesses - r.attested for r in view.rounds):
        return "witnessing"
    return "idle"
