"""Links without a network: what is drawn, how long lines are busy, who is cut off."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localnet.faults.links import MIN_RTO_S, PACKET_BYTES, Fabric, Link


@given(
    loss=st.floats(0, 0.9),
    latency_s=st.floats(0, 2),
    jitter_s=st.floats(0, 1),
)
def test_two_halves_make_the_path_that_was_asked_for(loss: float, latency_s: float, jitter_s: float) -> None:
    link = Link.half_of(loss=loss, latency_s=latency_s, jitter_s=jitter_s)
    fabric = Fabric({0: link, 1: link})
    assert fabric.loss(0, 1) == pytest.approx(loss, abs=1e-9)
    delay_s = fabric.delay_s(0, 1, fabric.stream(0, 1))
    assert latency_s - 1e-9 <= delay_s <= latency_s + jitter_s + 1e-9


def test_a_line_serves_one_packet_after_another_and_each_direction_by_itself() -> None:
    fabric = Fabric({0: Link(up_bytes_s=100, down_bytes_s=1000)})
    assert fabric.passed_at(0, 1, 50, now=10.0) == 10.5
    assert fabric.passed_at(0, 2, 50, now=10.0) == 11.0
    assert fabric.passed_at(1, 0, 50, now=10.0) == pytest.approx(10.05)
    assert fabric.passed_at(1, 2, 50, now=10.0) == 10.0


def test_the_same_seed_draws_the_same_and_another_does_not() -> None:
    link = Link(loss=0.3, jitter_s=0.1)

    def drawn(seed: int, source: int) -> list[float]:
        fabric = Fabric({0: link, 1: link}, seed)
        rng = fabric.stream(source, 1 - source)
        return [fabric.retransmission_s(source, 1 - source, 20_000, rng) for _ in range(20)]

    assert drawn(1, 0) == drawn(1, 0)
    assert drawn(1, 0) != drawn(2, 0)
    assert drawn(1, 0) != drawn(1, 1)


def test_each_connection_of_two_members_draws_its_own_numbers() -> None:
    fabric = Fabric({}, 1)
    assert fabric.stream(0, 1).random() != fabric.stream(0, 1).random()


def test_retransmission_doubles_from_the_timeout_and_happens_as_often_as_packets_are_lost() -> None:
    fabric = Fabric({0: Link(loss=0.3, latency_s=0.1)}, 3)
    rng = fabric.stream(0, 1)
    rto_s = MIN_RTO_S + 0.2
    delays = [fabric.retransmission_s(0, 1, PACKET_BYTES, rng) for _ in range(4000)]
    lost = [d for d in delays if d]
    assert len(lost) / len(delays) == pytest.approx(0.3, abs=0.03)
    assert {round(d / rto_s) for d in lost} <= {2**n - 1 for n in range(1, 7)}
    assert sum(round(d / rto_s) == 1 for d in lost) / len(lost) == pytest.approx(0.7, abs=0.05)
    assert Fabric({}).retransmission_s(0, 1, 10**6, rng) == 0


def test_a_partition_cuts_the_two_sides_and_nothing_within_a_side() -> None:
    fabric = Fabric({})
    fabric.partition([0, 1])
    assert fabric.is_cut(0, 2)
    assert fabric.is_cut(2, 1)
    assert fabric.is_cut(0, None)
    assert not fabric.is_cut(0, 1)
    assert not fabric.is_cut(2, 3)
    fabric.heal()
    assert not fabric.is_cut(0, 2)


@pytest.mark.parametrize(
    "bad",
    [
        {"loss": 1.0},
        {"loss": -0.1},
        {"latency_s": -1},
        {"jitter_s": math.nan},
        {"up_bytes_s": 0},
        {"down_bytes_s": -1},
        {"loss": math.nan},
    ],
)
def test_a_link_that_cannot_be_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="Link"):
        Link(**bad)
