"""`psyche_train.assign` hands out the samples that the program takes back.

The program computes a member's share when its work is not accepted, to hand it out again. The fuzzer compares the
program's accounts with `settlement.give_back` byte for byte over a million transactions; here the members' rule is
compared with that.
"""

from __future__ import annotations

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from psyche_train.assign import intervals
from tests.programs.fuzz import settlement
from tests.train.test_assign import rounds


@given(rounds(), st.integers(0, 2**256 - 1))
def test_what_the_program_takes_back_are_the_shares_of_who_was_not_accepted(case, accepted) -> None:
    samples, fills, data_index, assigned = case
    fills = fills[: settlement.FILLS]
    weights = dict(assigned)
    log = SimpleNamespace(
        slots={i: SimpleNamespace(weight=weight) for i, weight in weights.items()},
        returned=[],
        capacity=10**6,
        checkpoint=SimpleNamespace(data_index=0),
        fills_since_checkpoint=0,
        lost_samples=0,
        lost_since_checkpoint=0,
    )
    mask = sum(1 << i for i in weights)
    round_ = SimpleNamespace(
        assigned=mask,
        accepted=accepted & mask,
        fills=[(fill.start, len(fill)) for fill in fills],
        data_index=data_index,
        samples=samples,
    )
    settlement.give_back(log, round_)
    shares = intervals(samples, fills, data_index, assigned)
    refused = [i for i in weights if not accepted >> i & 1]
    taken_back = [n for start, length in log.returned for n in range(start, start + length)]
    assert taken_back == [n for i in refused for interval in shares[i] for n in interval]
