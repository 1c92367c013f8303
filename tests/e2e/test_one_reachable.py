"""A whole run in which one member can be dialled and the others listen nowhere: it holds their blobs for all."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.e2e.cluster import TINY, cluster, finished

pytestmark = pytest.mark.slow


async def test_one_reachable_member_is_enough_for_a_run(tmp_path: Path) -> None:
    async with cluster(tmp_path, tiers=(0, 0, 0), steps=3, config=TINY) as run:
        (url,) = {member.command[4] for member in run.members}
        for member in run.members:
            listen = "/ip4/127.0.0.1/tcp/0" if member.number == 0 else "none"
            member.command = [
                sys.executable, "-m", "psyche_chain", "join", str(run.run.key), "--rpc", url,
                "--keypair", str(member.keypair), "--state-dir", str(member.folder), "--tier", "0",
                "--device", "cpu", "--threads", "1", "--listen", listen,
            ]  # fmt: skip
            member.start()
        await run.until("the run ends", finished, limit_s=240)
        await run.until_all_ended()
        assert len(set(run.final_hashes())) == 1
        for member in run.members:
            assert member.events("commit"), f"member {member.number} never sent anything: {member.tail()}"
