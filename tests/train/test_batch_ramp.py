"""The batch ramp: the program's rule in Python, its stretches, and what a plan says of a run."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from psyche_train.batch_ramp import MAX_BATCH, MAX_TOKENS, BatchRamp
from psyche_train.schedule_plan import SchedulePlan
from psyche_train.spec import TrainSpec
from tests.train.conftest import tables

U32, U64 = 2**32 - 1, 2**64 - 1


def program(start: int, end: int, warmup: int, data_index: int, seq: int, members: int) -> int:
    """`batch_size` of programs/coordinator/src/machine/data.rs, line for line, with its types' ranges."""
    tokens = data_index * seq
    if tokens > U64:
        tokens = U64  # saturating_mul
    if tokens >= warmup:
        batch = end
    else:
        span = end - start
        assert span >= 0
        ramp = span * tokens
        assert ramp < 2**128
        ramp //= warmup
        assert ramp <= U32
        batch = start + ramp
        assert batch <= U32
    return max(batch, members)


@st.composite
def ramps(draw: Any, batch: int = MAX_BATCH, tokens: int = MAX_TOKENS) -> BatchRamp:
    start, end = sorted((draw(st.integers(1, batch)), draw(st.integers(1, batch))))
    warmup = draw(st.one_of(st.just(0), st.integers(0, tokens)))
    return BatchRamp(
        global_batch_size_start=start, global_batch_size_end=end, global_batch_size_warmup_tokens=warmup
    )


@given(ramps(), st.integers(0, U64), st.integers(1, U32), st.integers(1, 256))
def test_the_batch_is_the_programs(ramp: BatchRamp, data_index: int, seq: int, members: int) -> None:
    found = ramp.samples(data_index, seq, members)
    values = list(ramp.model_dump().values())
    assert found == program(*values, data_index, seq, members)
    assert max(ramp.global_batch_size_start, members) <= found <= max(ramp.global_batch_size_end, members)


@given(ramps(), st.integers(0, 2**40), st.integers(0, 2**40), st.integers(1, 2**20))
def test_the_batch_never_falls(ramp: BatchRamp, data_index: int, more: int, seq: int) -> None:
    assert ramp.samples(data_index + more, seq) >= ramp.samples(data_index, seq)


@settings(max_examples=60)
@given(ramps(60, 20_000), st.integers(1, 64), st.integers(1, 20))
def test_stretches_are_the_rounds_one_after_the_other(ramp: BatchRamp, seq: int, members: int) -> None:
    data_index, expected = 0, []
    for number in range(300):
        samples = ramp.samples(data_index, seq, members)
        expected.append((number, data_index, samples))
        data_index += samples
    found = []
    for stretch in ramp.stretches(seq, members):
        assert stretch.rounds is None or stretch.rounds > 0
        rounds = range(300 if stretch.rounds is None else min(300, stretch.rounds))
        found += [
            (stretch.first + i, stretch.data_index + i * stretch.samples, stretch.samples) for i in rounds
        ]
        if len(found) >= 300:
            break
    assert found[:300] == expected


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ((9, 8, 0), "global_batch_size_start = 9, it must be at most global_batch_size_end = 8"),
        ((0, 8, 0), "global_batch_size_start"),
        ((1, MAX_BATCH + 1, 0), "global_batch_size_end"),
        ((1, 1, -1), "global_batch_size_warmup_tokens"),
        ((1, 1, 2**63), "global_batch_size_warmup_tokens"),
    ],
)
def test_a_wrong_ramp_is_refused_with_its_key(table: tuple[int, int, int], message: str) -> None:
    keys = ("global_batch_size_start", "global_batch_size_end", "global_batch_size_warmup_tokens")
    with pytest.raises(ValidationError, match=message):
        BatchRamp.model_validate(dict(zip(keys, table, strict=True)))


def test_the_largest_ramp_has_no_overflow() -> None:
    ramp = BatchRamp(
        global_batch_size_start=1, global_batch_size_end=MAX_BATCH, global_batch_size_warmup_tokens=MAX_TOKENS
    )
    first = next(islice(ramp.stretches(1), 1))
    assert (first.samples, first.rounds) == (1, -(-MAX_TOKENS // (MAX_BATCH - 1)))
    assert ramp.samples(U64, U32) == MAX_BATCH


def test_a_plan_tells_every_turn_of_a_run() -> None:
    schedule = {"Linear": {"base_lr": 0.1, "warmup_steps": 10, "total_steps": 200, "final_lr": 0.0}}
    spec = TrainSpec.model_validate(tables(lr_schedule=schedule, cold_start_warmup_steps=5, max_seq_len=10))
    ramp = BatchRamp(global_batch_size_start=2, global_batch_size_end=4, global_batch_size_warmup_tokens=1000)
    plan = SchedulePlan(spec, steps=100, ramp=ramp)
    turns = plan.turns()
    assert [(step, what) for step, what in turns if step != turns[3][0]] == [
        (0, "first step"),
        (5, "cold start is over"),
        (10, "warmup is over"),
        (99, "last step"),
    ]
    assert turns[3][1] == "batch is at its end"
    assert plan.beyond() == [(200, "final_lr is reached")]
    points = plan.at([0, 1, turns[3][0], 99])
    assert [point.samples for point in points] == [2, 2, 4, 4]
    assert [point.tokens for point in points[:2]] == [0, 20]
    assert points[2].tokens is not None
    assert points[2].tokens >= 1000 > points[2].tokens - 10 * 4
    sampled = plan.sampled(50)
    assert sampled == sorted(set(sampled))
    assert {0, 4, 5, 9, 10, 99} <= set(sampled)


def test_a_plan_of_ten_thousand_million_steps_is_quick() -> None:
    spec = TrainSpec.model_validate(tables())
    ramp = BatchRamp(
        global_batch_size_start=8, global_batch_size_end=4096, global_batch_size_warmup_tokens=10**12
    )
    plan = SchedulePlan(spec, steps=10**10, ramp=ramp)
    last = plan.at(plan.sampled(100))[-1]
    assert (last.step, last.samples) == (10**10 - 1, 4096)


def test_a_plan_without_a_batch_has_the_rate_only() -> None:
    plan = SchedulePlan(TrainSpec.model_validate(tables()), steps=1, ramp=None)
    assert plan.turns() == [(0, "first step")]
    assert plan.at(plan.sampled(10))[0].samples is None
