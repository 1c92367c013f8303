"""Members that lack the run's first weights and come later: all they need is agreed on, and with their peers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.cluster import TINY, cluster
from tests.train.checkpoints.conftest import save_llama

pytestmark = pytest.mark.slow


async def test_members_without_the_first_weights_join_a_run_from_its_peers(tmp_path: Path) -> None:
    first = save_llama(tmp_path / "first")
    begin, end = TINY.index("[model.LLM.checkpoint.Init]"), TINY.index("[model.LLM.data_location.Dummy]")
    config = f'{TINY[:begin]}[model.LLM.checkpoint.Local]\npath = "{first}"\n\n{TINY[end:]}'
    config = config.replace("init_min_clients = 3", "init_min_clients = 2")
    config = config.replace("epoch_time = 150", "epoch_time = 12")
    async with cluster(tmp_path, tiers=(0, 0, 0, 1), steps=2000, config=config) as run:
        early, late = run.members[:2], run.members[2:]
        for member in early:
            member.start()
        await run.until("weights are agreed", lambda state: state.checkpoint.agreed)
        first.rename(tmp_path / "gone")
        for member in late:
            member.start()
        await run.until(
            "the latecomers end an epoch",
            lambda _: all(member.events("train") and member.events("checkpoint") for member in late),
            limit_s=240,
        )
        steps = {event["step"]: event["weights_sha256"] for event in early[0].events("checkpoint")}
        found = late[0].events("checkpoint")[0]
        await run.until("they agree", lambda state: state.checkpoint.step >= found["step"])
        steps |= {event["step"]: event["weights_sha256"] for event in early[0].events("checkpoint")}
        assert found["weights_sha256"] == steps[found["step"]]
        for member in late:
            assert member.events("restore")[0]["step"] > 0, member.tail()
            assert "first weights are not here" in (member.folder / "output.txt").read_text()
