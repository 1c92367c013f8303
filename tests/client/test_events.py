"""The diary on a full disk: the member goes on, lines stay whole, and what is missing is told."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from psyche_chain.client import JoinOptions
from psyche_chain.client.events import EventLog
from psyche_chain.client.run import _listeners


@contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """As on a full disk: no file of this process grows beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_costs_events_and_nothing_else(tmp_path: Path) -> None:
    path, heard = tmp_path / "events.jsonl", []
    with EventLog(path, [lambda event: heard.append(event["event"])]) as events:
        events.emit("first")
        with files_end_at(path.stat().st_size + 20):  # room for half a line
            events.emit("torn")
            events.emit("lost")
        events.emit("again")
        events.emit("last")
    lines = [line for line in path.read_text().splitlines() if line.strip()]
    whole = [json.loads(line) for line in lines if _is_json(line)]
    assert [event["event"] for event in whole] == ["first", "again", "error", "last"]
    assert whole[2]["message"] == "the disk was full: 2 events were not written"
    assert len(lines) == 5  # the torn one stands for itself
    assert heard == ["first", "torn", "lost", "again", "error", "last"]


def test_a_listener_that_cannot_write_ends_nothing(tmp_path: Path) -> None:
    def broken(event: dict[str, Any]) -> None:
        raise OSError(28, "No space left on device")

    heard: list[str] = []
    with EventLog(tmp_path / "events", [broken, lambda event: heard.append(event["event"])]) as events:
        events.emit("first")
    assert heard == ["first"]


def test_each_event_is_told_once(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """By the caller where there is one; else on standard error, in words or as JSON."""
    event = {"t": 1.0, "event": "joined"}
    heard: list[str] = []
    for settings, told in (
        ({"on_event": lambda event: heard.append(event["event"])}, ""),
        ({}, "joined the run; Ctrl-C leaves it\n"),
    ):
        options = JoinOptions(run="r", rpc=[], keypair=tmp_path, state_dir=tmp_path, **settings)
        for listener in _listeners(options, "RUN"):
            listener(event)
        assert capsys.readouterr().err == told
    assert heard == ["joined"]


def test_json_logs_tell_each_event_once(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path\n"
        "from psyche_chain.client import JoinOptions\n"
        "from psyche_chain.client.run import _listeners\n"
        "o = JoinOptions(run='r', rpc=[], keypair=Path(), state_dir=Path(), json_logs=True)\n"
        "[tell({'t': 1.0, 'event': 'fold', 'round': 3, 'history': b'1'}) for tell in _listeners(o, 'RUN')]\n"
        "import logging; logging.getLogger('x').warning('a %s', 'b')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    event, log = [json.loads(line) for line in done.stderr.splitlines()]
    assert event == {
        "run": "RUN",
        "slot": None,
        "epoch": None,
        "round": 3,
        "t": 1.0,
        "event": "fold",
        "history": "31",
    }
    assert (log["message"], log["run"], log["round"]) == ("a b", "RUN", 3)


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True
