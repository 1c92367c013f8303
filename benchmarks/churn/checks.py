"""What must hold after every scenario: equal weights, the log, pay in proportion, no lost sample.

Told by files and transactions, not by members: weights are hashed again from the checkpoints, log, pay and
samples are computed again from the chain's events.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from localnet.run.summary import expected_pay, read_weights
from psyche_chain.chain.accounts import Run
from psyche_chain.chain.state import RunState
from psyche_chain.config import RunConfig
from psyche_train.assign import cuts
from psyche_train.records import GENESIS, MAX_SLOTS, RoundRecord
from tests.e2e.ledger import read_ledger


class Problem(Exception):
    """A scenario did not go as it must; the text says what was seen."""


Shown = tuple[str, int, Path, str]
"""Name of a member, its tier, its newest checkpoint, and the weights hash that it claims."""


def broken_promises(
    url: str, run: Run, state: RunState, config: RunConfig, living: Sequence[Shown]
) -> list[str]:
    """Compare members with each other and with the chain; one sentence for each promise that is broken.

    Args:
        state: of the paused run.
        living: members that take part, in any order.
    """
    found: list[str] = []
    if not state.checkpoint.agreed or state.checkpoint.step != state.step:
        found.append(f"no checkpoint was agreed at step {state.step}, the last is of {state.checkpoint.step}")
    found += _weights(state, config, living)
    ledger = read_ledger(url, run.run_state)
    records = ledger.records(state.spec_hash)
    history = GENESIS
    for record in records:
        history = record.next_history(history)
    if history != state.history:
        found.append("the rounds in the transactions do not lead to the history on chain")
    earned = expected_pay(records, state.round_rate, state.config.pay_per_tier)
    found += [
        f"slot {slot.index} earned {slot.earned}, its accepted rounds make {earned.get(slot.index, 0)}"
        for slot in state.members()
        if slot.earned != earned.get(slot.index, 0)
    ]
    trained, waiting = sum(_samples(record) for record in records), sum(map(len, state.returned))
    if trained + waiting != state.data_index:
        found.append(
            f"{state.data_index} samples were given out, {trained} trained and {waiting} are to be given out again"
        )
    return found


def _weights(state: RunState, config: RunConfig, living: Sequence[Shown]) -> list[str]:
    found: list[str] = []
    held = {name: read_weights(path, config.spec) for name, _tier, path, _hash in living}
    full = [name for name, tier, _path, _hash in living if tier == 0]
    if not full:
        return ["no member of tier 0 is there"]
    first = held[full[0]]
    if first.hash != state.checkpoint.weights_hash:
        found.append(
            f"{full[0]} has weights {first.hash.hex()[:16]}, "
            f"the chain agreed on {state.checkpoint.weights_hash.hex()[:16]}"
        )
    for name, tier, _path, claimed in living:
        weights = held[name]
        if weights.digests != first.digests[: len(weights.digests)]:
            found.append(f"{name} (tier {tier}) has other weights than {full[0]}")
        if weights.hash.hex() != claimed:
            found.append(f"{name} claims weights {claimed[:16]}, its file has {weights.hash.hex()[:16]}")
    return found


def _samples(record: RoundRecord) -> int:
    """Samples of a round that were trained and accepted."""
    if not record.trained:
        return 0
    assigned = [slot for slot in range(MAX_SLOTS) if record.is_assigned(slot)]
    edges = cuts(record.samples, [1] * len(assigned))  # an open run: every weight is 1
    accepted = {entry.slot for entry in record.accepted}
    return sum(edges[i + 1] - edges[i] for i, slot in enumerate(assigned) if slot in accepted)
