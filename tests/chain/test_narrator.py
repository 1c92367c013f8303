"""What `join` tells its user."""

import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from psyche_chain.cli.narrator import Narrator


def phase(name: str, epoch: int = 1, step: int = 0) -> dict[str, Any]:
    return {"event": "phase", "phase": name, "epoch": epoch, "round": step + 1, "step": step}


def told(capsys: pytest.CaptureFixture[str], narrator: Narrator, *events: dict[str, Any]) -> list[str]:
    for event in events:
        narrator(event)
    return capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    ("name", "reason"),
    [("Paused", "the run is paused"), ("WaitingForMembers", "for members"), ("Uninitialized", "configured")],
)
def test_why_it_waits_is_said_once(capsys: pytest.CaptureFixture[str], name: str, reason: str) -> None:
    lines = told(
        capsys, Narrator(linger_s=1), phase(name), phase(name), {"event": "state", "state": "waiting"}
    )
    assert len(lines) == 1
    assert lines[0].startswith("waiting")
    assert reason in lines[0]


def test_who_comes_in_the_middle_of_an_epoch_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    narrator = Narrator(linger_s=1)
    lines = told(capsys, narrator, phase("RoundTrain"), {"event": "state", "state": "waiting"})
    assert "from the next one on" in lines[-1]
    lines = told(capsys, narrator, {"event": "leaving"}, {"event": "state", "state": "waiting"})
    assert lines == ["leaving the run; Ctrl-C once more ends at once"]


def test_rounds_of_an_epoch_are_one_line_and_losses_come_now_and_then(
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = 0.0
    narrator = Narrator(linger_s=1, clock=lambda: now)
    lines = []
    for step in range(100):
        now += 1.0
        lines += told(
            capsys,
            narrator,
            phase("RoundTrain", step=step),
            {"event": "train", "step": step, "loss": 5.0},
            phase("RoundWitness", step=step),
        )
    assert lines[0] == "epoch 1: training from step 0 on"
    assert len(lines) == 11
    assert all("loss 5.0000" in line for line in lines[1:])


def test_trouble_that_stays_is_told_once_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    narrator = Narrator(linger_s=1, clock=lambda: now)
    error = {"event": "error", "message": "the chain cannot be read: no answer"}
    count = 0
    for now in range(0, 130, 5):
        count += len(told(capsys, narrator, error, {"event": "error", "message": f"other {now}"}))
    assert count == 26 + 3


@given(st.dictionaries(st.text(max_size=4), st.integers() | st.text(max_size=4), max_size=3))
def test_events_that_it_does_not_know_are_passed_over(fields: dict[str, Any]) -> None:
    assert Narrator(linger_s=1).line({**fields, "event": "restore"}) == ""


def test_a_reader_that_is_gone_does_not_stop_the_member(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone:
        def write(self, _: str) -> int:
            raise BrokenPipeError

        def flush(self) -> None:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Gone())
    Narrator(linger_s=1)(phase("Paused"))
