"""What a member owes the run now.

`decide` is a pure function of one snapshot of the chain, the member's own state and the time. It remembers
nothing: a member that crashed, slept or missed snapshots decides the same as one that watched all along.
What the chain already shows as done is never decided again, and what is in `MyState.busy` is not decided twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from psyche_chain.client.ledger import link
from psyche_chain.client.view import (
    GENESIS,
    NO_SLOT,
    ChainView,
    MyState,
    Phase,
    RoundStatus,
    RoundView,
    SlotStatus,
    SlotView,
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
    nonce: int
    """Of the snapshot: READY can be lost and said again within an epoch."""

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
class Load(Weights):
    """Bring the model into memory from the newest checkpoint on this disk, or its initial weights."""


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


def _leaving(slot: SlotView | None) -> Iterator[Duty]:
    if slot is not None and slot.present:
        yield Leave(slot.slot)


def _all(view: ChainView, me: MyState, slot: SlotView | None, now: float) -> Iterator[Duty]:
    yield from _membership(view, me, slot)
    if over := [r.number for r in view.rounds if r.status >= RoundStatus.COMMITTED]:
        if max(over) > me.revealed:
            yield Reveal(max(over))
    if slot is not None and slot.status == SlotStatus.ACTIVE:
        yield from _round(view, me, slot, now)
        if view.phase == Phase.COOLDOWN and me.history == view.history:
            yield from _cooldown(view, me, slot, now)
    yield from _weights(view, me, slot)
    yield from _blobs(view, me)
    if slot is not None and slot.present and tick_due(view, now):
        yield Tick(view.nonce)
    if view.phase == Phase.FINISHED and me.history == view.history and _is_saved(view, me):
        yield Finish()


def _membership(view: ChainView, me: MyState, slot: SlotView | None) -> Iterator[Duty]:
    if view.phase in (Phase.UNINITIALIZED, Phase.FINISHED) or not me.contact:
        return
    if slot is None or not slot.present:
        yield Join()
    elif me.contact_on_chain is not None and me.contact_on_chain != me.contact:
        yield UpdateContact(me.contact)


def _round(view: ChainView, me: MyState, slot: SlotView, now: float) -> Iterator[Duty]:
    """Commit, witness and ready of an active member."""
    round_ = view.open_round
    if round_ is not None and _owes_training(round_, slot):
        if blob_id := me.trained.get(round_.number):
            yield Commit(slot.slot, round_.number, blob_id)
    for attested in view.rounds:
        if attested.status == RoundStatus.COMMITTED and slot.slot in attested.witnesses - attested.attested:
            held = me.held.get(attested.number, frozenset()) & attested.committed
            given_up = me.given_up.get(attested.number, frozenset())
            last_call = view.phase == Phase.ROUND_WITNESS and now >= witness_deadline(view)
            if last_call or attested.committed <= held | given_up:
                yield Witness(slot.slot, attested.number, held)
    if view.phase in (Phase.WARMUP, *TRAINING) and not slot.ready:
        if me.loaded and me.history == view.history:
            yield Ready(slot.slot, view.epoch, view.nonce)


def _owes_training(round_: RoundView, slot: SlotView) -> bool:
    return round_.status == RoundStatus.OPEN and slot.slot in round_.assigned - round_.committed


def _weights(view: ChainView, me: MyState, slot: SlotView | None) -> Iterator[Duty]:
    """Load, fold, catch up, save or train: the first that applies."""
    if not me.loaded:
        yield Load()
        return
    records = link(me.history, view)
    if records is None:
        yield CatchUp()
    elif records:
        yield Fold(tuple(records))
    elif view.phase not in TRAINING and not _is_saved(view, me):
        yield Save(view.history, view.step)
    else:
        round_ = view.open_round
        if round_ is not None and slot is not None and slot.status == SlotStatus.ACTIVE:
            if _owes_training(round_, slot) and round_.number not in me.trained:
                yield Train(round_, slot.slot)


def _is_saved(view: ChainView, me: MyState) -> bool:
    return view.history == GENESIS or view.history in me.saved


def _blobs(view: ChainView, me: MyState) -> Iterator[Duty]:
    """Everyone fetches what is revealed: witnesses to attest it, all to fold it."""
    for round_ in view.rounds:
        if round_.status == RoundStatus.COMMITTED:
            held = me.held.get(round_.number, frozenset())
            for slot in sorted(round_.committed - held):
                if commitment := round_.commitments.get(slot):
                    yield Fetch(round_.number, slot, commitment)


def _cooldown(view: ChainView, me: MyState, slot: SlotView, now: float) -> Iterator[Duty]:
    if not _is_saved(view, me):
        return
    if not slot.attested and not view.uri_missing:
        yield Attest(slot.slot, view.step, view.history)
    if slot.tier != 0:
        return
    uri = me.uris.get(view.history)
    if uri is None:
        if view.history != GENESIS:
            yield Offer(view.history)
    elif view.uri_missing and view.pending.history == view.history:
        if view.uploader == slot.slot or (_uploader_is_gone(view) and now >= _takeover(view, slot)):
            yield Record(slot.slot, view.step, uri)


def _uploader_is_gone(view: ChainView) -> bool:
    """Whether the program lets any active tier-0 member record the uri."""
    uploader = view.slots.get(view.uploader) if view.uploader != NO_SLOT else None
    return uploader is None or uploader.status != SlotStatus.ACTIVE or not uploader.ready


def _takeover(view: ChainView, slot: SlotView) -> float:
    """When this tier-0 member steps in for a lost uploader: one after the other, from a quarter of the time on."""
    full = [s.slot for s in view.active() if s.tier == 0 and s.slot != view.uploader]
    turn = full.index(slot.slot) if slot.slot in full else 0
    return view.phase_start + view.limits.cooldown_time * min(0.25 + 0.1 * turn, 0.9)


def witness_deadline(view: ChainView) -> float:
    """Time at which a witness attests what it has: early enough to land before the witness time is over."""
    time_s = view.limits.round_witness_time
    margin_s = min(max(1.0, time_s / 4), 5.0, time_s / 2)
    return view.phase_start + time_s - margin_s


def training_is_over(view: ChainView, number: int, slot: int) -> bool:
    """Whether a training in progress for that round can no longer end in a commit."""
    round_ = view.round(number)
    return round_ is None or round_.status != RoundStatus.OPEN or slot not in round_.assigned


def tick_due(view: ChainView, now: float) -> bool:
    """Whether the run would move on if somebody sent `tick` now, as far as a member can tell."""
    limits, since = view.limits, now - view.phase_start
    match view.phase:
        case Phase.WAITING_FOR_MEMBERS:
            present = view.present()
            full = sum(s.tier == 0 for s in present)
            return view.pause_requested or (
                len(present) >= limits.init_min_clients
                and full >= max(1, limits.min_full_members)
                and since >= limits.waiting_for_members_extra_time
            )
        case Phase.WARMUP:
            everyone = all(s.ready for s in view.active())
            return view.pause_requested or everyone or since >= limits.warmup_time
        case Phase.ROUND_TRAIN:
            return since >= limits.max_round_train_time or (
                _all_committed(view) and _all_attested(view)
            )
        case Phase.ROUND_WITNESS:
            return since >= limits.round_witness_time or _all_attested(view)
        case Phase.COOLDOWN:
            return since >= limits.cooldown_time
        case _:
            return False


def _all_committed(view: ChainView) -> bool:
    return bool(view.rounds) and view.rounds[-1].assigned <= view.rounds[-1].committed


def _all_attested(view: ChainView) -> bool:
    return all(r.witnesses <= r.attested for r in view.rounds if r.status == RoundStatus.COMMITTED)


def state_of(view: ChainView, me: MyState) -> str:
    """One word for what this member is at, for progress displays."""
    slot = view.slot_of(me.wallet)
    if view.phase == Phase.FINISHED and me.history == view.history:
        return "finished"
    if not me.loaded or link(me.history, view) is None:
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
    if any(r.status == RoundStatus.COMMITTED and slot.slot in r.witnesses - r.attested for r in view.rounds):
        return "witnessing"
    return "idle"
