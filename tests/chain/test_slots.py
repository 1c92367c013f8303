"""Who is believed about the slot: those that lag, lie, stand still or go back must neither win nor freeze."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psyche_chain.chain.slots import FROZEN_S, PATIENCE_S, SlotWatch, Stale

FAR = 10**9


def believes(watch: SlotWatch, endpoint: int, slot: int, now: float) -> bool:
    try:
        watch.judge(endpoint, slot, now)
    except Stale:
        return False
    return True


def test_one_that_lags_is_refused_until_it_catches_up() -> None:
    watch = SlotWatch()
    assert believes(watch, 0, 1000, 0)
    assert not believes(watch, 1, 990, 0.5)
    assert believes(watch, 1, 1000, 1)


def test_nobody_as_new_for_long_is_believed_again() -> None:
    watch = SlotWatch()
    assert believes(watch, 0, 1000, 0)
    watch.drop(0)
    assert not believes(watch, 1, 900, PATIENCE_S / 2)
    assert believes(watch, 1, 901, PATIENCE_S + 0.1)


@pytest.mark.parametrize("slot", [FAR, 2**63 - 1])
def test_far_future_of_one_against_two_is_refused_whoever_came_first(slot: int) -> None:
    watch = SlotWatch()
    assert believes(watch, 0, slot, 0)  # nobody else is known yet
    believes(watch, 1, 1000, 0.1)
    assert believes(watch, 2, 1001, 0.2)
    assert not believes(watch, 0, slot + 1, 0.3)
    assert believes(watch, 1, 1001, 0.4)


def test_leap_of_one_that_was_right_before_is_refused() -> None:
    watch = SlotWatch()
    assert believes(watch, 0, 1000, 0)
    assert believes(watch, 1, 1000, 0.1)
    assert not believes(watch, 1, FAR, 0.5)
    assert believes(watch, 0, 1001, 0.6)
    assert not believes(watch, 1, 1002, 1.0), "it is not asked for a while"
    watch.drop(0)
    assert believes(watch, 1, 1003, 1.4), "unless there is nobody else"


def test_lie_of_the_only_endpoint_does_not_outlive_it() -> None:
    watch = SlotWatch()
    assert believes(watch, 0, FAR, 0)
    assert believes(watch, 0, 1000, 0.4)


def test_one_that_stands_still_loses_against_one_that_goes_on() -> None:
    watch = SlotWatch()
    assert believes(watch, 0, FAR, 0)
    refused = [not believes(watch, 1, 1000 + t, t) for t in range(1, 6)]
    assert all(refused), "undecided: it may lag, and the chain goes on from what was seen"
    for t in range(6, 12):
        believes(watch, 0, FAR, t)
    assert believes(watch, 1, 1012, FROZEN_S + 4)
    assert not believes(watch, 0, FAR, FROZEN_S + 4.1)


def test_one_whose_blockhash_never_changes_stands_still() -> None:
    watch = SlotWatch()
    for t in range(0, 21, 10):
        watch.note(0, FAR + t, t, "same")
        watch.note(1, 1000 + t, t, f"hash {t}")
    assert watch.trusted(20) == {1}


def test_impossible_slot_of_a_landing_is_ignored() -> None:
    watch = SlotWatch()
    assert believes(watch, 0, 1000, 0)
    watch.observe(0, FAR, 1)
    assert believes(watch, 0, 1001, 1)
    watch.observe(0, 1003, 1.5)
    assert not believes(watch, 0, 1002, 1.6)


LIES = st.one_of(st.integers(0, 2**63 - 1), st.integers(-100, 700).map(lambda by: ("off", by)), st.none())


@settings(max_examples=150, deadline=None)
@given(lies=st.lists(LIES, min_size=1, max_size=120), first=st.booleans())
def test_no_liar_can_keep_the_client_without_an_answer(lies: list[object], first: bool) -> None:
    """As the pool asks: the believed one first, the other if it is refused; a liar may also be silent."""
    watch, answered_at, honest_at = SlotWatch(), 0.0, 0.0
    for turn, lie in enumerate(lies):
        now = turn * 0.5
        truth = 1000 + int(now * 2.5)
        slot = truth + lie[1] if isinstance(lie, tuple) else lie
        for endpoint in (1, 0) if first else (0, 1):
            if endpoint == 1 and slot is None:
                watch.drop(1)
                continue
            if believes(watch, endpoint, truth if endpoint == 0 else slot, now):  # type: ignore[arg-type]
                answered_at = now
                honest_at = now if endpoint == 0 else honest_at
                break
        assert now - answered_at <= PATIENCE_S + 1, (turn, lie)
