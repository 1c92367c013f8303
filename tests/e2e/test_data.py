"""A whole run on data that only its creator has: the other members get them from peers, by hash."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.cluster import TINY, cluster, finished
from tests.train.data.shards import tokens_of, write_prepared

pytestmark = pytest.mark.slow


async def test_run_trains_on_data_that_one_member_had(tmp_path: Path) -> None:
    made = tmp_path / "prepared"
    manifest = write_prepared(made, tokens_of(400_000, below=256), [250_000], dtype="<u1")
    table = "[model.LLM.data_location.Dummy]\nnum_tokens = 200000"
    assert table in TINY
    config = TINY.replace(table, f'[model.LLM.data_location.Peers]\npath = "{made}"')
    async with cluster(tmp_path, steps=6, config=config) as run:
        made.rename(tmp_path / "elsewhere")  # so that the others do not find what is on this machine
        run.members[0].command.append(str(tmp_path / "elsewhere"))
        for member in run.members:
            member.start()
        state = await run.until("the run finishes", finished, limit_s=240)
        await run.until_all_ended(limit_s=180)
        assert state.step == 6
        hashes = run.final_hashes()
        assert hashes[0] == state.checkpoint.weights_hash.hex()
        assert hashes[1] == hashes[2]
        assert [len(member.events("data")) for member in run.members] == [0, 1, 1]
        for member in run.members:
            assert member.events("train")
            for blob in manifest.blobs:  # tidying up after a checkpoint leaves them
                assert (member.folder / "blobs" / blob.hex()).is_file()
