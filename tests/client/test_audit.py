"""`psyche-chain replay`: what a falsified or missing record, blob or checkpoint does to an audit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from psyche_chain.audit import AGREED, Audit, Sources, audit
from psyche_chain.chain.state import Checkpoint, Phase
from psyche_chain.cli import replay as command
from psyche_chain.cli.main import main
from psyche_chain.client.view import GENESIS, ChainView
from psyche_train.blobs import BlobStore
from psyche_train.checkpoints.manifest import MANIFEST, FileEntry
from psyche_train.local_run import RUN, LocalRun
from psyche_train.records import RecordLog
from psyche_train.replay import Replay
from psyche_train.spec import TrainSpec
from tests.client.views import a_view
from tests.train.conftest import tables

torch.set_num_threads(1)


class Kept:
    """What a member kept of three rounds, with a checkpoint after the second, and what the chain shows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spec = TrainSpec.model_validate(tables())
        run = LocalRun(self.spec, (0, 1), folder / "run", samples=4)
        store, log = BlobStore(folder / "state" / "blobs"), RecordLog(folder / "state" / "records.log")
        list(run.train(3))
        full, self.history = run.members[0], GENESIS
        full.reset()
        for number, (record, blobs) in enumerate(run.log):
            accepted = tuple(replace(a, commitment=store.put(blobs[a.slot])) for a in record.accepted)
            record = replace(record, accepted=accepted)
            log.append(self.history, record)
            full.fold(record, blobs, None)
            self.history = record.next_history(self.history)
            if number == 1:
                saved = full.save()
                (folder / "state" / "checkpoints").mkdir()
                self.saved = folder / "state" / "checkpoints" / saved.name
                shutil.copytree(saved, self.saved)
                at = full.position
                self.checkpoint = Checkpoint(
                    weights_hash=full.weights_hash(),
                    history=at.history,
                    step=at.step,
                    round=at.round,
                    data_index=at.data_index,
                    epoch=at.epoch,
                    agreed=True,
                    uri="",
                )

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def view(self) -> ChainView:
        return replace(a_view(Phase.PAUSED), history=self.history, checkpoint=self.checkpoint)

    def blob(self, number: int = 0) -> Path:
        record = RecordLog(self.state / "records.log", read_only=True).after(GENESIS)[number]
        return self.state / "blobs" / record.accepted[0].commitment.hex()

    def audit(self, *blobs: Path, start: Path | None = None) -> Audit:
        replay = Replay(self.spec, RUN, torch.device("cpu"))
        where = str(start) if start else replay.first()
        if start:
            replay.load(start)
        return audit(replay, self.view, Sources.of([self.state], blobs), where)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    return Kept(tmp_path_factory.mktemp("kept"))


@pytest.fixture
def kept(original: Kept, tmp_path: Path) -> Kept:
    """A copy that a test may falsify."""
    shutil.copytree(original.state, tmp_path / "state")
    copy = object.__new__(Kept)
    copy.__dict__.update(original.__dict__)
    copy.folder, copy.saved = tmp_path, tmp_path / "state" / "checkpoints" / original.saved.name
    return copy


def test_honest_run_is_verified_from_the_first_weights_and_from_a_checkpoint(kept: Kept) -> None:
    found = kept.audit()
    assert (found.verdict, found.rounds, found.updates, found.useless) == ("verified", 3, 6, 0)
    assert [row.what for row in found.rows] == [AGREED, str(kept.saved), "history of the chain"]
    later = kept.audit(start=kept.saved)
    assert (later.verdict, later.rounds) == ("verified", 1)


def test_missing_and_falsified_blobs_are_named_and_a_good_copy_elsewhere_is_taken(kept: Kept) -> None:
    path = kept.blob(1)
    good = path.read_bytes()
    path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    found = kept.audit()
    assert (found.verdict, found.rounds) == ("incomplete", 1)
    assert any(f"blob {path.name} is damaged or falsified" in gap for gap in found.gaps)
    elsewhere = kept.folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / path.name).write_bytes(good)
    found = kept.audit(elsewhere)
    assert found.verdict == "verified"
    assert any("damaged or falsified" in note for note in found.notes)
    path.unlink()
    assert any(f"blob {path.name} is missing" in gap for gap in kept.audit().gaps)


def test_falsified_record_leads_nowhere(kept: Kept) -> None:
    entries = RecordLog(kept.state / "records.log").entries()
    (kept.state / "records.log").unlink()
    log = RecordLog(kept.state / "records.log")
    for number, (history, record) in enumerate(entries):
        log.append(history, replace(record, samples=5) if number == 1 else record)
    found = kept.audit()
    assert found.verdict == "incomplete"
    assert found.rounds == 0
    assert any("no record leads to history" in gap and "before round 3" in gap for gap in found.gaps)


def test_torn_log_is_named(kept: Kept) -> None:
    raw = (kept.state / "records.log").read_bytes()
    (kept.state / "records.log").write_bytes(raw[:-10])
    found = kept.audit()
    assert (found.verdict, found.rounds) == ("incomplete", 2), "it goes as far as the agreed checkpoint"
    assert any("bytes at its end are no record" in note for note in found.notes)


def test_falsified_checkpoint_differs_even_with_a_fitting_manifest(kept: Kept) -> None:
    path = kept.saved / "model.safetensors"
    weights = load_file(path)
    next(iter(weights.values())).view(-1)[0] += 1
    save_file(weights, path, {"format": "pt"})
    tables_ = json.loads((kept.saved / MANIFEST).read_text())
    entry = FileEntry.of_file(path)
    tables_["files"][path.name] = {"bytes": entry.num_bytes, "sha256": entry.sha256}
    (kept.saved / MANIFEST).write_text(json.dumps(tables_))
    found = kept.audit()
    assert found.verdict == "differs"
    assert [row.what for row in found.rows if not row.equal] == [str(kept.saved)]
    begun = kept.audit(start=kept.saved)
    assert [row.what for row in begun.rows if not row.equal] == [AGREED]


def test_weights_that_members_agreed_on_and_no_log_gives_differ(kept: Kept) -> None:
    kept.checkpoint = replace(kept.checkpoint, weights_hash=bytes(32))
    assert [row.what for row in kept.audit().rows if not row.equal] == [AGREED]


def test_start_that_nothing_on_chain_proves_is_not_verified(kept: Kept) -> None:
    kept.checkpoint = replace(kept.checkpoint, agreed=False)
    found = kept.audit(start=kept.saved)
    assert found.verdict == "incomplete"
    assert any("nothing on the chain proves" in gap for gap in found.gaps)


@pytest.fixture
def run_command(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """The command line on what the chain shows."""
    run = SimpleNamespace(run_id="demo", key="KEY", run_state=RUN)
    monkeypatch.setattr(command, "with_rpc", lambda rpc, action: (run, None, kept.spec.to_bytes()))
    monkeypatch.setattr("psyche_chain.client.view.ChainView.of", lambda state: kept.view)

    def call(*args: Any) -> tuple[int, str, str]:
        status = main(["replay", "demo", *map(str, args)])
        return (status, *capsys.readouterr())

    return call


def test_command_tells_the_verdict_by_its_status(
    kept: Kept, run_command: Callable[..., tuple[int, str, str]]
) -> None:
    status, out, _ = run_command("--state-dir", kept.state)
    assert status == 0
    assert "verified" in out
    assert AGREED in out
    status, out, _ = run_command("--state-dir", kept.state, "--json")
    assert json.loads(out)["verdict"] == "verified"
    status, _, err = run_command("--state-dir", kept.state, "--from", kept.folder / "nothing")
    assert status == 3
    assert "--from" in err
    status, _, err = run_command("--state-dir", kept.folder / "nothing")
    assert status == 4
    assert run_command()[0] == 2
    kept.blob().unlink()
    status, out, err = run_command("--state-dir", kept.state)
    assert status == 4
    assert "is missing" in out
    assert "not complete" in err
    kept.checkpoint = replace(kept.checkpoint, weights_hash=bytes(32))
    status, _, err = run_command("--state-dir", kept.state, "--from", kept.saved)
    assert status == 1
    assert "found a difference" in err
