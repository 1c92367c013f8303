"""What a member owes the run now.

`decide` is a pure function of one snapshot of the chain, the member's own state and the time. It remembers
nothing: a member that crashed, slept or missed snapshots decides the same as one that watched all along.
What the chain shows as done is never decided again, and what is in `MyState.busy` is not decided twice.
"""

from __future__ import annotations

from collections.abc import Iterator

from psyche_chain.client.due import is_late, owes_training, tick_due, witness_deadline
from psyche_chain.client.duty import (
    Attest,
    CatchUp,
    Commit,
    Compare,
    Duty,
    Evaluate,
    Fetch,
    Finish,
    Fold,
    Gather,
    Join,
    Leave,
    Offer,
    Ready,
    Record,
    Reveal,
    Save,
    Share,
    Tick,
    Tidy,
    Train,
    UpdateContact,
    Validate,
    Witness,
)
from psyche_chain.client.ledger import link
from psyche_chain.client.view import (
    GENESIS,
    PRESENT,
    ChainView,
    MyState,
    Phase,
    RoundStatus,
    Slot,
    SlotStatus,
)

TRAINING = frozenset({Phase.ROUND_TRAIN, Phase.ROUND_WITNESS})


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
    if not me.has_shared:
        yield Share()
    if not me.has_data and slot is not None and slot.status in PRESENT:
        yield Gather()
    yield from _weights(view, me, slot)
    yield from _blobs(view, me)
    if view.checkpoint.agreed and view.checkpoint.history != me.tidied and me.history == view.history:
        yield Tidy(view.checkpoint.history)
    if slot is not None and slot.status in PRESENT and tick_due(view, now):
        yield Tick(view.nonce)
    at_head = me.history == view.history
    is_whole = _is_saved(view, me) and _is_compared(view, me)
    if view.phase == Phase.FINISHED and at_head and is_whole and view.history in me.validated:
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
    if round_ is not None and blob_id is not None and owes_training(round_, slot):
        yield Commit(slot.index, round_.number, blob_id)
    for attested in view.rounds:
        if attested.status == RoundStatus.COMMITTED and slot.index in attested.witnesses - attested.attested:
            held = me.held.get(attested.number, frozenset()) & attested.committed
            lost = me.given_up.get(attested.number, frozenset())
            has_all = attested.committed <= held
            has_what_there_is = is_late(view, now) and attested.committed <= held | lost
            last_call = view.phase == Phase.ROUND_WITNESS and now >= witness_deadline(view)
            if has_all or has_what_there_is or last_call:
                yield Witness(slot.index, attested.number, held)
    at_head = me.history == view.history and _is_compared(view, me)
    if view.phase in (Phase.WARMUP, *TRAINING) and not slot.ready and at_head and me.has_data:
        yield Ready(slot.index, view.epoch)


def _weights(view: ChainView, me: MyState, slot: Slot | None) -> Iterator[Duty]:
    """Fold, catch up, compare, save, validate, train or evaluate: the first that applies."""
    records = link(me.history, view)
    if records is None:
        yield CatchUp()
    elif records:
        yield Fold(tuple(records))
    elif not _is_compared(view, me):
        yield Compare(view.history)
    elif view.phase not in TRAINING and not _is_saved(view, me):
        yield Save(view.history, view.step)
    elif view.phase not in TRAINING and view.history not in me.validated and me.has_data:
        yield Validate()
    elif (train := _training(view, me, slot)) is not None:
        yield train
    elif me.evaluates and view.phase != Phase.FINISHED:
        yield Evaluate()


def _training(view: ChainView, me: MyState, slot: Slot | None) -> Train | None:
    round_, is_active = view.open_round, slot is not None and slot.status == SlotStatus.ACTIVE
    if round_ is None or slot is None or not is_active or round_.number in me.trained:
        return None
    return Train(round_, slot.index) if owes_training(round_, slot) and me.has_data else None


def _is_saved(view: ChainView, me: MyState) -> bool:
    return view.history == GENESIS or view.history in me.saved


def _is_compared(view: ChainView, me: MyState) -> bool:
    """Whether weights that stand where members agreed on a checkpoint are known to be the agreed ones."""
    return (
        not view.checkpoint.agreed
        or view.history in (GENESIS, me.compared)
        or (view.checkpoint.history != view.history)
    )


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
    uri = me.uris.get(view.history)
    if uri is None:
        if view.history != GENESIS:
            yield Offer(view.history)
        return
    if slot.tier != 0:
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
