"""Real members on a real chain: a whole run, and deaths in the middle of it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import trio

from psyche_chain.admin.manage import set_paused
from psyche_chain.chain.state import Phase, RunState, SlotStatus
from psyche_chain.cli import exit_codes
from psyche_train.records import RecordLog
from tests.e2e.cluster import Cluster, MemberProcess, cluster, finished

pytestmark = pytest.mark.slow


async def test_three_members_train_to_the_end_with_the_agreed_weights(tmp_path: Path) -> None:
    async with cluster(tmp_path) as run:
        for member in run.members:
            member.start()
        state = await run.until("the run finishes", finished)
        await run.until_all_ended()
        assert state.checkpoint.agreed
        assert state.checkpoint.uri.startswith("peers:")
        hashes = run.final_hashes()
        assert hashes[0] == state.checkpoint.weights_hash.hex()
        assert hashes[1] == hashes[2]
        for member in run.members:
            assert len(member.events("commit")) == state.step
            assert member.events("exit")[-1]["code"] == 0
        await _audit(run, state)


@pytest.mark.parametrize("victim", [0, 2], ids=["the-only-tier-0", "a-tier-1"])
async def test_killed_member_comes_back_with_equal_weights_and_the_others_go_on(
    tmp_path: Path, victim: int
) -> None:
    async with cluster(tmp_path, steps=2000) as run:
        for member in run.members:
            member.start()
        lost = run.members[victim]
        await run.until("training begins", lambda s: s.phase is Phase.ROUND_TRAIN and s.step >= 4)
        lost.kill()
        killed_in, killed_at = (await run.state()).epoch, time.time()
        # The others train on without it: its share is missed once, then it is not asked any more.
        at = (await run.state()).step
        await run.until("the others go on", lambda s: s.step >= at + 4)
        lost.start()
        await run.until("it trains again", lambda _: len(_rounds(lost, since=killed_at)) >= 3, limit_s=240)
        assert _rounds(lost, since=killed_at)[0]["epoch"] in (killed_in, killed_in + 1)

        await set_paused(run.session, run.run, True)
        state = await run.until("the run pauses", lambda s: s.phase is Phase.PAUSED)
        await run.until("all save", lambda s: all(_saved(m, s.step) for m in run.members))
        assert state.checkpoint.step == state.step
        hashes = run.final_hashes()
        assert hashes[0] == state.checkpoint.weights_hash.hex()
        assert hashes[1] == hashes[2]

        for member in run.members:
            member.send(signal.SIGTERM)
        await run.until_all_ended()
        assert [s.status for s in (await run.state()).members()] == [SlotStatus.DEPARTED] * 3


async def _audit(run: Cluster, state: RunState) -> None:
    """`psyche-chain replay` over the live chain: all is equal; then with a blob changed, and with none."""
    done = await _replay(run)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["verdict"]
    assert not found["missing"]
    assert found["rounds"] >= state.step
    assert found["updates"] > 0
    rows = found["comparisons"]
    assert all(row["equal"] for row in rows)
    assert state.checkpoint.weights_hash.hex() in {row["expected"] for row in rows}

    log = RecordLog(run.members[0].folder / "records.log", read_only=True)
    name = next(r for _, r in log.entries() if r.accepted).accepted[0].commitment.hex()
    copies = [path for m in run.members for path in m.folder.rglob(name)]
    assert copies, "no member keeps the blob of its commitment"
    for path in copies:
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    done = await _replay(run)
    assert done.returncode == exit_codes.NOT_FOUND
    assert name[:16] in done.stderr
    assert "Traceback" not in done.stderr
    for path in copies:
        path.unlink()
    done = await _replay(run)
    assert done.returncode == exit_codes.NOT_FOUND
    assert name[:16] in done.stderr
    assert "Traceback" not in done.stderr


async def _replay(run: Cluster) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "psyche_chain", "replay", str(run.run.key), "--json"]
    command += ["--rpc", run.session.rpc.urls[0]]
    for member in run.members:
        command += ["--state-dir", str(member.folder)]
    with trio.fail_after(120):
        done = await trio.run_process(command, capture_stdout=True, capture_stderr=True, check=False)
    return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())


def _rounds(member: MemberProcess, *, since: float) -> list[dict[str, Any]]:
    return [e for e in member.events("train") if e["t"] > since]


def _saved(member: MemberProcess, step: int) -> bool:
    return any(e["step"] == step for e in member.events("checkpoint"))
