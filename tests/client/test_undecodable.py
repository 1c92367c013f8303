"""Updates that were accepted, have the right hash, and do not decode: nothing, for every tier alike."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from psyche_chain.chain.state import Phase
from psyche_chain.client.view import GENESIS
from psyche_train.blobs import blob_id
from psyche_train.local_run import LocalRun
from psyche_train.records import RecordLog
from psyche_train.spec import TrainSpec
from tests.client.test_sharing import Run
from tests.client.views import a_view
from tests.train.conftest import tables

torch.set_num_threads(1)


@pytest.mark.parametrize("kind", ["garbage", "of another member", "of another round"])
async def test_members_of_every_tier_fold_past_it_to_the_same_weights(tmp_path: Path, kind: str) -> None:
    local = LocalRun(TrainSpec.model_validate(tables()), (0, 1, 2), tmp_path / "trained", samples=6)
    list(local.train(2))
    local.drain()
    run = Run(tmp_path, local)
    log, history = RecordLog(tmp_path / "peer" / "records.log"), GENESIS
    for number, (record, blobs) in enumerate(local.log):
        updates = dict(blobs)
        if number == 0:
            good = updates[1]
            updates[1] = {
                "garbage": b"\x00\xff" * 50,
                "of another member": updates[0],
                "of another round": local.log[1][1][1],
            }[kind]
            assert updates[1] != good
        accepted = tuple(replace(a, commitment=blob_id(updates[a.slot])) for a in record.accepted)
        record = replace(record, accepted=accepted)
        log.append(history, record)
        history = record.next_history(history)
        for blob in updates.values():
            await run.peer.publish(blob)
    view = replace(a_view(Phase.WAITING_FOR_MEMBERS), history=history)
    found = []
    for tier in range(3):
        new = run.newcomer(tier)
        await new.catch_up.catch_up(view)
        assert new.weights.history == history
        found.append(await new.weights.digests())
    assert found[1] == found[0][:2]
    assert found[2] == found[0][:1]
    assert found[0] != run.hashes[0], "the update that was replaced had an effect"
