"""The uploader: beside the member's work, the newest first, and no failure ends it."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
import trio

from psyche_chain.client.events import EventLog
from psyche_chain.client.options import JoinOptions
from psyche_chain.client.startup import _check_upload
from psyche_chain.client.upload import Upload, Uploader
from psyche_chain.errors import ConfigError


def upload(step: int) -> Upload:
    return Upload(Path(f"/state/step-{step}"), step, bytes([step] * 32))


def events_of(path: Path) -> list[tuple[str, object]]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [(line["event"], line.get("uri") or line.get("message")) for line in lines]


async def test_each_checkpoint_gets_a_folder_and_failures_are_events(tmp_path):
    asked: list[tuple[str, str]] = []

    def publish(path: Path, target: str, message: str) -> str:
        asked.append((target, message))
        if len(asked) == 1:
            raise ValueError("the token may not write")
        return f"{target}!"

    with EventLog(tmp_path / "events") as events:
        uploader = Uploader("s3://bucket/run/", events, publish=publish)
        for step in (1, 2):
            uploader.offer(upload(step))
            with trio.fail_after(10):
                while len((tmp_path / "events").read_text().splitlines()) < step:
                    await trio.lowlevel.checkpoint()
        await uploader.finish(deadline_s=10)
    assert asked[1] == ("s3://bucket/run/step-2", f"Step 2, weights {'02' * 32}")
    assert events_of(tmp_path / "events") == [
        ("error", "the checkpoint of step 1 was not uploaded: the token may not write"),
        ("upload", "s3://bucket/run/step-2!"),
    ]


async def test_what_waits_is_replaced_by_what_is_newer_and_the_last_is_not_lost(tmp_path):
    started, go_on = threading.Event(), threading.Event()
    targets: list[tuple[Path, str]] = []

    def publish(path: Path, target: str, message: str) -> str:
        targets.append((path, target))
        started.set()
        go_on.wait(10)
        return target

    with EventLog(tmp_path / "events") as events:
        uploader = Uploader("hub:org/model", events, publish=publish)
        uploader.offer(upload(1))
        await trio.to_thread.run_sync(started.wait)
        for step in (2, 3, 4):
            uploader.offer(upload(step))
        go_on.set()
        await uploader.finish(deadline_s=10)
        await trio.lowlevel.checkpoint()
    assert targets == [(upload(step).path, "hub:org/model") for step in (1, 4)]


async def test_an_upload_that_hangs_does_not_hold_the_member_for_ever(tmp_path, autojump_clock):
    never = threading.Event()
    with EventLog(tmp_path / "events") as events:
        uploader = Uploader("hub:org/model", events, publish=lambda *args: str(never.wait(60)))
        uploader.offer(upload(1))
        started = trio.current_time()
        await uploader.finish(deadline_s=100)
        assert trio.current_time() - started == pytest.approx(100, abs=1)  # virtual
    never.set()


@pytest.mark.parametrize(
    ("tier", "to"), [(1, "hub:org/model"), (2, "s3://x/y"), (0, "/some/folder"), (0, "model")]
)
def test_a_slice_is_never_uploaded_as_the_runs_model(tmp_path, tier, to):
    options = {"run": "demo", "rpc": ["http://x"], "keypair": tmp_path, "state_dir": tmp_path}
    with pytest.raises(ConfigError):
        _check_upload(JoinOptions(**options, tier=tier, upload=to))
    _check_upload(JoinOptions(**options, tier=0, upload="hub:org/model"))
    _check_upload(JoinOptions(**options, tier=tier))
