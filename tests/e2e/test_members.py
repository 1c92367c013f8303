"""Real members on a real chain: a whole run, and deaths in the middle of it."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Any

import pytest

from psyche_chain.admin.manage import set_paused
from psyche_chain.chain.state import Phase, SlotStatus
from tests.e2e.cluster import MemberProcess, cluster, finished

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


def _rounds(member: MemberProcess, *, since: float) -> list[dict[str, Any]]:
    return [e for e in member.events("train") if e["t"] > since]


def _saved(member: MemberProcess, step: int) -> bool:
    return any(e["step"] == step for e in member.events("checkpoint"))
