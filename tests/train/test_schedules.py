"""Learning-rate schedules at their edges: first and last step, past the end, warmup, cold start, huge numbers."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from psyche_train.schedules import (
    ConstantSchedule,
    CosineSchedule,
    LinearSchedule,
    Schedule,
    WarmupStableDecaySchedule,
    half_cosine,
)
from psyche_train.spec import TrainSpec
from tests.train.conftest import tables

LONG = 10**10
KINDS = {"Constant": ConstantSchedule, "Linear": LinearSchedule, "Cosine": CosineSchedule}
rates = st.floats(1e-9, 10, allow_nan=False)
lengths = st.one_of(st.integers(0, 40), st.integers(0, LONG))


@st.composite
def schedules(draw: Any) -> Schedule:
    """Any schedule that a run may have."""
    base = draw(rates)
    lower = st.floats(0, 1).map(lambda share: share * base)
    common = {"base_lr": base, "warmup_init_lr": draw(lower)}
    kind = draw(st.sampled_from(["Constant", "Linear", "Cosine", "WarmupStableDecay"]))
    if kind == "Constant":
        return ConstantSchedule(**common, warmup_steps=draw(lengths))
    if kind in ("Linear", "Cosine"):
        total = draw(st.one_of(st.integers(1, 40), st.integers(1, LONG)))
        warmup = draw(st.one_of(st.integers(0, total - 1), st.just(total - 1)))
        return KINDS[kind](**common, warmup_steps=warmup, total_steps=total, final_lr=draw(lower))
    cosine = draw(lower)
    return WarmupStableDecaySchedule(
        **common,
        warmup_steps=draw(lengths),
        stable_steps=draw(lengths),
        cosine_decay_steps=draw(lengths),
        cosine_decay_final_lr=cosine,
        linear_decay_steps=draw(lengths),
        linear_decay_final_lr=draw(st.floats(0, 1)) * min(cosine, base),
    )


def last_turn(schedule: Schedule) -> int:
    return max([0, *(step for step, _ in schedule.turns())])


@given(schedules(), st.integers(0, 4 * LONG))
def test_every_rate_is_finite_and_between_zero_and_base(schedule: Schedule, step: int) -> None:
    assert 0.0 <= schedule.at(step) <= schedule.base_lr


@given(schedules(), st.integers(0, 4 * LONG), st.integers(1, LONG))
def test_the_rate_rises_in_the_warmup_and_never_after_it(schedule: Schedule, step: int, more: int) -> None:
    step = step % (last_turn(schedule) + 50)
    now, later = schedule.at(step), schedule.at(step + more)
    slack = 1e-14 * schedule.base_lr
    if step + more < schedule.warmup_steps:
        assert later >= now - slack
    elif step >= schedule.warmup_steps - 1:
        assert later <= now + slack


@given(schedules(), st.integers(0, LONG))
def test_past_its_end_a_schedule_stays_where_it_is(schedule: Schedule, more: int) -> None:
    end = last_turn(schedule)
    assert schedule.at(end + more) == schedule.at(end)


@given(schedules())
def test_turns_ascend_and_the_rates_there_are_exact(schedule: Schedule) -> None:
    steps = [step for step, _ in schedule.turns()]
    assert steps == sorted(steps)
    if schedule.warmup_steps:
        assert schedule.at(schedule.warmup_steps - 1) == schedule.base_lr
    if isinstance(schedule, LinearSchedule | CosineSchedule):
        assert schedule.at(schedule.warmup_steps) == schedule.base_lr
        assert schedule.at(schedule.total_steps) == schedule.final_lr
    if isinstance(schedule, WarmupStableDecaySchedule) and schedule.linear_decay_steps:
        assert schedule.at(steps[-1]) == schedule.linear_decay_final_lr


@given(rates, st.integers(1, LONG))
def test_the_first_step_learns(base: float, warmup: int) -> None:
    assert ConstantSchedule(base_lr=base, warmup_steps=warmup).at(0) > 0.0


@pytest.mark.parametrize("kind", [LinearSchedule, CosineSchedule])
def test_a_warmup_of_all_steps_but_one_is_followed_by_the_end(kind: type[Any]) -> None:
    schedule = kind(base_lr=1.0, warmup_steps=9, total_steps=10, final_lr=0.25)
    assert [schedule.at(step) for step in (8, 9, 10, 11, LONG)] == [1.0, 1.0, 0.25, 0.25, 0.25]


def test_one_step_without_warmup_has_the_base_rate() -> None:
    for kind in (LinearSchedule, CosineSchedule):
        assert kind(base_lr=0.5, total_steps=1, final_lr=0.0).at(0) == 0.5


def test_ten_thousand_million_steps() -> None:
    schedule = CosineSchedule(base_lr=1.0, warmup_steps=0, total_steps=LONG, final_lr=0.0)
    assert schedule.at(LONG // 2) == pytest.approx(0.5)
    assert 0.0 <= schedule.at(LONG - 1) < 1e-18
    assert schedule.at(2**64) == 0.0


def test_a_negative_step_is_refused() -> None:
    with pytest.raises(ValueError, match="step -1 is negative"):
        ConstantSchedule(base_lr=1.0).at(-1)


@given(st.floats(0, 1))
def test_the_cosine_is_that_of_the_formula(progress: float) -> None:
    assert half_cosine(progress) == pytest.approx((1 + math.cos(math.pi * progress)) / 2, abs=1e-15)


@pytest.mark.parametrize(
    ("kind", "table", "message"),
    [
        (
            "Constant",
            {"base_lr": 0.1, "warmup_init_lr": 0.2},
            r"warmup_init_lr = 0.2 must be at most base_lr = 0.1",
        ),
        ("Constant", {"base_lr": 0.0}, r"base_lr"),
        ("Constant", {"base_lr": 0.1, "warmup_steps": -1}, r"warmup_steps"),
        ("Constant", {"base_lr": 0.1, "warmup_steps": LONG + 1}, r"warmup_steps"),
        ("Constant", {"base_lr": 0.1, "warmup_steps": 1.5}, r"warmup_steps"),
        (
            "Linear",
            {"base_lr": 0.1, "total_steps": 5, "final_lr": 0.2},
            r"final_lr = 0.2 must be at most base_lr",
        ),
        (
            "Cosine",
            {"base_lr": 0.1, "total_steps": 5, "final_lr": 0.2},
            r"final_lr = 0.2 must be at most base_lr",
        ),
        ("Cosine", {"base_lr": 0.1, "total_steps": 0, "final_lr": 0.0}, r"total_steps"),
        ("Cosine", {"base_lr": 0.1, "final_lr": 0.0}, r"total_steps"),
        (
            "Cosine",
            {"base_lr": 0.1, "warmup_steps": 5, "total_steps": 5, "final_lr": 0.0},
            r"warmup_steps = 5 must be below total_steps = 5",
        ),
        (
            "WarmupStableDecay",
            {"base_lr": 0.1, "stable_steps": 1, "cosine_decay_steps": 2, "cosine_decay_final_lr": 0.2},
            r"cosine_decay_final_lr = 0.2 must be at most base_lr = 0.1",
        ),
        (
            "WarmupStableDecay",
            {
                "base_lr": 0.1,
                "stable_steps": 1,
                "cosine_decay_steps": 2,
                "cosine_decay_final_lr": 0.01,
                "linear_decay_steps": 2,
                "linear_decay_final_lr": 0.02,
            },
            r"linear_decay_final_lr = 0.02 must be at most cosine_decay_final_lr = 0.01",
        ),
    ],
)
def test_a_wrong_schedule_is_refused_when_the_run_is_made(
    kind: str, table: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        TrainSpec.model_validate(tables(lr_schedule={kind: table}))


@given(st.integers(1, 60), st.integers(0, 60))
def test_a_cold_start_scales_the_schedule_and_ends(cold: int, warmup: int) -> None:
    table = {"lr_schedule": {"Constant": {"base_lr": 0.5, "warmup_steps": warmup}}}
    spec = TrainSpec.model_validate(tables(cold_start_warmup_steps=cold, **table))
    plain = TrainSpec.model_validate(tables(**table))
    for step in (0, cold - 1, cold, cold + 1, warmup, LONG):
        share = min(1.0, (step + 1) / cold)
        assert spec.learning_rate(step) == pytest.approx(plain.learning_rate(step) * share, rel=1e-15)
    assert spec.learning_rate(0) > 0
    assert spec.learning_rate(cold - 1) == plain.learning_rate(cold - 1)
