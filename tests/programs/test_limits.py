"""Compute units and transaction sizes with 256 members, against the limits that the design sets.

`units.json` records what each instruction costs; a rise of more than 3 % fails. WRITE_FIXTURE=1 writes it
anew.
"""

import json
import os
from pathlib import Path

import pytest
from chain_harness import Chain, Run, bitmap, commitment

FIXTURE = Path(__file__).with_name("units.json")
MEMBERS = 256
MAX_TRANSACTION = 1232


class Meter:
    """The dearest and largest transaction of each kind."""

    def __init__(self) -> None:
        self.units: dict[str, int] = {}
        self.sizes: dict[str, int] = {}

    def note(self, name, receipt) -> None:
        self.units[name] = max(self.units.get(name, 0), receipt.units)
        self.sizes[name] = max(self.sizes.get(name, 0), receipt.size)


@pytest.fixture(scope="module")
def meter():
    """A run of 256 members through a whole epoch; every duty is metered."""
    chain, meter = Chain(), Meter()
    run = Run(chain, capacity=MEMBERS)
    run.start(
        init_min_clients=MEMBERS,
        total_steps=3,
        global_batch_size_start=MEMBERS * 2,
        global_batch_size_end=MEMBERS * 2,
    )
    run.act("set_round_rate", rate=1_000_003)
    members = [run.member(tier=i % 2) for i in range(MEMBERS)]
    for m in members[:-1]:
        meter.note("join", run.join(m, contact="x" * 128))
    meter.note("join that starts the epoch", run.join(members[-1], contact="x" * 128))
    for m in members:
        last = m is members[-1]
        meter.note("ready that opens a round" if last else "ready", run.duty("ready", m))
    while run.state.phase == "RoundTrain":
        play_round(run, members, meter)
    step, uploader = run.state.step, run.state.uploader
    for m in members:
        digests = [bytes([p]) * 32 for p in range(2 - m.tier)]
        meter.note("attest_checkpoint", run.duty("attest_checkpoint", m, step=step, digests=digests))
    meter.note("record_checkpoint", run.duty("record_checkpoint", members[uploader], uri="x" * 128))
    assert run.state.phase == "Finished"
    meter.note("settle", run.settle(members[0]))
    meter.note("leave", run.duty("leave", members[0]))
    return meter


def play_round(run: Run, members, meter: Meter) -> None:
    """Everyone does its duty; the dearest is the one that makes everything due."""
    state = run.state
    before = next((r for r in state.rounds if r.number == state.open.number - 1 and r.status == 2), None)
    committed = before.committed if before else set()
    nonce_of_phase = state.open.number
    for m in members:
        if m.slot in state.open.assigned:
            args = {"round": state.open.number, "hash": commitment(m, state.open.number)}
            receipt = run.duty("commit", m, **args)
            due = any(name == "PhaseChanged" for name, _ in receipt.events)
            meter.note("commit that makes phases due" if due else "commit", receipt)
    for m in members:
        if before is not None and m.slot in before.witnesses:
            receipt = run.duty("witness", m, round=before.number, bitmap=bitmap(committed))
            due = any(name == "PhaseChanged" for name, _ in receipt.events)
            meter.note("witness that makes phases due" if due else "witness", receipt)
    assert run.state.open.number != nonce_of_phase or run.state.phase == "Cooldown"
    run.chain.pass_time(1)


@pytest.mark.slow
def test_duties_hold_their_limits(meter):
    assert meter.units["commit"] <= 15_000
    assert meter.units["witness"] <= 15_000
    assert meter.units["join"] <= 40_000
    assert max(meter.units.values()) <= 200_000


@pytest.mark.slow
def test_transactions_fit(meter):
    assert max(meter.sizes.values()) <= MAX_TRANSACTION


@pytest.mark.slow
def test_units_have_not_risen(meter):
    if os.environ.get("WRITE_FIXTURE"):
        FIXTURE.write_text(json.dumps(meter.units, indent=2, sort_keys=True) + "\n")
    recorded = json.loads(FIXTURE.read_text())
    assert recorded.keys() == meter.units.keys()
    risen = {
        name: (recorded[name], units) for name, units in meter.units.items() if units > recorded[name] * 1.03
    }
    assert not risen, f"dearer than recorded: {risen}"
