"""Agreed checkpoints between members, with real trainers: which bytes a tier fetches, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import trio

from psyche_chain.chain.state import Checkpoint, Phase
from psyche_chain.client import model as members_model
from psyche_chain.client import sharing
from psyche_chain.client.catchup import CatchUp
from psyche_chain.client.events import EventLog
from psyche_chain.client.model import MemberTrainer, TrainerAdapter, load_trainer
from psyche_chain.client.ports import NotYet
from psyche_chain.client.sharing import Sharing, blob_id_of
from psyche_chain.client.view import GENESIS, ChainView
from psyche_chain.client.weights import Weights
from psyche_train.checkpoints.part_index import Part, PartIndex
from psyche_train.checkpoints.parts import part_bytes
from psyche_train.local_run import RUN, LocalRun
from psyche_train.spec import TrainSpec
from tests.client.views import a_view
from tests.client.world import FakeMember, FakeNetwork
from tests.train.conftest import tables

torch.set_num_threads(1)

BLOB_BYTES = 40_000
MOMENTUM = {"SparseLoCo": {"compression_chunk": 16, "local_steps": 2, "outer_momentum": 0.7}}


class Newcomer:
    """A member without anything."""

    def __init__(self, run: Run, tier: int, folder: Path, **options: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.network = FakeNetwork(run.peers, bytes([tier + 1]) * 32, folder / "records.log")
        self.events = EventLog(folder / "events.jsonl")
        self.trainer: MemberTrainer = load_trainer(
            run.spec, tier=tier, run=RUN, state_dir=folder, device="cpu", threads=1
        )
        self.weights = Weights(self.trainer, folder / "records.log", self.events)
        self.adapter = TrainerAdapter(run.spec, run=RUN, tier=tier)
        self.catch_up = CatchUp(
            self.weights, self.network, self.adapter, folder, self.events, tier=tier, **options
        )
        self.folder = folder

    def errors(self) -> list[str]:
        lines = map(json.loads, (self.folder / "events.jsonl").read_text().splitlines())
        return [line["message"] for line in lines if line["event"] == "error"]


class Run:
    """A run of two steps, whose full member offers a checkpoint."""

    def __init__(self, folder: Path, local: LocalRun) -> None:
        self.folder = folder
        self.spec = local.spec
        self.members = local.members
        self.path = local.members[0].save()
        self.hashes = [member.digests() for member in local.members]
        self.peers: dict[bytes, FakeMember] = {}
        self.peer = FakeNetwork(self.peers, b"p" * 32, folder / "peer" / "records.log")
        (folder / "peer").mkdir()
        self.adapter = TrainerAdapter(self.spec, run=RUN, tier=0)
        self.sharing = Sharing(self.peer, self.adapter, folder, EventLog(folder / "peer.jsonl"))
        self.checkpoint = Checkpoint(
            weights_hash=local.members[0].weights_hash(),
            history=local.members[0].position.history,
            step=2,
            round=3,
            data_index=6,
            epoch=1,
            agreed=True,
            uri="",
        )

    async def offer(self) -> PartIndex:
        uri, blobs = await self.sharing.offer(self.path)
        self.checkpoint = replace(self.checkpoint, uri=uri)
        assert blobs <= set(self.peer.own.blobs)
        return self.index

    @property
    def index(self) -> PartIndex:
        name = blob_id_of(self.checkpoint.uri)
        assert name is not None
        return PartIndex.from_bytes(self.peer.own.blobs[name])

    async def offer_instead(self, index: PartIndex) -> None:
        """As a member that lies in the uri which it records."""
        name = await self.peer.publish(index.to_bytes())
        self.checkpoint = replace(self.checkpoint, uri="peers:" + name.hex())

    @property
    def view(self) -> ChainView:
        view = a_view(Phase.WAITING_FOR_MEMBERS)
        return replace(view, history=self.checkpoint.history, checkpoint=self.checkpoint)

    def newcomer(self, tier: int, name: str = "new", **options: Any) -> Newcomer:
        return Newcomer(self, tier, self.folder / f"{name}{tier}", **options)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> LocalRun:
    spec = TrainSpec.model_validate(tables(optimizer=MOMENTUM))
    local = LocalRun(spec, (0, 1, 2), tmp_path_factory.mktemp("trained"), samples=6)
    list(local.train(2))
    local.drain()
    return local


@pytest.fixture
def run(trained: LocalRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(
        members_model, "write_parts", partial(members_model.write_parts, blob_bytes=BLOB_BYTES)
    )
    monkeypatch.setattr(sharing, "INDEX_DEADLINE_S", 0.3)
    monkeypatch.setattr(sharing, "BLOB_DEADLINE_S", 0.3)
    return Run(tmp_path, trained)


async def test_every_tier_fetches_its_own_parts_and_nothing_else(run: Run) -> None:
    index = await run.offer()
    index_bytes = len(index.to_bytes())
    fetched = []
    for tier in range(3):
        new = run.newcomer(tier)
        await new.catch_up.catch_up(run.view)
        assert new.weights.history == run.checkpoint.history
        assert await new.weights.digests() == run.hashes[tier]
        fetched.append(new.network.fetched_bytes - index_bytes)
    sizes = [part_bytes(run.members[0].shared, part) for part in range(3)]
    assert fetched == [sum(sizes), sum(sizes[1:]), sizes[2]]
    assert fetched[2] < fetched[1] < fetched[0]
    held = [4 * run.members[0].shared.num_parameters(tier) for tier in range(3)]
    for tier in range(3):  # the values of the slice (momenta too), and the names and shapes of its tensors
        assert held[tier] < fetched[tier] < held[tier] + 100 * (3 - tier) * len(run.members[0].shared.stored)


async def test_members_of_every_tier_offer_the_same_blobs(run: Run) -> None:
    index = await run.offer()
    for tier in (1, 2):
        new = run.newcomer(tier)
        uri, blobs = await new.catch_up.sharing.offer(run.members[tier].save())
        assert uri == "", "a slice has no uri"
        assert blobs == frozenset(b for part in index.parts[: 3 - tier] for b, _ in part.blobs)
    # A full member is gone with the widest part only: what slices hold is still to be had from them.
    run.peer.own.up = False
    late = run.newcomer(0, "late")
    name = blob_id_of(run.checkpoint.uri)
    assert name is not None
    late.network.own.blobs[name] = index.to_bytes()
    with pytest.raises(NotYet, match="nobody has it"):
        await late.catch_up.sharing.copy(run.checkpoint, ())
    assert late.network.fetched_bytes == sum(part.num_bytes for part in index.parts[:2])


async def test_index_whose_digests_are_not_the_agreed_ones_costs_nothing_more(run: Run) -> None:
    index = await run.offer()
    await run.offer_instead(PartIndex((*index.parts[:2], replace(index.parts[2], digest=bytes(32)))))
    new = run.newcomer(1)
    with pytest.raises(NotYet, match=r"is not the agreed one.*start again with --checkpoint-from"):
        await new.catch_up.catch_up(run.view)
    assert new.network.fetched_bytes == len(index.to_bytes())
    assert new.weights.history == GENESIS
    with pytest.raises(NotYet, match="is not asked for again"):
        await new.catch_up.catch_up(run.view)


@pytest.mark.parametrize(
    "raw", [b"", b"{}", b'{"version":1,"parts":[]}', b"[" * 5000, b'{"version":2,"parts":1}']
)
async def test_index_that_is_none_is_refused(run: Run, raw: bytes) -> None:
    name = await run.peer.publish(raw)
    run.checkpoint = replace(run.checkpoint, uri="peers:" + name.hex())
    with pytest.raises(NotYet, match="is not the agreed one"):
        await run.newcomer(1).catch_up.catch_up(run.view)


async def test_blobs_of_another_length_are_refused_before_they_are_fetched(run: Run) -> None:
    index = await run.offer()
    huge = Part(index.parts[0].digest, ((index.parts[0].blobs[0][0], 1 << 50),))
    await run.offer_instead(PartIndex((huge, *index.parts[1:])))
    new = run.newcomer(2)
    with pytest.raises(NotYet, match="this model's have"):
        await new.catch_up.catch_up(run.view)
    assert new.network.fetched_bytes < 2 * len(index.to_bytes())


async def test_right_digests_over_false_blobs_are_refused_and_elsewhere_is_asked(run: Run) -> None:
    index = await run.offer()
    data = bytearray(run.peer.own.blobs[index.parts[0].blobs[0][0]])
    data[-1] ^= 1
    false = await run.peer.publish(bytes(data))
    blobs = ((false, len(data)), *index.parts[0].blobs[1:])
    await run.offer_instead(PartIndex((replace(index.parts[0], blobs=blobs), *index.parts[1:])))
    new = run.newcomer(1)
    with pytest.raises(NotYet, match=r"has digest .* not .*; it is not asked for again"):
        await new.catch_up.catch_up(run.view)
    assert new.weights.history == GENESIS
    other = run.newcomer(1, "other", elsewhere=str(run.path))
    await other.catch_up.catch_up(run.view)
    assert await other.weights.digests() == run.hashes[1]


async def test_blob_that_the_own_disk_damaged_is_fetched_again(run: Run) -> None:
    index = await run.offer()
    new = run.newcomer(1)
    victim = index.parts[1].blobs[-1][0]
    await new.catch_up.sharing.copy(run.checkpoint, ())
    new.network.own.blobs[victim] = b"\0" * len(new.network.own.blobs[victim])
    before = new.network.fetched_bytes
    await new.catch_up.catch_up(run.view)
    assert any("this disk damaged 1 blobs" in message for message in new.errors())
    assert new.network.fetched_bytes - before == index.parts[1].blobs[-1][1], "one blob, not the checkpoint"
    assert await new.weights.digests() == run.hashes[1]


async def test_member_killed_at_any_point_goes_on_with_what_it_has(run: Run) -> None:
    index = await run.offer()
    wanted = len(index.to_bytes()) + sum(part.num_bytes for part in index.parts[:2])
    steps = [*range(sum(len(part.blobs) for part in index.parts[:2]) + 1), "verified", "restored"]
    assert len(steps) > 6
    for step in steps:
        run.peers.pop(bytes([2]) * 32, None)
        first = run.newcomer(1, f"killed-{step}-")
        with trio.CancelScope() as scope:
            _cancel_at(first, step, scope)
            await first.catch_up.catch_up(run.view)
        assert scope.cancelled_caught
        assert first.weights.history in (GENESIS, run.checkpoint.history)
        fetched = first.network.fetched_bytes
        second = run.newcomer(1, f"killed-{step}-")
        await second.catch_up.catch_up(run.view)
        assert await second.weights.digests() == run.hashes[1]
        assert fetched + second.network.fetched_bytes == wanted, f"killed at {step}: something came twice"


def _cancel_at(member: Newcomer, step: int | str, scope: trio.CancelScope) -> None:
    """Let a member die before the n-th blob arrives, after the parts were verified, or after they were taken."""
    obtain, assembled, restore = member.network.obtain, member.adapter.assembled, member.weights.restore
    count = 0

    async def counted(*args: Any, **options: Any) -> None:
        nonlocal count
        if count == step:
            scope.cancel()
            await trio.lowlevel.checkpoint()
        count += 1
        await obtain(*args, **options)

    async def killed(*args: Any) -> None:
        if step == "restored":
            await restore(*args)
        scope.cancel()
        await trio.lowlevel.checkpoint()

    def verified(*args: Any) -> Any:
        return assembled(*args)

    member.network.obtain = counted  # type: ignore[method-assign]
    member.adapter.assembled = verified  # type: ignore[method-assign]
    member.weights.restore = killed  # type: ignore[method-assign]


@pytest.mark.parametrize("tier", [0, 1])
async def test_wrong_weights_at_an_agreed_point_are_found_and_replaced(run: Run, tier: int) -> None:
    await run.offer()
    new = run.newcomer(tier)
    await new.catch_up.catch_up(run.view)
    held = new.trainer.trainer.held.loaded().stored
    name = next(iter(held))
    held[name].view(-1).view(torch.int32)[0] ^= 1  # one bit, as a broken memory does it
    new.trainer.trainer.held.changed()
    await new.weights.save()
    assert await new.weights.digests() != run.hashes[tier]
    new.catch_up.compared = GENESIS
    await new.catch_up.compare(run.checkpoint)
    assert await new.weights.digests() == run.hashes[tier]
    assert any("which do not belong to the agreed hash" in message for message in new.errors())
    again = run.newcomer(tier)  # the wrong checkpoint on disk was replaced, too
    assert again.weights.history == run.checkpoint.history
    assert await again.weights.digests() == run.hashes[tier]


async def test_wrong_weights_that_cannot_be_replaced_are_not_folded_on(run: Run) -> None:
    await run.offer()
    new = run.newcomer(0)
    await new.catch_up.catch_up(run.view)
    new.trainer.trainer.held.loaded().stored["model.norm.weight"].detach().add_(1)
    new.trainer.trainer.held.changed()
    new.catch_up.compared = GENESIS
    await run.offer_instead(PartIndex(run.index.parts[:1]))
    with pytest.raises(NotYet, match="is not the agreed one"):
        await new.catch_up.compare(run.checkpoint)
    assert new.catch_up.compared == GENESIS
