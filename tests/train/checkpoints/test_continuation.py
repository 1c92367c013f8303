"""A member that was killed and started again goes on with the same bits: weights, buffers, updates."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from psyche_train.checkpoints.errors import CheckpointError
from psyche_train.checkpoints.files import FOLDED
from psyche_train.checkpoints.manifest import read_manifest
from psyche_train.checkpoints.store import read_position
from psyche_train.local_run import RUN, LocalRun
from psyche_train.matformer.loading import inferred
from psyche_train.matformer.slice import cut_checkpoint
from psyche_train.matformer.stored import full_weights_hash
from psyche_train.trainer import Trainer

STEPS = 4
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "Distro": {"compression_chunk": 16, "compression_topk": 4, "weight_decay": 0.1},
    "AdamW": {"weight_decay": 0.1},
    "SparseLoCo": {"local_steps": 2, "compression_chunk": 16, "compression_topk": 8, "outer_momentum": 0.5},
}


def state_of(run: LocalRun) -> list[tuple[list[bytes], dict[str, torch.Tensor]]]:
    return [(member.digests(), member.training.tensors()) for member in run.members]


def assert_same(one: LocalRun, other: LocalRun) -> None:
    for (digests, own), (other_digests, other_own) in zip(state_of(one), state_of(other), strict=True):
        assert digests == other_digests
        assert own.keys() == other_own.keys()
        assert all(torch.equal(own[name], other_own[name]) for name in own)
    assert [blobs for _, blobs in one.log] == [blobs for _, blobs in other.log]


def restart(run: LocalRun, folder: Path) -> None:
    """Save every member, throw it away, and load it again as a new process would."""
    run.members = [
        Trainer(run.spec, tier=member.tier, run=RUN, state_dir=folder / str(i), device="cpu", keep=1)
        for i, member in enumerate(run.members)
        if member.save()
    ]
    for member in run.members:
        member.load()


@pytest.mark.parametrize("pipelined", [True, False], ids=["between training and folding", "between rounds"])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_killed_at_any_step_the_run_goes_on_with_the_same_bits(make_spec, tmp_path, kind, pipelined):
    spec = make_spec(optimizer={kind: OPTIMIZERS[kind]})
    whole = LocalRun(spec, (0, 1), tmp_path / "whole", samples=8, pipelined=pipelined)
    list(whole.train(STEPS))
    whole.drain()
    for killed_at in range(STEPS + 1):
        folder = tmp_path / f"killed-{killed_at}"
        run = LocalRun(spec, (0, 1), folder, samples=8, pipelined=pipelined)
        list(run.train(killed_at))
        restart(run, folder)
        list(run.train(STEPS - killed_at))
        run.drain()
        assert_same(run, whole)
        shutil.rmtree(folder)


def test_killed_again_and_again_changes_nothing_either(spec, tmp_path):
    whole = LocalRun(spec, (0, 2), tmp_path / "whole", samples=8)
    list(whole.train(STEPS))
    run = LocalRun(spec, (0, 2), tmp_path / "run", samples=8)
    for _ in range(STEPS):
        list(run.train(1))
        restart(run, tmp_path / "run")
    assert_same(run, whole)


def test_a_sharded_checkpoint_restores_the_same_bits(spec, tmp_path):
    run = LocalRun(spec, (0,), tmp_path, samples=8)
    list(run.train(2))
    run.members[0].store.shard_bytes = 10_000
    before = state_of(run)
    path = run.members[0].save()
    assert len(list(path.glob("model-*.safetensors"))) > 2
    again = Trainer(spec, tier=0, run=RUN, state_dir=tmp_path / "0", device="cpu")
    again.load()
    assert again.source.checkpoint == str(path)
    assert again.digests() == before[0][0]
    own = again.training.tensors()
    assert all(torch.equal(own[name], value) for name, value in before[0][1].items())


@pytest.mark.parametrize("kind", ["AdamW", "SparseLoCo"])
def test_a_slice_keeps_the_momenta_and_goes_on_with_the_same_bits(make_spec, tmp_path, kind):
    spec = make_spec(optimizer={kind: OPTIMIZERS[kind]})
    run = LocalRun(spec, (0, 1, 2), tmp_path / "run", samples=8)
    list(run.train(2))
    run.drain()
    full, positions = run.members[0].save(), run.members[0].position
    done = len(run.log)
    cut = tmp_path / "cut"
    cut_checkpoint(full, cut, [1, 2])
    assert [slice_.was_there for slice_ in cut_checkpoint(full, cut, [1, 2])] == [True, True]
    list(run.train(2))
    run.drain()
    for tier in (1, 2):
        folder = cut / f"tier{tier}"
        manifest = read_manifest(folder)
        assert FOLDED in manifest.files
        member = Trainer(spec, tier=tier, run=RUN, state_dir=tmp_path / str(tier), device="cpu")
        member.restore(folder, positions)
        assert member.training.folded
        assert all(bool(values.any()) for values in member.training.folded.values() if values.numel() > 64)
        source = inferred(folder, member.schema)
        agreed = read_position(full)[1].weights_sha256
        assert full_weights_hash(source, member.shared) == agreed
        for record, blobs in run.log[done:]:
            member.fold(record, blobs, None)
        assert member.digests() == run.members[tier].digests()
        assert member.digests() == run.members[0].digests()[: 3 - tier]


def test_momenta_of_a_slice_that_were_changed_or_lost_are_refused(make_spec, tmp_path):
    spec = make_spec(optimizer={"AdamW": OPTIMIZERS["AdamW"]})
    run = LocalRun(spec, (0,), tmp_path / "run", samples=4)
    list(run.train(2))
    run.drain()
    full = run.members[0].save()
    cut_checkpoint(full, tmp_path, [1])
    folder = tmp_path / "tier1"
    member = Trainer(spec, tier=1, run=RUN, state_dir=tmp_path / "1", device="cpu")
    source, agreed = inferred(folder, member.schema), read_position(full)[1].weights_sha256
    raw = bytearray((folder / FOLDED).read_bytes())
    raw[-2] ^= 1
    (folder / FOLDED).write_bytes(bytes(raw))
    assert full_weights_hash(source, member.shared) != agreed
    with pytest.raises(CheckpointError, match="is not this slice"):
        cut_checkpoint(full, tmp_path, [1])
    (folder / FOLDED).unlink()
    with pytest.raises(CheckpointError, match="lacks exp_avg"):
        full_weights_hash(source, member.shared)
    (full / FOLDED).unlink()
    (full / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match="is not this slice"):
        cut_checkpoint(full, tmp_path, [1])


def test_kinds_of_folded_state_are_in_the_order_of_their_names(make_spec):
    for kind, keys in OPTIMIZERS.items():
        folded = make_spec(optimizer={kind: keys}).optimizer.chosen.folded
        assert list(folded) == sorted(folded)
