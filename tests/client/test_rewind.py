"""Runs that go back, lose blobs or change their mind: the weights follow the chain."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from psyche_chain.chain.state import Checkpoint, Phase
from psyche_chain.client import catchup
from psyche_chain.client.catchup import CatchUp, blob_id_of
from psyche_chain.client.events import EventLog
from psyche_chain.client.ledger import head, link, link_through, ring_records
from psyche_chain.client.ports import NotYet
from psyche_chain.client.sharing import Sharing
from psyche_chain.client.view import GENESIS, ChainView
from psyche_chain.client.weights import Weights
from psyche_train.blobs import blob_id
from psyche_train.records import Accepted, RecordLog, RoundRecord
from tests.client.views import SPEC, a_view
from tests.client.world import FakeAdapter, FakeMember, FakeModel, FakeNetwork


def update(number: int, branch: str = "main") -> bytes:
    return f"update {number} {branch}".encode()


def record(number: int, step: int, branch: str = "main") -> RoundRecord:
    """A round that one slot took part in."""
    return RoundRecord(
        epoch=1,
        number=number,
        step=step,
        trained=True,
        seed=bytes(32),
        data_index=step,
        samples=1,
        assigned=b"\x01" + bytes(31),
        spec_hash=SPEC,
        accepted=(Accepted(slot=0, tier=0, weight=1, commitment=blob_id(update(number, branch))),),
    )


class Scene:
    """A member and one peer that has everything it is given."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.peers: dict[bytes, FakeMember] = {}
        self.peer = FakeNetwork(self.peers, b"p" * 32, folder / "peer.log")
        self.network = FakeNetwork(self.peers, b"m" * 32, folder / "own" / "records.log")
        self.model = FakeModel(folder / "own")
        self.events = EventLog(folder / "own" / "events.jsonl")
        self.weights = Weights(self.model, folder / "own" / "records.log", self.events)
        self.catch_up = CatchUp(
            self.weights, self.network, FakeAdapter(), folder / "own", self.events, tier=0
        )
        self.peer_weights = Weights(FakeModel(folder / "peer"), folder / "peer.log", self.events)

    async def peer_folds(self, *records: tuple[RoundRecord, bytes]) -> None:
        for one, blob in records:
            await self.peer.publish(blob)
            await self.peer_weights.fold(one, {0: blob})

    async def own_folds(self, *records: tuple[RoundRecord, bytes]) -> None:
        for one, blob in records:
            await self.weights.fold(one, {0: blob})

    async def checkpoint_of_peer(self) -> Checkpoint:
        """The peer's weights, offered under a uri."""
        saved = await self.peer_weights.save()
        uri, _ = await Sharing(self.peer, FakeAdapter(), self.folder, self.events).offer(saved.path)
        return Checkpoint(
            weights_hash=saved.weights_hash,
            history=self.peer_weights.history,
            step=saved.step,
            round=saved.step + 1,
            data_index=saved.step,
            epoch=1,
            agreed=True,
            uri=uri,
        )

    def at(self, history: bytes, **more: Any) -> ChainView:
        return replace(a_view(Phase.WAITING_FOR_MEMBERS, **more), history=history)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    (tmp_path / "own").mkdir()
    return Scene(tmp_path)


def rounds(first: int, last: int, branch: str = "main") -> list[tuple[RoundRecord, bytes]]:
    return [(record(n, n - 1, branch), update(n, branch)) for n in range(first, last + 1)]


async def test_newcomer_replays_the_log_of_a_peer(scene: Scene) -> None:
    await scene.peer_folds(*rounds(1, 9))
    await scene.catch_up.catch_up(scene.at(scene.peer_weights.history))
    assert scene.weights.history == scene.peer_weights.history
    assert await scene.weights.weights_hash() == await scene.peer_weights.weights_hash()


async def test_peer_that_knows_only_a_part_brings_nothing_unverified(scene: Scene) -> None:
    await scene.peer_folds(*rounds(1, 9))
    ahead = record(10, 9).next_history(scene.peer_weights.history)
    with pytest.raises(NotYet, match="no peer has the records"):
        await scene.catch_up.catch_up(scene.at(ahead))
    assert scene.weights.history == GENESIS


async def test_run_that_was_set_back_to_its_checkpoint_takes_the_members_along(scene: Scene) -> None:
    await scene.peer_folds(*rounds(1, 4))
    checkpoint = await scene.checkpoint_of_peer()
    await scene.own_folds(*rounds(1, 6))
    await scene.catch_up.catch_up(scene.at(checkpoint.history, checkpoint=checkpoint))
    assert scene.weights.history == checkpoint.history
    assert await scene.weights.weights_hash() == checkpoint.weights_hash
    # The log goes another way from here; the own log follows it.
    other = [(record(7, 4, "other"), update(7, "other"))]
    await scene.peer_folds(*other)
    await scene.catch_up.catch_up(scene.at(scene.peer_weights.history, checkpoint=checkpoint))
    assert await scene.weights.weights_hash() == await scene.peer_weights.weights_hash()
    assert scene.weights.records_after(checkpoint.history) == [other[0][0]]


async def test_run_that_was_set_back_before_any_checkpoint_starts_over(scene: Scene) -> None:
    await scene.own_folds(*rounds(1, 3))
    await scene.catch_up.catch_up(scene.at(GENESIS))
    assert scene.weights.history == GENESIS
    assert scene.model.weights == b"init"


async def test_member_on_a_branch_that_the_chain_left_comes_back(scene: Scene) -> None:
    await scene.peer_folds(*rounds(1, 4))
    checkpoint = await scene.checkpoint_of_peer()
    await scene.own_folds(*rounds(1, 6))
    await scene.peer_folds(
        (record(7, 4, "other"), update(7, "other")), (record(8, 5, "other"), update(8, "other"))
    )
    view = scene.at(scene.peer_weights.history, checkpoint=checkpoint)
    for _ in range(2):
        await scene.catch_up.catch_up(view)
    assert await scene.weights.weights_hash() == await scene.peer_weights.weights_hash()


async def test_newer_weights_are_kept_while_peers_are_silent(scene: Scene) -> None:
    await scene.peer_folds(*rounds(1, 4))
    checkpoint = await scene.checkpoint_of_peer()
    await scene.own_folds(*rounds(1, 6))
    head_of_chain = head(scene.weights.history, [record(7, 6)])
    scene.peer.own.up = False
    with pytest.raises(NotYet):
        await scene.catch_up.catch_up(scene.at(head_of_chain, checkpoint=checkpoint))
    assert scene.weights.step == 6


async def test_lost_blob_is_passed_by_a_newer_checkpoint(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catchup, "BLOB_DEADLINE_S", 0.2)
    await scene.peer_folds(*rounds(1, 6))
    checkpoint = await scene.checkpoint_of_peer()
    lost = rounds(3, 3)[0][0].accepted[0].commitment
    del scene.peer.own.blobs[lost]
    records = [one for one, _ in rounds(1, 6)]
    with trio.fail_after(60):
        await scene.catch_up.fold(records, scene.at(checkpoint.history, checkpoint=checkpoint))
    assert await scene.weights.weights_hash() == checkpoint.weights_hash


async def test_own_checkpoint_that_the_disk_damaged_is_fetched_again(scene: Scene) -> None:
    await scene.peer_folds(*rounds(1, 4))
    await scene.own_folds(*rounds(1, 4))
    checkpoint = await scene.checkpoint_of_peer()
    own = await scene.weights.save()
    (own.path / "model.safetensors").write_bytes(b"damaged")
    await scene.weights.reset()
    (scene.folder / "own" / "records.log").write_bytes(b"")
    (scene.folder / "peer.log").write_bytes(b"")
    await scene.catch_up.catch_up(scene.at(checkpoint.history, checkpoint=checkpoint))
    assert scene.weights.history == checkpoint.history
    assert await scene.weights.weights_hash() == checkpoint.weights_hash
    assert list(scene.folder.glob("own/download-*")) == [], "the fetched file does not stay beside its blob"


async def test_checkpoint_that_is_not_the_agreed_one_is_refused(scene: Scene) -> None:
    await scene.peer_folds(*rounds(1, 4))
    checkpoint = replace(await scene.checkpoint_of_peer(), weights_hash=b"\x01" * 32)
    (scene.folder / "peer.log").unlink()
    with pytest.raises(NotYet, match="is not the agreed one"):
        await scene.catch_up.catch_up(scene.at(checkpoint.history, checkpoint=checkpoint))
    assert scene.weights.history == GENESIS
    assert list(scene.folder.glob("own/download-*")) == []


def test_uri_that_is_no_blob_is_none() -> None:
    assert blob_id_of("peers:" + "ab" * 32) == b"\xab" * 32
    for uri in ("", "peers:", "peers:zz", "peers:abcd", "hub:someone/model", "ab" * 32):
        assert blob_id_of(uri) is None


def test_ring_whose_commitments_were_overwritten_does_not_link() -> None:
    from tests.client.test_duties import cooldown

    view = cooldown()
    assert link(GENESIS, view) == ring_records(view)
    votes = tuple(b"\x05" * 32 for _ in view.rounds[0].commitments)
    torn = replace(view, rounds=(replace(view.rounds[0], commitments=votes), *view.rounds[1:]))
    assert link(GENESIS, torn) is None
    assert link(view.history, torn) == []


def test_candidates_that_lead_nowhere_are_not_believed() -> None:
    good = [record(n, n - 1) for n in range(1, 8)]
    view = replace(a_view(Phase.PAUSED), history=head(GENESIS, good))
    assert link_through(GENESIS, [good[:3], good[1:], good], view) == good
    assert link_through(GENESIS, [[*good, record(8, 7)]], view) == good, (
        "peers may know more than the snapshot"
    )
    forged = [*good[:3], replace(good[3], samples=2), *good[4:]]
    assert link_through(GENESIS, [forged, [], good[:6]], view) is None


async def test_rounds_folded_on_a_full_disk_are_in_the_log_once_there_is_room(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = RecordLog.append

    def full(log: RecordLog, before: bytes, one: RoundRecord) -> None:
        raise OSError(28, "No space left on device")

    first, second, third, fourth = rounds(1, 4)
    await scene.own_folds(first)
    monkeypatch.setattr(RecordLog, "append", full)
    await scene.own_folds(second, third)
    assert scene.weights.step == 3
    assert scene.weights.records_after(GENESIS) == [first[0]]
    monkeypatch.setattr(RecordLog, "append", append)
    await scene.own_folds(fourth)
    assert scene.weights.records_after(GENESIS) == [one for one, _ in (first, second, third, fourth)]


async def test_own_weights_are_not_given_up_for_what_one_endpoint_shows(scene: Scene) -> None:
    """Each way to other weights asks for confirmation first, and leaves the own ones as they are without it."""
    await scene.peer_folds(*rounds(1, 4))
    checkpoint = await scene.checkpoint_of_peer()
    asked: list[Checkpoint] = []
    believed = False

    async def confirm(shown: Checkpoint) -> None:
        asked.append(shown)
        if not believed:
            raise NotYet("shown by 1 of 3")

    scene.catch_up = CatchUp(
        scene.weights,
        scene.network,
        FakeAdapter(),
        scene.folder / "own",
        scene.events,
        tier=0,
        confirm=confirm,
    )
    await scene.own_folds(*rounds(1, 6))
    before = scene.weights.history, await scene.weights.weights_hash()
    view = scene.at(checkpoint.history, checkpoint=checkpoint)
    with pytest.raises(NotYet, match="shown by 1 of 3"):
        await scene.catch_up.catch_up(view)
    newer = replace(checkpoint, step=60, history=bytes([7]) * 32)
    with pytest.raises(NotYet, match="shown by 1 of 3"):
        await scene.catch_up.catch_up(scene.at(newer.history, checkpoint=newer))
    assert newer in asked
    assert (scene.weights.history, await scene.weights.weights_hash()) == before
    believed = True
    await scene.catch_up.catch_up(view)
    assert scene.weights.history == checkpoint.history
    assert asked[-1] == checkpoint
    # At the checkpoint's own place, other weights are not believed either.
    believed = False
    with pytest.raises(NotYet, match="shown by 1 of 3"):
        await scene.catch_up.compare(replace(checkpoint, weights_hash=bytes([9]) * 32))
    assert await scene.weights.weights_hash() == checkpoint.weights_hash
