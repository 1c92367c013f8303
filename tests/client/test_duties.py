"""Every row of the duty table, and what must never be decided."""

from __future__ import annotations

from dataclasses import replace

import pytest

from psyche_chain.chain.state import Phase, RoundStatus, SlotStatus
from psyche_chain.client import duty as kinds_of
from psyche_chain.client.due import state_of, training_is_over, witness_deadline
from psyche_chain.client.duties import TRAINING, decide
from psyche_chain.client.duty import Duty
from psyche_chain.client.ledger import record_of
from psyche_chain.client.view import ChainView, MyState
from tests.client.views import CONFIG, NO_CHECKPOINT, a_round, a_view, blob_id, me, member, wallet

OPEN, COMMITTED, CLOSED = RoundStatus.OPEN, RoundStatus.COMMITTED, RoundStatus.CLOSED
NOW = 1001.0


def kinds(found: list[Duty]) -> list[type[Duty]]:
    return [type(d) for d in found]


def pipeline(
    phase: Phase = Phase.ROUND_TRAIN,
    *,
    open_committed: tuple[int, ...] = (),
    attested: tuple[int, ...] = (),
    committed: tuple[int, ...] = (0, 1, 2),
    **more: object,
) -> ChainView:
    """Round 6 is open (or closed for commits), 5 is being witnessed, 4 is closed."""
    return a_view(
        phase,
        a_round(4, CLOSED, committed=(0, 1, 2), accepted=(0, 1, 2)),
        a_round(5, COMMITTED, committed=committed, witnesses=(0, 1, 2), attested=attested),
        a_round(6, OPEN if phase == Phase.ROUND_TRAIN else COMMITTED, committed=open_committed),
        before=b"\x01" * 32,
        **more,
    )


def test_stranger_joins_in_every_live_phase() -> None:
    for phase in Phase:
        found = decide(a_view(phase), me(7, a_view(phase)), NOW)
        expected = phase not in (Phase.UNINITIALIZED, Phase.FINISHED)
        assert (kinds_of.Join() in found) == expected, phase


def test_stranger_without_known_address_waits_with_joining() -> None:
    view = a_view(Phase.WAITING_FOR_MEMBERS)
    assert kinds_of.Join() not in decide(view, me(7, view, contact=""), NOW)


def test_departed_member_joins_again() -> None:
    view = a_view(Phase.ROUND_TRAIN, slots={0: member(0, status=SlotStatus.DEPARTED)})
    assert decide(view, me(0, view), NOW)[0] == kinds_of.Join()


def test_moved_member_updates_its_contact() -> None:
    view = a_view(Phase.WAITING_FOR_MEMBERS)
    found = decide(view, me(0, view, contact_on_chain="/ip4/127.0.0.1/tcp/1"), NOW)
    assert found == [kinds_of.UpdateContact("/ip4/127.0.0.1/tcp/4001")]


@pytest.mark.parametrize("phase", [Phase.WARMUP, Phase.ROUND_TRAIN, Phase.ROUND_WITNESS])
def test_active_member_at_the_head_says_ready(phase: Phase) -> None:
    slots = {i: member(i, ready=i != 1) for i in range(3)}
    view = a_view(phase, slots=slots) if phase == Phase.WARMUP else pipeline(phase, slots=slots)
    assert kinds_of.Ready(1, 1) in decide(view, me(1, view), NOW)
    assert kinds_of.Ready not in kinds(decide(view, me(0, view), NOW))
    behind = me(1, view, history=b"\x09" * 32)
    assert kinds_of.Ready not in kinds(decide(view, behind, NOW))


@pytest.mark.parametrize("phase", [Phase.WAITING_FOR_MEMBERS, Phase.COOLDOWN, Phase.PAUSED, Phase.FINISHED])
def test_ready_is_not_said_where_it_does_not_count(phase: Phase) -> None:
    view = a_view(phase, slots={0: member(0, ready=False)})
    assert kinds_of.Ready not in kinds(decide(view, me(0, view), NOW))


def test_assigned_member_trains_then_commits() -> None:
    view = pipeline(attested=(0, 1, 2))
    assert kinds_of.Train(view.rounds[-1], 1) in decide(view, me(1, view), NOW)
    trained = me(1, view, trained={6: b"\x06" * 32})
    found = decide(view, trained, NOW)
    assert kinds_of.Commit(1, 6, b"\x06" * 32) in found
    assert kinds_of.Train not in kinds(found)


def test_committed_or_unassigned_member_neither_trains_nor_commits() -> None:
    done = pipeline(open_committed=(1,))
    for view, slot in ((done, 1), (pipeline(), 7)):
        found = kinds(decide(view, me(slot, view, trained={6: b"\x06" * 32}), NOW))
        assert kinds_of.Commit not in found
        assert kinds_of.Train not in found


def test_nobody_trains_once_commits_are_over() -> None:
    view = pipeline(Phase.ROUND_WITNESS)
    found = kinds(decide(view, me(1, view, trained={6: b"\x06" * 32}), NOW))
    assert kinds_of.Train not in found
    assert kinds_of.Commit not in found
    assert training_is_over(view, 6, 1)
    assert not training_is_over(pipeline(), 6, 1)
    assert training_is_over(pipeline(), 2, 1)


def test_closed_rounds_are_folded_before_training() -> None:
    view = pipeline()
    found = decide(view, me(1, view, history=b"\x01" * 32), NOW)
    record = record_of(view, view.rounds[0])
    assert record is not None
    assert [d for d in found if isinstance(d, kinds_of.Weights)] == [kinds_of.Fold((record,))]


def test_ring_that_does_not_reach_back_asks_for_catching_up() -> None:
    view = pipeline()
    found = decide(view, me(1, view, history=b"\x02" * 32), NOW)
    assert [d for d in found if isinstance(d, kinds_of.Weights)] == [kinds_of.CatchUp()]


def test_blobs_are_fetched_after_the_commits_are_over_only() -> None:
    view = pipeline(open_committed=(0, 2), committed=(0, 2))
    fetched = [
        d for d in decide(view, me(1, view, held={5: frozenset({0})}), NOW) if isinstance(d, kinds_of.Fetch)
    ]
    assert fetched == [kinds_of.Fetch(5, 2, blob_id(5, 2))]


def test_witness_attests_as_soon_as_all_committed_blobs_are_held() -> None:
    view = pipeline(committed=(0, 2))
    some, everything = {5: frozenset({0})}, {5: frozenset({0, 2})}
    assert kinds_of.Witness not in kinds(decide(view, me(1, view, held=some), NOW))
    assert kinds_of.Witness(1, 5, frozenset({0, 2})) in decide(view, me(1, view, held=everything), NOW)


def test_witness_attests_without_a_blob_that_nobody_has_once_it_holds_up_the_run() -> None:
    lost = {"held": {5: frozenset({0, 1})}, "given_up": {5: frozenset({2})}}
    expected = kinds_of.Witness(1, 5, frozenset({0, 1}))
    view = pipeline()
    assert kinds_of.Witness not in kinds(decide(view, me(1, view, **lost), NOW))
    assert expected in decide(view, me(1, view, **lost), 1000 + CONFIG.max_round_train_time - 1)
    view = pipeline(Phase.ROUND_WITNESS)
    assert expected in decide(view, me(1, view, **lost), NOW)


def test_witness_attests_what_is_there_at_the_deadline() -> None:
    view = pipeline(Phase.ROUND_WITNESS)
    holding = me(1, view, held={5: frozenset({0})})
    deadline = witness_deadline(view)
    assert 1000 + CONFIG.round_witness_time / 2 <= deadline < 1000 + CONFIG.round_witness_time
    assert kinds_of.Witness not in kinds(decide(view, holding, deadline - 0.1))
    assert kinds_of.Witness(1, 5, frozenset({0})) in decide(view, holding, deadline)


def test_only_drawn_witnesses_that_have_not_attested_attest() -> None:
    view = pipeline(attested=(1,))
    held = {5: frozenset({0, 1, 2})}
    assert kinds_of.Witness not in kinds(decide(view, me(1, view, held=held), NOW))
    assert kinds_of.Witness in kinds(decide(view, me(2, view, held=held), NOW))


def cooldown(**more: object) -> ChainView:
    return a_view(
        Phase.COOLDOWN,
        a_round(5, CLOSED, committed=(0, 1, 2), accepted=(0, 1, 2)),
        a_round(6, CLOSED, assigned=(), trained=False),
        **more,
    )


def test_cooldown_saves_validates_attests() -> None:
    view = cooldown()
    found = decide(view, me(1, view, saved=frozenset(), validated=frozenset()), NOW)
    assert found == [kinds_of.Save(view.history, view.step)]
    found = decide(view, me(1, view, validated=frozenset()), NOW)
    attest, offer = kinds_of.Attest(1, view.step, view.history), kinds_of.Offer(view.history)
    assert found == [attest, offer, kinds_of.Validate()]
    slots = {i: member(i, attested=i == 1) for i in range(3)}
    view = cooldown(slots=slots)
    assert decide(view, me(1, view, uris={view.history: ""}), NOW) == []


def test_weights_that_are_not_the_agreed_ones_are_compared_before_anything_else() -> None:
    view = cooldown()
    view = replace(view, checkpoint=replace(view.checkpoint, agreed=True, history=view.history))
    early = decide(view, me(1, view, saved=frozenset(), validated=frozenset()), NOW)
    assert kinds_of.Compare(view.history) in early
    assert not {kinds_of.Save, kinds_of.Validate} & set(kinds(early))
    assert kinds_of.Compare not in kinds(decide(view, me(1, view, compared=view.history), NOW))
    finished = replace(view, phase=Phase.FINISHED)
    assert kinds_of.Finish not in kinds(decide(finished, me(1, view), NOW))
    assert kinds_of.Finish in kinds(decide(finished, me(1, view, compared=view.history), NOW))


def test_member_behind_does_not_attest() -> None:
    view = cooldown()
    assert kinds_of.Attest not in kinds(decide(view, me(1, view, history=b"\x02" * 32), NOW))


def test_everybody_offers_its_parts_and_only_the_uploader_records() -> None:
    slots = {0: member(0, attested=True), 1: member(1, attested=True), 2: member(2, tier=0, attested=True)}
    view = cooldown(slots=slots, uploader=2, uri_missing=True)
    view = replace(view, pending=replace(NO_CHECKPOINT, history=view.history))
    assert decide(view, me(1, view), NOW) == [kinds_of.Offer(view.history)]
    assert decide(view, me(1, view, uris={view.history: ""}), NOW) == []
    assert decide(view, me(2, view), NOW) == [kinds_of.Offer(view.history)]
    uris = {view.history: "peers:ab"}
    assert decide(view, me(2, view, uris=uris), NOW) == [kinds_of.Record(2, view.step, "peers:ab")]
    assert decide(view, me(0, view, uris=uris), NOW + 15) == []


def test_another_full_member_records_for_a_lost_uploader_when_time_runs_out() -> None:
    slots = {
        0: member(0, attested=True),
        1: member(1),
        2: member(2, tier=0, attested=True, ready=False),
    }
    view = cooldown(slots=slots, uploader=2, uri_missing=True)
    view = replace(view, pending=replace(NO_CHECKPOINT, history=view.history))
    mine = me(0, view, uris={view.history: "peers:ab"})
    assert decide(view, mine, NOW) == []
    assert decide(view, mine, 1000 + CONFIG.cooldown_time * 0.5) == [
        kinds_of.Record(0, view.step, "peers:ab")
    ]


@pytest.mark.parametrize(
    ("phase", "after_s"),
    [
        (Phase.WARMUP, CONFIG.warmup_time),
        (Phase.ROUND_TRAIN, CONFIG.max_round_train_time),
        (Phase.ROUND_WITNESS, CONFIG.round_witness_time),
        (Phase.COOLDOWN, CONFIG.cooldown_time),
        (Phase.WAITING_FOR_MEMBERS, CONFIG.waiting_for_members_extra_time),
    ],
)
def test_tick_is_due_when_the_time_of_a_phase_is_over(phase: Phase, after_s: int) -> None:
    slots = {i: member(i, ready=phase != Phase.WARMUP) for i in range(3)}
    view = pipeline(phase, slots=slots) if phase in TRAINING else a_view(phase, slots=slots)
    assert kinds_of.Tick not in kinds(decide(view, me(1, view), 1000 + after_s - 0.1))
    assert kinds_of.Tick(view.nonce) in decide(view, me(1, view), 1000 + after_s)
    assert kinds_of.Tick not in kinds(decide(view, me(7, view), 1000 + after_s)), (
        "strangers do not pay for ticks"
    )


def test_waiting_run_is_not_ticked_without_enough_members() -> None:
    few = a_view(Phase.WAITING_FOR_MEMBERS, slots={i: member(i) for i in range(2)})
    no_full = a_view(Phase.WAITING_FOR_MEMBERS, slots={i: member(i, tier=1) for i in range(3)})
    for view in (few, no_full):
        assert kinds_of.Tick not in kinds(decide(view, me(0, view), 10_000))


def test_stopping_member_leaves_and_does_nothing_else() -> None:
    view = pipeline()
    assert decide(view, me(1, view, stopping=True), NOW) == [kinds_of.Leave(1)]
    assert decide(view, me(7, view, stopping=True), NOW) == []


def test_finished_run_is_saved_and_validated_before_the_end() -> None:
    view = replace(cooldown(), phase=Phase.FINISHED)
    steps = [
        (me(1, view, saved=frozenset(), validated=frozenset()), kinds_of.Save(view.history, view.step)),
        (me(1, view, validated=frozenset()), kinds_of.Validate()),
        (me(1, view), kinds_of.Finish()),
    ]
    for mine, expected in steps:
        assert decide(view, mine, NOW) == [expected]
    assert state_of(view, me(1, view)) == "finished"


def test_finished_run_is_caught_up_with_before_the_end() -> None:
    view = replace(cooldown(), phase=Phase.FINISHED)
    assert decide(view, me(1, view, history=b"\x02" * 32), NOW) == [kinds_of.CatchUp()]


def test_busy_duties_are_not_decided_again() -> None:
    for view in every_view():
        for slot in (0, 1, 7):
            mine = me(slot, view, trained={6: b"\x06" * 32}, revealed=0, held={5: frozenset({0, 1, 2})})
            first = decide(view, mine, 2000.0)
            again = decide(view, replace(mine, busy=frozenset(d.key for d in first)), 2000.0)
            assert not {d.key for d in first} & {d.key for d in again}


def test_a_duty_that_was_done_is_not_owed_any_more() -> None:
    for view in every_view():
        for slot in (0, 1, 2, 7):
            fresh = me(slot, view, saved=frozenset(), validated=frozenset(), revealed=0)
            _run_to_rest(view, fresh)


def _run_to_rest(view: ChainView, mine: MyState) -> None:
    """Carry out everything that is decided; it must come to an end without doing anything twice."""
    seen: set[Duty] = set()
    for _ in range(30):
        todo = [d for d in decide(view, mine, NOW) if not isinstance(d, (kinds_of.Tick, kinds_of.Finish))]
        if not todo:
            return
        assert not seen & set(todo), f"decided twice: {seen & set(todo)}"
        for duty in todo:
            seen.add(duty)
            view, mine = act(view, mine, duty)
    raise AssertionError("there is always something more to do")


def act(view: ChainView, mine: MyState, duty: Duty) -> tuple[ChainView, MyState]:
    """What the chain and the member are like after a duty was done."""
    slot = view.slot_of(mine.wallet)
    index = slot.index if slot else 7
    match duty:
        case kinds_of.Join():
            joined = member(index, status=SlotStatus.WAITING)
            return replace(view, slots={**view.slots, index: replace(joined, wallet=mine.wallet)}), mine
        case kinds_of.Ready():
            return _change(view, index, ready=True), mine
        case kinds_of.Attest():
            return _change(view, index, attested=True), mine
        case kinds_of.Record():
            return replace(view, uri_missing=False), mine
        case kinds_of.Reveal(number):
            return view, replace(mine, revealed=number)
        case kinds_of.Save(history):
            return view, replace(mine, saved=mine.saved | {history})
        case kinds_of.Validate():
            return view, replace(mine, validated=mine.validated | {mine.history})
        case kinds_of.Tidy(history):
            return view, replace(mine, tidied=history)
        case kinds_of.Offer(history):
            return view, replace(mine, uris={**mine.uris, history: "peers:00"})
        case kinds_of.Train(round_):
            return view, replace(mine, trained={**mine.trained, round_.number: b"\x05" * 32})
        case kinds_of.Commit(_, number):
            return _in_round(view, number, "committed", index), mine
        case kinds_of.Witness(_, number):
            return _in_round(view, number, "attested", index), mine
        case kinds_of.Fetch(number, of):
            held = mine.held.get(number, frozenset()) | {of}
            return view, replace(mine, held={**mine.held, number: held})
    raise AssertionError(f"unexpected {duty}")


def _change(view: ChainView, index: int, **changes: bool) -> ChainView:
    return replace(view, slots={**view.slots, index: replace(view.slots[index], **changes)})  # type: ignore[arg-type]


def _in_round(view: ChainView, number: int, name: str, slot: int) -> ChainView:
    rounds = tuple(
        replace(r, **{name: getattr(r, name) | {slot}}) if r.number == number else r
        for r in view.rounds  # type: ignore[arg-type]
    )
    return replace(view, rounds=rounds)


def every_view() -> list[ChainView]:
    """One snapshot or more of every phase."""
    unready = {i: member(i, ready=False) for i in range(3)}
    agreed = cooldown(uploader=0, uri_missing=True)
    return [
        *(a_view(phase) for phase in Phase if phase not in TRAINING),
        a_view(Phase.WARMUP, slots=unready),
        pipeline(),
        pipeline(committed=(0, 2)),
        pipeline(slots=unready),
        pipeline(Phase.ROUND_WITNESS),
        pipeline(Phase.ROUND_WITNESS, open_committed=(0, 1, 2), attested=(0, 1, 2)),
        cooldown(),
        replace(agreed, pending=replace(NO_CHECKPOINT, history=agreed.history)),
        replace(cooldown(), phase=Phase.FINISHED),
    ]


def test_wallet_of_the_helpers_is_its_slot() -> None:
    view = pipeline()
    own = view.slot_of(wallet(2))
    assert own is not None
    assert own.index == 2
