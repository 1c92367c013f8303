"""Small questions to a snapshot: what is due, over, or still needed."""

from __future__ import annotations

from solders.pubkey import Pubkey

from psyche_chain.client.ledger import link
from psyche_chain.client.view import ChainView, MyState, Phase, RoundStatus, RoundView, Slot, SlotStatus

EPOCH = frozenset({Phase.WARMUP, Phase.ROUND_TRAIN, Phase.ROUND_WITNESS, Phase.COOLDOWN})


def witness_deadline(view: ChainView) -> float:
    """Time at which a witness attests what it has: early enough to land before the witness time is over."""
    time_s = view.config.round_witness_time
    return view.phase_start + time_s - _margin_s(time_s)


def is_late(view: ChainView, now: float) -> bool:
    """Whether a blob that could not be had holds up the run.

    While others still train it does not: a member that died after its commitment does not commit to the
    next round either, so that round takes its whole time, and a slow peer may use it.
    """
    time_s = view.config.max_round_train_time
    return view.phase != Phase.ROUND_TRAIN or now >= view.phase_start + time_s - _margin_s(time_s)


def _margin_s(time_s: int) -> float:
    return min(max(1.0, time_s / 4), 5.0, time_s / 2)


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
    if round_ is not None and owes_training(round_, slot):
        return "training"
    if any(r.status == RoundStatus.COMMITTED and slot.index in r.witnesses - r.attested for r in view.rounds):
        return "witnessing"
    return "idle"


def owes_training(round_: RoundView, slot: Slot) -> bool:
    """Whether the round waits for this member's commitment."""
    return round_.status == RoundStatus.OPEN and slot.index in round_.assigned - round_.committed
