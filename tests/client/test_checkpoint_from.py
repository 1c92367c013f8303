"""`join --checkpoint-from`: agreed weights from where the user says, with the real trainer and real files."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from psyche_chain.chain.state import Checkpoint, Phase
from psyche_chain.client import sharing
from psyche_chain.client.catchup import PEERS_SCHEME, CatchUp
from psyche_chain.client.events import EventLog
from psyche_chain.client.model import MemberTrainer, TrainerAdapter, load_trainer
from psyche_chain.client.ports import NotYet
from psyche_chain.client.view import GENESIS
from psyche_chain.client.weights import Weights
from psyche_train.checkpoints.remote import publish
from psyche_train.local_run import RUN, LocalRun
from psyche_train.matformer.export import export_model
from psyche_train.matformer.slice import cut_checkpoint
from psyche_train.spec import TrainSpec
from tests.client.views import a_view
from tests.client.world import FakeMember, FakeNetwork
from tests.train.conftest import tables

STEPS = 2


class Run:
    """Members that trained and are gone; what is left is the checkpoint of the first."""

    def __init__(self, folder: Path, optimizer: dict[str, Any] | None = None, seed: int = 7) -> None:
        made = tables(**({"optimizer": optimizer} if optimizer else {}))
        made["checkpoint"]["Init"]["seed"] = seed
        self.spec = TrainSpec.model_validate(made)
        run = LocalRun(self.spec, (0, 1), folder, samples=4)
        for _ in run.train(STEPS):
            pass
        run.drain()
        self.members = run.members
        self.path = run.members[0].save()
        position = run.members[0].position
        assert position.step == STEPS
        self.agreed = Checkpoint(
            history=position.history,
            weights_hash=run.members[0].weights_hash(),
            step=position.step,
            round=position.round,
            epoch=position.epoch,
            data_index=position.data_index,
            agreed=True,
            uri=PEERS_SCHEME + "ab" * 32,
        )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    torch.set_num_threads(1)
    return Run(tmp_path_factory.mktemp("run"))


class Newcomer:
    """A member that finds nobody: what it has is what `--checkpoint-from` names."""

    def __init__(self, run: Run, folder: Path, reference: str | Path, tier: int = 0) -> None:
        home = folder / "home"
        home.mkdir(exist_ok=True)
        peers: dict[bytes, FakeMember] = {}
        self.run = run
        self.trainer = load_trainer(
            run.spec, tier=tier, run=RUN, state_dir=home, device="cpu", threads=1
        ).trainer
        self.first = self.trainer.weights_hash()
        network = FakeNetwork(peers, b"m" * 32, home / "records.log")
        events = EventLog(home / "events.jsonl")
        self.weights = Weights(MemberTrainer(self.trainer), home / "records.log", events)
        adapter = TrainerAdapter(run.spec, run=RUN, tier=tier)
        self.catch_up = CatchUp(
            self.weights, network, adapter, home, events, tier=tier, elsewhere=str(reference)
        )

    async def catches_up(self) -> None:
        view = replace(
            a_view(Phase.WAITING_FOR_MEMBERS, checkpoint=self.run.agreed), history=self.run.agreed.history
        )
        await self.catch_up.catch_up(view)

    async def is_refused(self, words: str) -> None:
        """The answer is a sentence that names the place, and the weights are as they were."""
        with pytest.raises(NotYet, match=words) as caught:
            await self.catches_up()
        assert "Traceback" not in str(caught.value)
        assert self.weights.history == GENESIS
        assert self.trainer.weights_hash() == self.first


@pytest.fixture(autouse=True)
def nobody_answers_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "INDEX_DEADLINE_S", 0.05)


@pytest.mark.parametrize("tier", [0, 1])
@pytest.mark.parametrize("kind", ["checkpoint", "state directory", "url"])
async def test_agreed_weights_from_where_the_user_says_are_taken(
    run: Run, tmp_path: Path, kind: str, tier: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    place = {
        "checkpoint": run.path,
        "state directory": run.path.parents[1],
        "url": publish(run.path, f"file://{tmp_path}/store") if kind == "url" else "",
    }[kind]
    member = Newcomer(run, tmp_path, place, tier)
    await member.catches_up()
    assert member.weights.history == run.agreed.history
    assert member.trainer.digests() == run.members[tier].digests()


async def test_wrong_paths_are_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("hello")
    (tmp_path / "text.safetensors").write_text("hello")
    for place, words in (
        ("nowhere", "nowhere does not exist"),
        ("empty", "holds no checkpoint"),
        ("text", "holds no checkpoint"),
        ("text.safetensors", "holds no checkpoint"),
    ):
        await Newcomer(run, tmp_path, tmp_path / place).is_refused(words)
    for reference, words in (
        ("hub:not a name", "is not hub:ORG/NAME"),
        ("nosuch://bucket/path", "nosuch"),
        (f"file://{tmp_path}/empty", "is empty, or not there"),
        ("", "holds no checkpoint"),
        ("a\0b", "a.b"),
    ):
        await Newcomer(run, tmp_path, reference).is_refused(words)


async def test_weights_of_another_run_or_step_are_refused(run: Run, tmp_path: Path) -> None:
    other = Run(tmp_path / "other", seed=8)
    await Newcomer(run, tmp_path, other.path).is_refused("its weights hash is")
    begun = load_trainer(run.spec, tier=0, run=RUN, state_dir=tmp_path / "begun", device="cpu", threads=1)
    await Newcomer(run, tmp_path, begun.save()).is_refused("its weights hash is")
    wider = tmp_path / "wider"
    shutil.copytree(run.path, wider)
    tables_ = json.loads((wider / "config.json").read_text())
    (wider / "config.json").write_text(json.dumps({**tables_, "intermediate_size": 96}))
    await Newcomer(run, tmp_path, wider).is_refused("wider")


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "manifest.json"])
@pytest.mark.parametrize("how", ["cut", "changed", "empty", "gone", "noise"])
async def test_a_damaged_file_is_refused(run: Run, tmp_path: Path, name: str, how: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run.path, copy)
    file = copy / name
    raw = bytearray(file.read_bytes())
    if how == "cut":
        del raw[len(raw) // 2 :]
    elif how == "changed":
        raw[-3] ^= 0x40
    elif how == "noise":
        raw[:] = random.Random(1).randbytes(len(raw))
    else:
        raw.clear()
    file.write_bytes(bytes(raw))
    if how == "gone":
        file.unlink()
    if (name, how) == ("manifest.json", "gone"):  # as in other people's checkpoints: the hash decides
        await Newcomer(run, tmp_path, copy).catches_up()
    else:
        await Newcomer(run, tmp_path, copy).is_refused("copy")


async def test_a_wrong_tier_and_an_export_are_refused(run: Run, tmp_path: Path) -> None:
    cut_checkpoint(run.path, tmp_path / "cut", [1, 2])
    for tier, name in ((0, "tier1"), (1, "tier2")):
        await Newcomer(run, tmp_path, tmp_path / "cut" / name, tier).is_refused(f"{name}.*tier {name[-1]}")
    export_model(run.path, tmp_path / "export")
    await Newcomer(run, tmp_path, tmp_path / "export").is_refused("is an export")


async def test_the_own_slice_is_taken_by_its_proof(run: Run, tmp_path: Path) -> None:
    cut_checkpoint(run.path, tmp_path / "cut", [1])
    member = Newcomer(run, tmp_path, tmp_path / "cut" / "tier1", 1)
    await member.catches_up()
    assert member.trainer.digests() == run.members[1].digests()


async def test_a_slice_that_lies_about_what_it_was_cut_from_is_refused(run: Run, tmp_path: Path) -> None:
    cut_checkpoint(run.path, tmp_path / "cut", [1])
    path = tmp_path / "cut" / "tier1" / "manifest.json"
    manifest = json.loads(path.read_text())
    for lie, words in ((["00" * 32], "its weights hash is"), ([], "without a proof")):
        path.write_text(json.dumps({**manifest, "outer_sha256": lie}))
        await Newcomer(run, tmp_path, path.parent, 1).is_refused(words)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "hub:nobody/nothing",
        "peers:zz",
        "https://127.0.0.1:9/x",
        "file:///etc/passwd",
        "a\x1b[2J\nb\u202e",
    ],
)
async def test_place_on_chain_that_is_not_with_peers_is_told_and_passed_by(
    run: Run, tmp_path: Path, uri: str
) -> None:
    """The chain may name any place: it is not gone to, but said, and the user's own place serves."""
    for folder in ("told", "passed"):
        (tmp_path / folder).mkdir()
    told = Newcomer(run, tmp_path / "told", run.path)
    told.catch_up._elsewhere = None
    passed = Newcomer(run, tmp_path / "passed", run.path)
    checkpoint = replace(run.agreed, uri=uri)
    view = replace(a_view(Phase.WAITING_FOR_MEMBERS, checkpoint=checkpoint), history=checkpoint.history)
    with pytest.raises(NotYet, match=r"not with peers: .* start again with --checkpoint-from") as caught:
        await told.catch_up.catch_up(view)
    assert str(caught.value).isprintable()
    assert (told.weights.history, told.trainer.weights_hash()) == (GENESIS, told.first)
    await passed.catch_up.catch_up(view)
    assert passed.trainer.weights_hash() == run.agreed.weights_hash
