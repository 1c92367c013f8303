"""The run's data over real network processes: offered by who has them, fetched by hash by who does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from psyche_chain.chain.state import Phase, RoundStatus
from psyche_chain.client import rundata
from psyche_chain.client.duties import decide
from psyche_chain.client.duty import Gather, Ready, Share, Train
from psyche_chain.client.events import EventLog
from psyche_chain.client.ports import NotYet
from psyche_chain.client.rundata import RunData
from psyche_chain.client.weights import Weights
from psyche_train.blobs import BlobStore
from psyche_train.data import stdlib as stdlib_module
from psyche_train.data.dataset import Dataset
from psyche_train.data.errors import MissingData
from psyche_train.network import NetworkClient
from psyche_train.spec import TrainSpec
from tests.client.views import a_round, a_view, me, member
from tests.client.world import FakeModel
from tests.train.conftest import tables
from tests.train.data.shards import tokens_of, write_prepared
from tests.train.network.network_support import introduce, running


def spec_of(**location) -> TrainSpec:
    return TrainSpec.model_validate(tables(data_location=location))


class Member:
    """A member's data on a real network client."""

    def __init__(self, home: Path, network: NetworkClient, data: Dataset) -> None:
        model = FakeModel(home)
        model.data = data
        self.dataset = data
        self.events = EventLog(home / "events.jsonl")
        self.data = RunData(Weights(model, home / "records.log", self.events), network, self.events)


async def test_prepared_data_go_from_who_has_them_to_who_does_not(tmp_path: Path) -> None:
    manifest = write_prepared(tmp_path / "prepared", tokens_of(2_000_000), [900_000, 1_600_000])
    spec = spec_of(Peers={"path": str(tmp_path / "prepared")}).resolve()
    assert spec.data_location.Peers is not None
    assert spec.data_location.Peers.manifest == manifest.id.hex()
    elsewhere = spec_of(Peers={"path": "/nowhere/at/all", "manifest": manifest.id.hex()})
    async with running(tmp_path, "a", "b", "c") as networks:
        folders = [tmp_path / name for name in "abc"]
        a = Member(folders[0], networks[0], Dataset(spec, 160, blobs=folders[0] / "blobs"))
        b, c = (
            Member(home, network, Dataset(elsewhere, 160, blobs=home / "blobs"))
            for home, network in zip(folders[1:], networks[1:], strict=True)
        )
        assert [a.data.complete, b.data.complete, c.data.complete] == [True, False, False]
        with pytest.raises(MissingData, match="with peers; they are fetched when the member has joined"):
            b.dataset.batch([range(1)])
        await introduce(networks)
        await a.data.share()
        assert a.data.shared
        shard = next((folders[0] / "blobs").glob(manifest.shards[0].blob.hex()))
        assert shard.samefile(tmp_path / "prepared" / "shard-00000.bin")  # linked, not copied
        await b.data.fetch()
        assert b.data.complete
        assert b.data.blobs == set(manifest.blobs) == set(BlobStore(folders[1] / "blobs").ids())

        # the creator is gone: b, which fetched them, serves them on
        BlobStore(folders[0] / "blobs").prune([])
        await c.data.fetch()
        order = [range(0, c.dataset.num_train, 97)]
        assert (c.dataset.batch(order) == b.dataset.batch(order)).all()
        again = Dataset(elsewhere, 160, blobs=folders[2] / "blobs")
        assert again.missing == ()
        assert (again.validation(8) == c.dataset.validation(8)).all()


async def test_member_with_another_standard_library_trains_on_the_creators_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = {"Stdlib": {"max_bytes": 60_000}}
    tables_256 = tables(data_location=location)
    tables_256["checkpoint"]["Init"]["vocab_size"] = 256
    spec = TrainSpec.model_validate(tables_256).resolve()
    async with running(tmp_path, "a", "b") as (one, other):
        a = Member(tmp_path / "a", one, Dataset(spec, 256, blobs=tmp_path / "a" / "blobs"))
        await a.data.share()
        expected = a.dataset.batch([range(100)])
        monkeypatch.setattr(stdlib_module, "stdlib_text", lambda size: b"import this\n" * (size // 12))
        stdlib_module.own_stdlib.cache_clear()
        b = Member(tmp_path / "b", other, Dataset(spec, 256, blobs=tmp_path / "b" / "blobs"))
        stdlib_module.own_stdlib.cache_clear()
        assert b.dataset.offers() == []
        assert not b.data.complete
        await introduce([one, other])
        await b.data.fetch()
        assert (b.dataset.batch([range(100)]) == expected).all()
        assert (b.dataset.validation(16) == a.dataset.validation(16)).all()


async def test_data_that_nobody_has_are_not_yet_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rundata, "DEADLINE_S", 0.5)
    spec = spec_of(Peers={"manifest": "ab" * 32})
    async with running(tmp_path, "a", "b") as (one, other):
        await introduce([one, other])
        a = Member(tmp_path / "a", one, Dataset(spec, 160, blobs=tmp_path / "a" / "blobs"))
        with pytest.raises(NotYet, match=r"the run's data: 1 of 1 blobs: blob abab.* was not fetched"):
            await a.data.fetch()
        assert a.data.blobs == {bytes.fromhex("ab" * 32)}


def test_member_without_data_gathers_them_and_is_not_ready_before() -> None:
    slots = {0: member(0, ready=False), 1: member(1), 2: member(2)}
    view = a_view(Phase.WARMUP, slots=slots)
    assert decide(view, me(0, view), 1001.0) == [Ready(0, 1)]
    assert decide(view, me(0, view, has_data=False), 1001.0) == [Gather()]
    assert decide(view, me(0, view, has_shared=False), 1001.0) == [Ready(0, 1), Share()]
    outside = a_view(Phase.WARMUP, slots={1: member(1), 2: member(2)})
    assert Gather() not in decide(outside, me(0, outside, has_data=False), 1001.0)  # nobody would answer yet


def test_member_without_data_does_not_train() -> None:
    view = a_view(Phase.ROUND_TRAIN, a_round(1, RoundStatus.OPEN))
    assert Train in {type(duty) for duty in decide(view, me(0, view), 1001.0)}
    assert Train not in {type(duty) for duty in decide(view, me(0, view, has_data=False), 1001.0)}
