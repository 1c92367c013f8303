"""The simulator: the same every time, right about members that are right, and not blind to bugs."""

from __future__ import annotations

import dataclasses
import functools
import json
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pytest

from localnet.cli import main
from localnet.simulator import campaign, schedule
from localnet.simulator.campaign import many, some
from localnet.simulator.places import places
from localnet.simulator.plan import EVERYBODY, KINDS, Fault, Plan, draw
from localnet.simulator.schedule import Outcome, play
from localnet.simulator.shrink import shrink
from localnet.simulator.tally import Drawing
from psyche_chain.cli import exit_codes
from psyche_chain.errors import ConfigError
from tests.localnet.simulator.broken import BUGS

FEW_SEEDS = 8
"""Schedules within which each planted bug is found."""


def test_schedules_without_faults_finish_and_pay() -> None:
    tally = some(range(4), Drawing(faults=0))
    assert tally.failures == []
    assert tally.events["error"] == 0
    assert tally.events["fold"] > 0
    assert tally.faults.total() == 0


def test_schedules_with_faults_keep_what_must_hold() -> None:
    tally = some(range(8), Drawing())
    assert tally.failures == []
    assert tally.faults.total() > 10, "hardly a fault was met"


@pytest.mark.parametrize("seed", [4579, 4736, 5010, 6753])
def test_nobody_waits_past_the_end_for_a_checkpoint_that_was_dropped(seed: int) -> None:
    """A late member asked ten minutes for blobs of a checkpoint that the others had replaced meanwhile."""
    assert play(draw(seed)).violations == []


@pytest.mark.slow
def test_more_schedules_on_two_processes_keep_what_must_hold() -> None:
    told: list[int] = []
    tally = many(500, 40, Drawing(), workers=2, progress=lambda t: told.append(t.schedules))
    assert tally.failures == []
    assert tally.schedules == told[-1] == 40
    assert len(tally.faults) > len(KINDS) // 2, "half of the kinds of fault were never met"


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_of_fault_is_survived(kind: str) -> None:
    plan = draw(7, members=3, faults=2, kinds=(kind,))
    early = tuple(dataclasses.replace(f, at=150 + 200 * n) for n, f in enumerate(plan.faults))
    only = tuple(f for f in early if f.kind == kind)  # a lost disk and a crash may take the last copy
    outcome = play(dataclasses.replace(plan, faults=only, total_steps=5, late_s=()))
    assert outcome.violations == []
    assert outcome.met.total() >= 1


@pytest.mark.parametrize("at", [500, 600])
def test_disk_lost_after_the_end_is_nobodys_fault(at: int) -> None:
    base = dataclasses.replace(draw(7, members=3, faults=0), total_steps=4, late_s=())
    outcome = play(dataclasses.replace(base, faults=(Fault("wipe", 1, at, 60.0),)))
    assert outcome.violations == []
    assert outcome.met["wipe"] == 1


@pytest.mark.parametrize("seed", [49, 74])
def test_member_refuses_the_end_where_the_last_copy_is_lost(seed: int) -> None:
    plan = draw(seed, faults=6, kinds=("damage", "crash", "wipe"))
    outcome = play(plan, keep_trace=True)
    assert outcome.violations == []
    assert any('exit {"code": 1}' in line for line in outcome.trace), "nobody refused"


def test_member_refuses_the_end_where_a_part_of_the_agreed_checkpoint_is_lost() -> None:
    """The only full member's disk lost a part that it offered; its index is still to be had."""
    outcome = play(draw(4542), keep_trace=True)
    assert outcome.violations == []
    assert any('exit {"code": 1}' in line for line in outcome.trace), "nobody refused"


def test_fault_begins_where_it_was_asked_to() -> None:
    place = "acts.Acts._train:1"
    plan = dataclasses.replace(draw(7, members=3, faults=0), total_steps=4)
    outcome = play(dataclasses.replace(plan, faults=(Fault("crash", EVERYBODY, 0, 5.0, place=place),)))
    assert outcome.violations == []
    assert outcome.places[("crash", place)] == 1
    assert {place for _, place in outcome.places} <= set(places())


class Deadly(Drawing):
    """A drawing with one schedule that takes its process with it."""

    def plan(self, seed: int) -> Plan:
        if seed == 1 and multiprocessing.parent_process() is not None:
            os._exit(3)
        return super().plan(seed)


@pytest.mark.slow
def test_process_that_dies_costs_one_schedule() -> None:
    tally = many(0, 4, Deadly(members=2, faults=0), workers=2)
    assert tally.schedules == 4
    assert [(f.seed, f.kind) for f in tally.failures] == [(1, "simulator")]
    assert "status 3" in tally.failures[0].message


def test_error_of_the_simulator_does_not_end_the_campaign(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(plan: Plan) -> Outcome:
        if plan.seed == 1:
            raise RuntimeError("boom")
        return play(plan)

    monkeypatch.setattr(campaign, "play", fails)
    tally = some(range(3), Drawing(members=2, faults=0))
    assert tally.schedules == 3
    assert [(f.seed, f.kind) for f in tally.failures] == [(1, "simulator")]
    assert "boom" in tally.failures[0].message


def test_interrupted_campaign_says_what_was_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(plan: Plan) -> Outcome:
        if plan.seed == 2:
            raise KeyboardInterrupt
        return play(plan)

    monkeypatch.setattr(campaign, "play", interrupted)
    command = ["simulate", "--schedules", "9", "--workers", "1", "--members", "2", "--faults", "0"]
    assert main(command) == 130
    assert "interrupted after 2 of 9" in capsys.readouterr().out


def test_failure_is_kept_and_its_command_plays_it_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    planted = functools.partial(play, parts=BUGS["trains from old weights"].parts)
    monkeypatch.setattr(campaign, "play", planted)
    monkeypatch.setattr(schedule, "play", planted)
    command = ["simulate", "--schedules", "2", "--workers", "1", "--members", "3", "--faults", "0"]
    assert main([*command, "--no-shrink", "--out", str(tmp_path)]) == 1
    assert "--replay" in capsys.readouterr().err
    (kept, *_) = sorted(tmp_path.glob("seed-*.json"))
    assert main(["simulate", "--replay", str(kept)]) == 1
    assert "stale" in capsys.readouterr().out


def test_same_seed_is_the_same_schedule_in_another_process_with_other_hashes() -> None:
    drawn = draw(14)
    here = play(drawn)
    assert play(drawn).digest == here.digest, "a second play in one process differs"
    assert play(draw(15)).digest != here.digest
    command = [sys.executable, "-m", "localnet.cli", "simulate", "--seed", "14", "--no-shrink", "--json"]
    environment = {**os.environ, "PYTHONHASHSEED": "4242"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=300)
    assert json.loads(done.stdout)["digest"] == here.digest


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if BUGS[n].lasting_s else n for n in BUGS]
)
def test_planted_bug_is_found(name: str) -> None:
    bug = BUGS[name]
    outcomes = (play(bug.plan(seed), parts=bug.parts) for seed in range(FEW_SEEDS))
    found = next((o for o in outcomes if o.violations), None)
    assert found is not None, f"not found in {FEW_SEEDS} schedules"
    assert found.signature in bug.shows
    assert play(found.plan).violations == [], "the schedule fails without the bug too"


@pytest.mark.slow
def test_failure_shrinks_to_what_causes_it() -> None:
    bug = BUGS["attests unseen"]
    failing = next(
        o for o in (play(bug.plan(seed), parts=bug.parts) for seed in range(FEW_SEEDS)) if o.violations
    )
    noise = (Fault("sleep", 1, 2000, 20.0), Fault("halt", -1, 9000, 10.0))
    first = play(dataclasses.replace(failing.plan, faults=(*failing.plan.faults, *noise)), parts=bug.parts)
    assert first.signature == "accepted"
    smallest, plays = shrink(first, lambda p: play(p, parts=bug.parts), max_plays=40)
    assert smallest.signature == "accepted"
    assert [f.kind for f in smallest.plan.faults] == ["garbage"]
    assert plays <= 40
    again = play(Plan.from_json(smallest.plan.to_json()), parts=bug.parts)
    assert (again.signature, again.digest) == ("accepted", smallest.digest)


def test_plan_survives_json() -> None:
    for seed in range(50):
        plan = draw(seed)
        assert Plan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{}",
        '{"seed": 1, "tiers": [1], "weights": [1]}',
        '{"seed": 1, "tiers": [0], "weights": [1], "more": 1}',
        '{"seed": 1, "tiers": [0], "weights": [1, 2]}',
        '{"seed": 1, "tiers": [0], "weights": [1], "faults": [{"kind": "flood", "member": 0, "at": 1, "for_s": 1}]}',
        '{"seed": 1, "tiers": [0], "weights": [1], "faults": [3]}',
        '{"seed": 1, "tiers": ["x"], "weights": [1]}',
        '{"seed": 1, "tiers": [0, 1], "weights": [1, 99]}',
        '{"seed": 1, "tiers": [0, 1], "weights": [1, 1], "total_steps": -3}',
        '{"seed": 1, "tiers": [0, 1], "weights": [1, 1], "total_steps": "many"}',
    ],
)
def test_file_that_is_no_schedule_is_refused(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigError):
        Plan.from_json(text)
    path = tmp_path / "plan.json"
    path.write_text(text)
    assert main(["simulate", "--replay", str(path)]) == exit_codes.CONFIG
    assert "Traceback" not in capsys.readouterr().err


def test_unknown_kind_of_fault_names_those_that_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--kind", "flood"]) == exit_codes.CONFIG
    assert "garbage" in capsys.readouterr().err


def test_trace_of_one_seed_tells_what_happened(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["simulate", "--seed", "1", "--members", "2", "--faults", "0", "--trace"]) == 0
    out = capsys.readouterr().out
    assert "chain Finished" in out
    assert "digest" in out.splitlines()[-1]
