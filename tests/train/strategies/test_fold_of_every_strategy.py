"""Every strategy's fold gives equal bits: devices, threads, restarts, widths, order of arrival, interruption."""

from __future__ import annotations

import os
import signal
import traceback
from dataclasses import replace

import pytest
import torch

from psyche_train.checkpoints.parts import PartWeights, write_parts
from psyche_train.fold.digest import part_digests, weights_hash
from psyche_train.fold.mean import replace as replace_values
from psyche_train.matformer.loading import inferred
from psyche_train.matformer.stored import StoredWeights
from psyche_train.trainer import CheckpointError, TrainerError, TrainJob
from tests.train.strategies.cases import (
    DEVICES,
    OPTIMIZERS,
    STEPS,
    STRATEGIES,
    TIERS,
    WITH_FOLDED,
    member,
    replay,
)

KERNELS = {  # what changes one tensor in the fold
    "distro-tokens": "psyche_train.strategies.distro_strategy.apply_step",
    "sparseloco": "psyche_train.strategies.sparseloco.replace",
    "sparseloco-momentum": "psyche_train.strategies.sparseloco.replace",
    "adamw": "psyche_train.strategies.adamw.replace",
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_members_of_all_tiers_agree_on_every_part_and_slices_are_prefixes(runs, kind):
    run = runs(kind)
    parts = [trainer.digests() for trainer in run.members]
    assert parts[0][:1] == parts[1][:1] == parts[2]
    assert parts[0][:2] == parts[1]
    full = run.members[0].held.tensors()
    for trainer in run.members[1:]:
        for tensor in trainer.shared.tensors:
            part = tensor.take(full[tensor.name], trainer.tier)
            assert torch.equal(part, trainer.held.tensors()[tensor.name]), tensor.name
    assert all(len(blob) > 200 for _, blobs in run.log for blob in blobs.values())


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_every_round_moves_the_weights(runs, kind, tmp_path):
    trainer = member(kind, tmp_path)
    seen = {trainer.weights_hash()}
    for record, blobs in runs(kind).log:
        trainer.fold(record, blobs, None)
        seen.add(trainer.weights_hash())
    assert len(seen) == STEPS + 1


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", STRATEGIES)
def test_fold_is_equal_on_every_device_and_thread_count(runs, kind, device, tmp_path):
    wanted = runs(kind).members[0].weights_hash()
    assert replay(member(kind, tmp_path / "one", device=device), runs(kind).log) == wanted
    torch.set_num_threads(2)
    try:
        assert replay(member(kind, tmp_path / "two", device=device), runs(kind).log) == wanted
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("kind", STRATEGIES)
def test_fold_is_equal_after_a_restart_and_for_any_order_of_arrival(runs, kind, tmp_path):
    log = runs(kind).log
    first = member(kind, tmp_path, tier=1)
    replay(first, log[:2])
    first.save()
    second = member(kind, tmp_path, tier=1)
    assert second.position == first.position
    assert second.position.step == 2
    shuffled = [(record, dict(reversed(blobs.items()))) for record, blobs in log[2:]]
    assert replay(second, shuffled) == runs(kind).members[1].weights_hash()


@pytest.mark.parametrize("kind", WITH_FOLDED)
def test_every_tier_goes_on_from_what_a_full_member_offers(runs, kind, tmp_path):
    log = runs(kind).log
    full = member(kind, tmp_path / "full")
    replay(full, log[:2])
    directory = full.save()
    with StoredWeights(inferred(directory, full.schema), full.shared, 0) as stored:
        offered = write_parts(stored, full.shared, 0, tmp_path, blob_bytes=10_000)
    paths = {blob: path for one in offered for (blob, _), path in zip(one.part.blobs, one.paths, strict=True)}
    for tier in TIERS:
        trainer = member(kind, tmp_path / f"{tier}-directory", tier=tier)
        trainer.restore(directory, full.position)
        assert replay(trainer, log[2:]) == runs(kind).members[tier].weights_hash()
        parts = [one.part for one in offered][: full.schema.max_tier - tier + 1]
        trainer = member(kind, tmp_path / f"{tier}-parts", tier=tier)
        trainer.take(PartWeights(full.shared, tier, parts, paths.__getitem__), full.position)
        assert replay(trainer, log[2:]) == runs(kind).members[tier].weights_hash()
    bare = member(kind, tmp_path / "bare")
    with pytest.raises(CheckpointError, match=r"lacks (momentum|exp_avg)/"):
        bare.restore(directory / "model.safetensors", full.position)


@pytest.mark.parametrize("kind", WITH_FOLDED)
def test_one_bit_of_folded_state_changes_the_hash_and_reset_begins_with_zeros(runs, kind, tmp_path):
    trainer = member(kind, tmp_path)
    before = trainer.weights_hash()
    plain = weights_hash(part_digests(trainer.schema, trainer.held.loaded().weights, 0))
    assert plain != before
    replay(trainer, runs(kind).log[:1])
    assert any(bool(value.any()) for value in trainer.training.folded.values())
    after = trainer.weights_hash()
    name = next(iter(trainer.training.folded))
    trainer.training.folded[name].view(torch.int32).view(-1)[0] ^= 1
    trainer.held.changed()
    assert trainer.weights_hash() != after
    trainer.reset()
    assert trainer.weights_hash() == before


@pytest.mark.parametrize("kind", STRATEGIES)
def test_fold_that_fails_in_its_middle_is_refused_until_weights_are_taken_again(
    runs, kind, tmp_path, monkeypatch
):
    log, tier = runs(kind).log, 1
    wanted = runs(kind).members[tier].weights_hash()
    trainer = member(kind, tmp_path, tier=tier)
    replay(trainer, log[:1])
    trainer.save()
    path, calls = KERNELS[kind], 0
    module, _, name = path.rpartition(".")
    kernel = getattr(__import__(module, fromlist=[name]), name)

    def failing(*args, **options):
        nonlocal calls
        calls += 1
        if calls == 5:
            raise RuntimeError("out of memory")
        return kernel(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(path, failing)
        with pytest.raises(RuntimeError, match="out of memory"):
            trainer.fold(*log[1], None)
    assert calls == 5
    for call in (
        trainer.weights_hash,
        trainer.save,
        trainer.validation_loss,
        lambda: trainer.fold(*log[1], None),
        lambda: trainer.train(TrainJob(1, 3, 2, 1, tier, [range(3)])),
    ):
        with pytest.raises(TrainerError, match="half-way"):
            call()
    trainer.load()
    assert trainer.position.step == 1
    assert replay(trainer, log[1:]) == wanted


@pytest.mark.parametrize("kind", STRATEGIES)
def test_a_member_killed_anywhere_in_folding_or_saving_ends_with_equal_weights(runs, kind, tmp_path):
    """SIGKILL at a growing number of writes; every life starts from the disk and goes on."""
    log, wanted = runs(kind).log, runs(kind).members[0].weights_hash()
    lives, budget = 0, 3
    while True:
        trainer = member(kind, tmp_path)
        if trainer.position.step == len(log):
            break
        lives, budget = lives + 1, budget + 9
        assert lives < 60
        child = os.fork()
        if child == 0:
            _live_for(kind, tmp_path, log, budget)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert lives >= 3
    assert trainer.weights_hash() == wanted


def _live_for(kind: str, folder, log, budget: int) -> None:
    """Fold and save in this process until `budget` steps of that were taken, then die."""
    import psyche_train.checkpoints.store as store
    import psyche_train.strategies.adamw as adamw
    import psyche_train.strategies.distro_strategy as distro_strategy
    import psyche_train.strategies.sparseloco as sparseloco

    left = budget

    def counted(call):
        def count(*args, **options):
            nonlocal left
            left -= 1
            if left <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*args, **options)

        return count

    try:
        for name in ("write_tensors", "write_weights", "write_json", "sync_path"):
            setattr(store, name, counted(getattr(store, name)))
        adamw.replace = sparseloco.replace = counted(replace_values)
        distro_strategy.apply_step = counted(distro_strategy.apply_step)
        trainer = member(kind, folder)
        for record, blobs in log[trainer.position.step :]:
            trainer.fold(record, blobs, None)
            trainer.save()
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os.kill(os.getpid(), signal.SIGKILL)  # all is folded: the parent sees it by the position


@pytest.mark.parametrize("kind", STRATEGIES)
def test_a_round_with_nothing_accepted_changes_nothing(runs, kind, tmp_path):
    trainer = member(kind, tmp_path)
    log = runs(kind).log
    replay(trainer, log[:2])
    before = trainer.weights_hash()
    trainer.fold(replace(log[2][0], accepted=()), {}, None)
    assert trainer.position.step == 3
    trainer.held.changed()
    assert trainer.weights_hash() == before


@pytest.mark.parametrize("kind", ["sparseloco-momentum", "adamw", "adamw-holders", "sparseloco-senders"])
def test_what_no_accepted_width_holds_stays_as_it_is(runs, kind, tmp_path):
    trainer = member(kind, tmp_path)
    log = runs(kind).log
    replay(trainer, log[:2])
    before = {name: value.detach().clone() for name, value in trainer.held.tensors().items()}
    record, blobs = log[2]
    trainer.fold(replace(record, accepted=record.accepted[2:]), {2: blobs[2]}, None)
    moved = 0
    for tensor in trainer.shared.tensors:
        after = trainer.held.tensors()[tensor.name]
        inside = torch.zeros(tensor.shape, dtype=torch.bool)
        tensor.take(inside, 2).fill_(True)
        assert torch.equal(after[~inside], before[tensor.name][~inside]), tensor.name
        moved += int((after != before[tensor.name]).sum())
    assert moved > 100
