"""Real members on a real chain: a whole run, and deaths in the middle of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.e2e.cluster import cluster, finished

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
