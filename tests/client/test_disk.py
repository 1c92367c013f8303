"""A full disk costs what cannot be written, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from psyche_chain.chain.state import Phase
from psyche_chain.client.catchup import CatchUp
from psyche_chain.client.events import EventLog
from psyche_chain.client.ports import NotYet
from psyche_chain.client.weights import Weights
from psyche_train.blobs import BlobStoreError
from psyche_train.network import NetworkError
from psyche_train.records import GENESIS, Accepted, RoundRecord
from tests.client.views import NO_CHECKPOINT, SPEC, a_view
from tests.client.world import FakeAdapter, FakeMember, FakeModel, FakeNetwork


@pytest.mark.parametrize("error", [BlobStoreError("disk full"), NetworkError("the process is gone")])
async def test_blob_that_cannot_be_stored_delays_the_fold(tmp_path: Path, error: Exception) -> None:
    class Broken(FakeNetwork):
        async def fetch(self, *_: Any, **__: Any) -> bytes:
            raise error

    peers: dict[bytes, FakeMember] = {}
    with EventLog(tmp_path / "events.jsonl") as events:
        weights = Weights(FakeModel(tmp_path), tmp_path / "records.log", events)
        network = Broken(peers, b"m" * 32, tmp_path / "records.log")
        catch_up = CatchUp(weights, network, FakeAdapter(), tmp_path, events, tier=0)
        record = RoundRecord(
            epoch=1,
            number=1,
            step=0,
            trained=True,
            seed=bytes(32),
            data_index=0,
            samples=1,
            assigned=b"\x01" + bytes(31),
            spec_hash=SPEC,
            accepted=(Accepted(slot=0, tier=0, weight=1, commitment=b"c" * 32),),
        )
        with pytest.raises(NotYet, match=r"round 1: "):
            await catch_up.fold([record], a_view(Phase.ROUND_TRAIN, checkpoint=NO_CHECKPOINT))
        assert weights.history == GENESIS
