"""The trainer: learning, checkpoints, cancellation, witnesses' checks, the startup box."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer

from psyche_train.checkpoints.store import CheckpointStore
from psyche_train.local_run import RUN, LocalRun
from psyche_train.matformer.box import startup_box
from psyche_train.matformer.loading import CheckpointError, DoubleSliceError
from psyche_train.matformer.slice import cut_checkpoint
from psyche_train.models.schema import TierError
from psyche_train.trainer import (
    ExpectedUpdate,
    NotFinite,
    Position,
    TrainCancelled,
    Trainer,
    TrainerError,
    TrainJob,
    UpdateError,
)

JOB = TrainJob(epoch=1, round=1, step=0, slot=0, tier=0, intervals=[range(0, 8)])
EXPECTED = ExpectedUpdate(run=RUN, epoch=1, round=1, step=0, slot=0, tier=0, intervals=[range(0, 8)])


def trainer(spec, folder: Path, tier: int = 0, **options) -> Trainer:
    member = Trainer(spec, tier=tier, run=RUN, state_dir=folder, device="cpu", **options)
    member.load()
    return member


def test_loss_falls_on_every_tier(spec, tmp_path):
    run = LocalRun(spec, (0, 1, 1), tmp_path, samples=24)
    before = [member.validation_loss() for member in run.members]
    sizes = [progress.payload_bytes for progress in run.train(40)]
    run.drain()
    after = [member.validation_loss() for member in run.members]
    assert all(low < high - 1.0 for low, high in zip(after, before, strict=True))
    assert min(min(size) for size in sizes) > 300
    assert after[1] == after[2]


def test_train_leaves_the_shared_weights_alone_even_with_lookahead(make_spec, tmp_path):
    table = {"compression_chunk": 16, "compression_topk": 4, "lookahead": True}
    member = trainer(make_spec(optimizer={"Distro": table}), tmp_path)
    before = member.weights_hash()
    for number in (1, 2):
        member.train(TrainJob(1, number, number - 1, 0, 0, [range(0, 8)]))
        member.held.changed()
        assert member.weights_hash() == before


def test_cancelled_training_changes_nothing(spec, tmp_path, monkeypatch):
    monkeypatch.setattr("psyche_train.learner.MICRO_BATCH_TOKENS", 32)
    member, other = trainer(spec, tmp_path / "a"), trainer(spec, tmp_path / "b")
    calls = iter([False, False, True])
    with pytest.raises(TrainCancelled):
        member.train(JOB, lambda: next(calls))
    assert next(calls, None) is None
    assert member.train(JOB).blob == other.train(JOB).blob


def test_micro_batches_give_the_gradient_of_the_whole_batch(spec, tmp_path, monkeypatch):
    member = trainer(spec, tmp_path)
    batch = member.data.batch([range(0, 7)])
    learner = member.held.loaded().learner
    whole = learner.gradients(batch, cancelled=lambda: False, clip_norm=None)
    monkeypatch.setattr("psyche_train.learner.MICRO_BATCH_TOKENS", 33)
    parts = learner.gradients(batch, cancelled=lambda: False, clip_norm=None)
    assert parts[0] == pytest.approx(whole[0], rel=1e-5)
    for name, gradient in whole[1].items():
        assert torch.allclose(gradient, parts[1][name], atol=1e-6)


def test_not_finite_loss_is_named_and_changes_nothing(spec, tmp_path):
    member = trainer(spec, tmp_path)
    weight = member.held.loaded().weights["lm_head.weight"]
    with torch.no_grad():
        kept = weight[0, 0].clone()
        weight[0, 0] = float("inf")
    with pytest.raises(NotFinite, match="learning rate"):
        member.train(JOB)
    with torch.no_grad():
        weight[0, 0] = kept
    assert member.train(JOB).blob == trainer(spec, tmp_path / "b").train(JOB).blob


def test_impossible_calls_are_refused(spec, tmp_path):
    member = Trainer(spec, tier=0, run=RUN, state_dir=tmp_path, device="cpu")
    with pytest.raises(TrainerError, match="load"):
        member.train(JOB)
    member.load()
    with pytest.raises(TrainerError, match="tier 1"):
        member.train(TrainJob(1, 1, 0, 0, 1, [range(0, 8)]))
    with pytest.raises(TrainerError, match="no samples"):
        member.train(TrainJob(1, 1, 0, 0, 0, []))
    with pytest.raises(TierError, match=r"0\.\.2"):
        Trainer(spec, tier=3, run=RUN, state_dir=tmp_path)
    with pytest.raises(ValueError, match="not on this machine"):
        Trainer(spec, tier=0, run=RUN, state_dir=tmp_path, device="cuda:77")


def test_check_accepts_an_update_and_refuses_its_changes(spec, tmp_path):
    member = trainer(spec, tmp_path)
    blob = member.train(JOB).blob
    member.check(blob, EXPECTED)
    for at in range(0, 119, 7):
        damaged = bytearray(blob)
        damaged[at] ^= 0x10
        if 98 <= at < 102:
            continue  # the loss is the member's own word
        with pytest.raises(UpdateError):
            member.check(bytes(damaged), EXPECTED)
    with pytest.raises(UpdateError, match="length"):
        member.check(blob[:-1], EXPECTED)


def test_own_update_that_was_not_accepted_returns_to_the_error_buffer(spec, tmp_path):
    run = LocalRun(spec, (0, 0), tmp_path, samples=8)
    list(run.train(1))
    record, blobs = run.log[0]
    kept = run.members[0].training.state.error["lm_head.weight"].clone()
    run.members[0].fold(record, blobs, 0)
    assert torch.equal(run.members[0].training.state.error["lm_head.weight"], kept)
    other = run.members[1].training.state.error["lm_head.weight"].clone()
    run.members[1].fold(record, blobs, None)
    assert not torch.equal(run.members[1].training.state.error["lm_head.weight"], other)


@pytest.mark.parametrize("tier", [0, 1])
def test_checkpoint_opens_in_transformers(make_spec, tmp_path, tier):
    spec = make_spec(
        data_location={"Stdlib": {"max_bytes": 60_000}},
        checkpoint={"Init": {"hidden_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1}},
        matformer={"max_tier": 1, "ffn_rescale": 0.0},
    )
    member = trainer(spec, tmp_path, tier)
    path = member.save()
    model = AutoModelForCausalLM.from_pretrained(path)
    assert model.config.intermediate_size == 512 >> tier
    assert model.config.matformer_tier == tier
    assert model.config.matformer_base_intermediate_size == 512
    windows = member.data.validation(4)
    with torch.no_grad():
        logits = model(input_ids=windows[:, :-1]).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
    assert float(loss) == pytest.approx(member.held.loaded().loss(windows), rel=1e-5)
    tokenizer = AutoTokenizer.from_pretrained(path)
    text = "def f(x):\n\treturn 'é'  # ü\x00"
    assert tokenizer(text)["input_ids"] == list(text.encode())
    assert tokenizer.decode(list(text.encode())) == text


def test_restart_goes_on_with_the_same_error_buffers(spec, tmp_path):
    run = LocalRun(spec, (0,), tmp_path / "run", samples=8)
    list(run.train(3))
    run.drain()
    run.members[0].save()
    again = trainer(spec, tmp_path / "run" / "0")
    job = TrainJob(1, 4, 3, 0, 0, [range(24, 32)])
    assert again.train(job).blob == run.members[0].train(job).blob


def test_damaged_newest_checkpoint_is_passed_over_with_a_warning(spec, tmp_path, caplog):
    run = LocalRun(spec, (0,), tmp_path, samples=8)
    list(run.train(1))
    run.drain()
    member = run.members[0]
    older = member.save()
    list(run.train(1))
    run.drain()
    newer = member.save()
    data = bytearray((newer / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (newer / "model.safetensors").write_bytes(bytes(data))
    again = trainer(spec, tmp_path / "0")
    assert again.position.step == 1
    assert "passed over" in caplog.text
    (older / "position.json").unlink()
    assert trainer(spec, tmp_path / "0").position == Position()
    shutil.rmtree(older)
    shutil.rmtree(newer)
    assert trainer(spec, tmp_path / "0").position == Position()


def test_checkpoints_of_another_run_or_spec_are_not_taken(spec, make_spec, tmp_path):
    run = LocalRun(spec, (0,), tmp_path, samples=8)
    list(run.train(1))
    run.drain()
    run.members[0].save()
    assert trainer(spec, tmp_path / "0").position.step == 1
    other = Trainer(spec, tier=0, run=bytes(32), state_dir=tmp_path / "0", device="cpu")
    other.load()
    assert other.position == Position()
    assert trainer(make_spec(max_seq_len=17), tmp_path / "0").position == Position()
    assert trainer(spec, tmp_path / "0", tier=1).position == Position()


def test_store_keeps_the_newest_and_the_pinned_and_survives_a_stop_between_renames(spec, tmp_path):
    run = LocalRun(spec, (0,), tmp_path, samples=4)
    member = run.members[0]
    member.store.keep = 2
    paths = []
    for number in range(4):
        paths.append(member.save())
        if number == 0:
            member.pin(paths[0])
        list(run.train(1))
        run.drain()
    assert [path.exists() for path in paths] == [True, False, True, True]
    assert member.save() == member.save()  # the same position again replaces it
    paths[3].rename(paths[3].with_name(".old-" + paths[3].name))
    (member.store.folder / ".new-step-x").mkdir()
    CheckpointStore(member.store.folder)
    assert paths[3].exists()
    assert not list(member.store.folder.glob(".new-*"))
    (member.store.folder / "pinned").write_bytes(b"\xff\xfe")  # what cannot be read pins nothing
    assert member.save().exists()


def test_manifest_names_every_file_with_its_hash(spec, tmp_path):
    path = trainer(spec, tmp_path, tier=1).save()
    manifest = json.loads((path / "manifest.json").read_text())
    assert set(manifest["files"]) == {entry.name for entry in path.iterdir()} - {"manifest.json"}
    assert manifest["tiers"] == {"1": ["config.json", "model.safetensors"]}


def test_slice_of_a_slice_is_refused(spec, tmp_path):
    half = trainer(spec, tmp_path / "half", tier=1).save()
    quarter = trainer(spec, tmp_path / "quarter", tier=2)
    with pytest.raises(DoubleSliceError, match="already the slice of tier 1"):
        quarter.restore(half, Position())
    with pytest.raises(DoubleSliceError):
        quarter.restore(half / "model.safetensors", Position())
    with pytest.raises(TierError, match="needs more neurons"):
        trainer(spec, tmp_path / "full").restore(half, Position())
    other = trainer(spec, tmp_path / "other", tier=1)
    other.restore(half, Position(step=5))
    assert other.position.step == 5


def test_restore_refuses_other_models_and_exports(spec, make_spec, tmp_path):
    member = trainer(spec, tmp_path / "member")
    init = {**spec.checkpoint.chosen.model_dump(), "intermediate_size": 128}
    wide = trainer(make_spec(checkpoint={"Init": init}), tmp_path / "wide").save()
    with pytest.raises(CheckpointError, match="width of 128"):
        member.restore(wide, Position())
    own = member.save()
    config = json.loads((own / "config.json").read_text())
    (own / "config.json").write_text(json.dumps({**config, "matformer_export": True}))
    with pytest.raises(CheckpointError, match="export"):
        member.restore(own, Position())
    for tier in (None, "x", [], 99):
        (own / "config.json").write_text(json.dumps({**config, "matformer_tier": tier}))
        with pytest.raises(CheckpointError, match=r"config\.json"):
            member.restore(own, Position())
    with pytest.raises(CheckpointError):
        member.restore(tmp_path / "nothing", Position())


@pytest.mark.parametrize("strategy", ["universal", "auto", "sliced"])
def test_local_checkpoint_gives_the_slice_by_every_strategy(spec, make_spec, tmp_path, strategy):
    start = tmp_path / "start"
    shutil.copytree(trainer(spec, tmp_path / "a").save(), start)
    cut_checkpoint(start, start, [1])
    local = make_spec(checkpoint={"Local": {"path": str(start)}}).resolve()
    assert local.checkpoint.chosen.weights_sha256 == spec.resolve().checkpoint.chosen.weights_sha256
    member = Trainer(local, tier=1, run=RUN, state_dir=tmp_path / "c", device="cpu", strategy=strategy)
    member.load()
    assert member.weights_hash() == trainer(spec, tmp_path / "d", tier=1).weights_hash()
    assert member.source.sliced == (strategy != "universal")


def test_initial_weights_are_frozen_and_nested(spec, tmp_path):
    hashes = [trainer(spec, tmp_path / str(tier), tier=tier).digests() for tier in (0, 1, 2)]
    assert hashes[0][:2] == hashes[1]
    assert hashes[1][:1] == hashes[2]
    assert spec.resolve().checkpoint.chosen.weights_sha256 == GOLDEN_INITIAL


GOLDEN_INITIAL = "b3aada7e3de21e7bf61cf760cc3cfaf28b41b588c0dbe5246e586abd9f1e266b"


def test_startup_box_shows_tier_width_and_warnings(make_spec, tmp_path):
    member = trainer(make_spec(matformer={"max_tier": 1, "ffn_rescale": 0.0}), tmp_path, tier=1)
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(startup_box(member.source))
    text = console.export_text()
    for part in ("Init, seed 7", "asked tier", "1 ✓", "32 / 64 (50.0 %)", "auto", "ffn_rescale is 0"):
        assert part in text
