"""Which samples of a round each member trains: the coordinator's rule, a second time, in Python.

The program (`programs/coordinator/src/machine/`) and this module compute the same integers from the same
chain state; a property test compares them. No floating point.

A round's samples are a list of *virtual positions* ``0..samples``: first the intervals that earlier rounds
handed back (`fills`, oldest first), then new data from `data_index` on. The assigned slots take consecutive
virtual intervals in proportion to their weight, each at least one sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

MAX_SAMPLE = 2**64 - 1
"""Sample numbers are u64 on chain."""


class AssignmentError(ValueError):
    """The inputs cannot come from a chain state: a repeated slot, a weight of zero, too few samples."""


def cuts(samples: int, weights: Sequence[int]) -> list[int]:
    """Return the ``len(weights) + 1`` virtual positions at which the members' shares begin and end.

    Member ``i`` takes ``[cut[i], cut[i + 1])`` with ``cut[i] = i + floor((samples - n) * P_i / W)``, where
    ``P_i`` is the sum of the weights before ``i`` and ``W`` that of all: one sample each, and the rest in
    proportion.

    Raises:
        AssignmentError: nobody is assigned, a weight is below one, or there are fewer samples than members.
    """
    num = len(weights)
    if num == 0:
        raise AssignmentError("nobody is assigned: a trained round has at least one member")
    if any(weight < 1 for weight in weights):
        raise AssignmentError(f"weights are {list(weights)}: each must be at least 1")
    if samples < num:
        raise AssignmentError(f"{samples} samples for {num} members: each takes at least one")
    total = sum(weights)
    positions, before = [0], 0
    for i, weight in enumerate(weights, start=1):
        before += weight
        positions.append(i + (samples - num) * before // total)
    return positions


def intervals(
    samples: int, fills: Sequence[range], data_index: int, assigned: Sequence[tuple[int, int]]
) -> dict[int, list[range]]:
    """Return every assigned slot's samples as half-open intervals of sample numbers.

    Args:
        samples: samples of the round, fills included.
        fills: intervals taken from the returned ones, in the round's order.
        data_index: first new sample of the round.
        assigned: ``(slot, weight)``, slots ascending.

    Returns:
        ``slot -> intervals`` in virtual order; together they are a partition of the round's samples.

    Raises:
        AssignmentError: the inputs contradict one another.
    """
    slots = [slot for slot, _ in assigned]
    if any(left >= right for left, right in pairwise(slots)):
        raise AssignmentError(f"slots {slots} are not ascending")
    if any(len(fill) == 0 or fill.step != 1 for fill in fills):
        raise AssignmentError(f"fills {list(fills)} must be non-empty intervals")
    num_filled = sum(len(fill) for fill in fills)
    if num_filled > samples:
        raise AssignmentError(f"fills hold {num_filled} samples, the round only {samples}")
    if not 0 <= data_index <= MAX_SAMPLE - samples:
        raise AssignmentError(f"data_index {data_index} is outside u64")
    pieces = [*fills, range(data_index, data_index + samples - num_filled)]
    positions = cuts(samples, [weight for _, weight in assigned])
    return {
        slot: _take(pieces, start, stop)
        for slot, (start, stop) in zip(slots, pairwise(positions), strict=True)
    }


def num_samples(samples: Sequence[range]) -> int:
    """Number of samples in a list of intervals."""
    return sum(len(interval) for interval in samples)


def _take(pieces: Sequence[range], start: int, stop: int) -> list[range]:
    """The virtual interval ``[start, stop)`` of the concatenation of `pieces`, neighbours merged."""
    taken: list[range] = []
    offset = 0
    for piece in pieces:
        part = piece[max(0, start - offset) : max(0, stop - offset)]
        if len(part) > 0:
            if taken and taken[-1].stop == part.start:
                taken[-1] = range(taken[-1].start, part.stop)
            else:
                taken.append(part)
        offset += len(piece)
    return taken
