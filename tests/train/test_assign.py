"""The assignment of samples: a partition, proportional, stable; integers only."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psyche_train.assign import AssignmentError, intervals, num_samples


@st.composite
def rounds(draw: st.DrawFn) -> tuple[int, list[range], int, list[tuple[int, int]]]:
    slots = sorted(draw(st.sets(st.integers(0, 255), min_size=1, max_size=40)))
    weights = draw(st.lists(st.integers(1, 65_535), min_size=len(slots), max_size=len(slots)))
    samples = draw(st.integers(len(slots), 5000))
    fills: list[range] = []
    room, at = samples, 0
    for gap, length in draw(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 400)), max_size=8)):
        length = min(length, room)
        if length == 0:
            break
        fills.append(range(at + gap, at + gap + length))
        room, at = room - length, at + gap + length
    data_index = draw(st.integers(at + 1, 2**60))
    return samples, fills, data_index, list(zip(slots, weights, strict=True))


@given(rounds())
def test_intervals_are_a_partition_of_the_rounds_samples(case):
    samples, fills, data_index, assigned = case
    shares = intervals(samples, fills, data_index, assigned)
    num_new = samples - num_samples(fills)
    expected = [i for fill in fills for i in fill] + list(range(data_index, data_index + num_new))
    assert [i for slot, _ in assigned for interval in shares[slot] for i in interval] == expected


@given(rounds())
def test_intervals_give_everybody_a_proportional_share(case):
    samples, fills, data_index, assigned = case
    shares = intervals(samples, fills, data_index, assigned)
    total, spare = sum(weight for _, weight in assigned), samples - len(assigned)
    for slot, weight in assigned:
        assert abs(num_samples(shares[slot]) - 1 - spare * weight / total) < 1


def test_intervals_golden_example():
    fills = [range(10, 13), range(20, 21)]
    assert intervals(12, fills, 100, [(0, 1), (3, 2), (7, 1)]) == {
        0: [range(10, 13)],
        3: [range(20, 21), range(100, 104)],
        7: [range(104, 108)],
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((5, [], 0, []), "nobody"),
        ((1, [], 0, [(0, 1), (1, 1)]), "at least one"),
        ((5, [], 0, [(0, 0)]), "at least 1"),
        ((5, [], 0, [(1, 1), (1, 1)]), "ascending"),
        ((5, [range(9)], 0, [(1, 1)]), "fills hold"),
        ((5, [], 2**64, [(1, 1)]), "u64"),
    ],
)
def test_intervals_of_an_impossible_round_are_refused(arguments, message):
    with pytest.raises(AssignmentError, match=message):
        intervals(*arguments)
