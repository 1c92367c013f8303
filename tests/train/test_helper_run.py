"""Members in helper mode: equal bits, restarts, changes of epoch, what is refused."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from psyche_train.local_run import RUN, LocalRun
from psyche_train.matformer.loading import CheckpointError
from psyche_train.models.schema import TierError
from psyche_train.records import RoundRecord
from psyche_train.spec import TrainSpec
from psyche_train.trainer import Position, Trainer, TrainJob

TIERS = (0, 1, 2)
EPOCH_ROUNDS = 2
STEPS = 5
HELPERS = {"max_tier": 2, "helper_fraction": 0.5}


@pytest.fixture
def spec(make_spec) -> TrainSpec:
    """Layers of 4 blocks of 16 neurons: tier 1 has 2 and samples 1 of 2, tier 2 has 1 and samples 2 of 3."""
    return make_spec(matformer=HELPERS)


@pytest.fixture
def run(spec, tmp_path) -> LocalRun:
    """A full member and two helpers after three epochs, the last one begun."""
    run = LocalRun(spec, TIERS, tmp_path / "run", samples=12, epoch_rounds=EPOCH_ROUNDS)
    list(run.train(STEPS))
    run.drain()
    return run


def trainer(spec: TrainSpec, folder: Path, tier: int, **options) -> Trainer:
    member = Trainer(spec, tier=tier, run=RUN, state_dir=folder, device="cpu", **options)
    member.load()
    return member


def held(member: Trainer) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in member.held.loaded().weights.items()}


def shared(member: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in member.held.tensors().items()}


def replay(member: Trainer, log: list[tuple[RoundRecord, dict[int, bytes]]]) -> Trainer:
    for record, blobs in log:
        member.fold(record, blobs, None)
    return member


def equal(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_all_members_hold_the_same_bits_of_the_full_model(run):
    full = held(run.members[0])
    assert all(equal(held(member), full) for member in run.members[1:])
    assert run.members[1].digests() == run.members[0].digests()[:2]
    assert run.members[2].digests() == run.members[0].digests()[:1]
    shares = run.members[0].training.shares
    rotations = {shares.helper.rotation(record.epoch, record.number) for record, _ in run.log}
    assert rotations == {1, 2, 3}


@pytest.mark.parametrize(
    "optimizer",
    [
        {"Distro": {"compression_chunk": 16, "compression_topk": 4, "votes": "senders"}},
        {"Distro": {"compression_chunk": 16, "compression_topk": 4, "votes": "tokens", "lookahead": True}},
        {"SparseLoCo": {"compression_chunk": 16, "compression_topk": 8, "local_steps": 2}},
        {
            "SparseLoCo": {
                "compression_chunk": 16,
                "compression_topk": 8,
                "local_steps": 2,
                "outer_momentum": 0.9,
                "nesterov": True,
                "votes": "senders",
            }
        },
        {"AdamW": {}},
    ],
    ids=["Distro-senders", "Distro-tokens", "SparseLoCo", "SparseLoCo-momentum", "AdamW"],
)
def test_every_strategy_gives_all_members_the_same_bits_over_rotations_and_a_restart(
    make_spec, tmp_path, optimizer
):
    width = {"seed": 7, "hidden_size": 16, "intermediate_size": 256, "num_attention_heads": 2}
    spec = make_spec(
        matformer={**HELPERS, "helper_rotation_rounds": 2},
        optimizer=optimizer,
        checkpoint={"Init": {**width, "num_key_value_heads": 1, "num_hidden_layers": 1}},
    )
    run = LocalRun(spec, TIERS, tmp_path / "run", samples=12)
    list(run.train(3))
    run.members[1].save()
    again = trainer(spec, tmp_path / "run" / "1", 1)
    job = TrainJob(1, 4, 3, 1, 1, [range(100, 104)])
    assert again.train(job).blob == run.members[1].train(job).blob
    list(run.train(1))
    run.drain()
    full = shared(run.members[0])
    assert all(equal(shared(member), full) for member in run.members[1:])
    replay(again, run.log[2:])
    assert equal(shared(again), full)
    assert equal(shared(replay(trainer(spec, tmp_path / "new", 2), run.log)), full)


def test_updates_of_helpers_change_neurons_outside_their_slice_and_only_the_sampled(spec, tmp_path):
    run = LocalRun(spec, (0, 1), tmp_path / "run", samples=12)
    list(run.train(1))
    record, blobs = run.log[0]
    only_helper = replace(record, accepted=record.accepted[1:])
    member = trainer(spec, tmp_path / "one", 0)
    before = held(member)
    member.fold(only_helper, blobs, None)
    for grid in member.training.shares.trained(1, record.epoch, record.number):
        moved = member.held.loaded().weights[grid.name].detach() - before[grid.name] * (1 - 0.004 * 0.1)
        trained = torch.zeros(moved.shape, dtype=torch.bool)
        grid.put(trained, torch.ones(grid.shape, dtype=torch.bool))
        assert bool((moved[~trained].abs() < 1e-6).all())
        if not grid.is_prefix:
            assert bool((moved[trained].abs() > 0.003).float().mean() > 0.9)
    assert any(not grid.is_prefix for grid in member.training.shares.trained(1, 1, 1))


@pytest.mark.parametrize("tier", TIERS)
def test_replay_of_the_log_over_changes_of_epoch_gives_the_same_bits(run, spec, tmp_path, tier):
    full = held(run.members[0])
    member = replay(trainer(spec, tmp_path / "one", tier), run.log)
    assert equal(held(member), full)
    torch.set_num_threads(2)
    try:
        assert equal(held(replay(trainer(spec, tmp_path / "two", tier), run.log)), full)
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("done", [1, 2, 3])
def test_restart_in_an_epoch_and_at_its_edge_goes_on_as_if_nothing_had_been(spec, tmp_path, done):
    """With a round in flight: it was trained before the stop, and is folded after it."""
    run = LocalRun(spec, (0, 1), tmp_path / "run", samples=8, epoch_rounds=EPOCH_ROUNDS)
    list(run.train(done + 1))
    run.members[1].save()
    again = trainer(spec, tmp_path / "run" / "1", 1)
    assert again.position.step == done
    assert equal(held(again), held(run.members[1]))
    record, blobs = run.log[done]
    refused = replace(record, accepted=record.accepted[:1])  # what it trained goes back into the buffers
    for member in (again, run.members[1]):
        member.fold(refused, blobs, 1)
    job = TrainJob(9, done + 2, done + 1, 1, 1, [range(100, 104)])
    assert again.train(job).blob == run.members[1].train(job).blob


def test_update_of_another_epoch_that_was_refused_returns_where_it_was_taken(spec, tmp_path):
    member = trainer(spec, tmp_path, 1)
    distro = member.training
    member.train(TrainJob(1, 1, 0, 0, 1, [range(0, 8)]))
    after = {name: error.clone() for name, error in distro.state.error.items()}
    member.train(TrainJob(2, 2, 1, 0, 1, [range(8, 16)]))
    distro.settle(1, accepted=False)
    trained = {grid.name: grid for grid in distro.shares.trained(1, 1, 1)}
    other = {grid.name: grid for grid in distro.shares.trained(1, 2, 2)}
    assert any(trained[name].row_numbers != other[name].row_numbers for name in trained)
    for name, grid in trained.items():
        changed = distro.state.error[name] != after[name]
        covered = torch.zeros(changed.shape, dtype=torch.bool)
        for one in (grid, other[name]):
            one.put(covered, torch.ones(one.shape, dtype=torch.bool))
        assert not bool(changed[~covered].any())
        assert grid.is_prefix or bool(grid.take(changed).any())


def test_trained_again_after_a_failure_gives_the_same_update(spec, tmp_path):
    member = trainer(spec, tmp_path / "a", 1)
    job = TrainJob(1, 1, 0, 0, 1, [range(0, 8)])
    blob = member.train(job).blob
    assert len(blob) <= member.format.max_bytes
    member.train(TrainJob(2, 2, 1, 0, 1, [range(8, 16)]))
    before = held(member)
    again = trainer(spec, tmp_path / "b", 1)
    assert again.train(job).blob == blob
    assert equal(held(again), before)


def test_updates_are_equally_large_in_every_epoch_and_between_slice_and_whole(run, make_spec, tmp_path):
    shares = run.members[0].training.shares
    for tier in (1, 2):
        sizes = {
            tuple((grid.shape, grid.num_chunks) for grid in shares.trained(tier, epoch, 0))
            for epoch in range(9)
        }
        assert len(sizes) == 1
        bytes_ = [codec.max_bytes for codec in run.members[0].format.codecs]
        slices = trainer(make_spec(matformer={"max_tier": 2}), tmp_path / f"{tier}", 0).format.codecs
        assert slices[tier].max_bytes < bytes_[tier] < bytes_[0]


def test_helper_mode_changes_the_schema_hash_and_off_is_as_before(spec, make_spec, tmp_path):
    hashes = {
        trainer(make_spec(matformer={"max_tier": 2, **options}), tmp_path / str(i), 0).schema_hash
        for i, options in enumerate(({}, {"helper_fraction": 0.5}, {"helper_fraction": 1.0}))
    }
    assert len(hashes) == 3


def test_everything_sampled_is_the_training_of_the_full_model(make_spec, tmp_path):
    spec = make_spec(matformer={"max_tier": 1, "helper_fraction": 1.0, "ffn_rescale": 1.0})
    job = TrainJob(1, 1, 0, 0, 0, [range(0, 8)])
    full = trainer(spec, tmp_path / "full", 0).train(job)
    helper = trainer(spec, tmp_path / "helper", 1).train(replace(job, tier=1))
    assert helper.loss == full.loss
    assert helper.blob[120:] == full.blob[120:]


def test_training_loss_and_validation_loss_are_of_the_right_widths(spec, make_spec, tmp_path):
    plain = make_spec(matformer={"max_tier": 2})
    helper, slice_ = trainer(spec, tmp_path / "a", 1), trainer(plain, tmp_path / "b", 1)
    assert helper.validation_loss() == slice_.validation_loss()
    assert helper.held.loaded().learner.weights["model.layers.0.mlp.up_proj.weight"].shape == (48, 32)
    assert helper.held.loaded().weights["model.layers.0.mlp.up_proj.weight"].shape == (64, 32)


def test_checkpoints_of_helpers_are_full_and_open_at_every_tier(run, spec, tmp_path):
    path = run.members[1].save()
    full = trainer(spec, tmp_path / "full", 0)
    full.restore(path, run.members[1].position)
    assert full.weights_hash() == run.members[0].weights_hash()
    helper = trainer(spec, tmp_path / "helper", 2)
    helper.restore(run.members[0].save(), run.members[0].position)
    assert equal(held(helper), held(run.members[0]))


def test_sliced_checkpoints_are_refused_by_helpers(spec, make_spec, tmp_path):
    half = trainer(make_spec(matformer={"max_tier": 2}), tmp_path / "half", 1).save()
    helper = trainer(spec, tmp_path / "helper", 1)
    before = held(helper)
    with pytest.raises((CheckpointError, TierError), match="helper"):
        helper.restore(half, Position())
    assert equal(held(helper), before)
    with pytest.raises(CheckpointError, match="helper"):
        trainer(spec, tmp_path / "again", 1, strategy="sliced")
    local = make_spec(matformer=HELPERS, checkpoint={"Local": {"path": str(half)}})
    with pytest.raises(CheckpointError, match=r"helper mode.*tier 0's"):
        trainer(local, tmp_path / "local", 1)


@pytest.mark.parametrize(
    ("matformer", "message"),
    [
        ({"helper_fraction": 0.5}, "max_tier"),
        ({"max_tier": 1, "helper_rotation_rounds": 4}, "helper_fraction"),
        ({"max_tier": 1, "helper_fraction": 1.5}, "helper_fraction"),
        ({"max_tier": 1, "helper_fraction": 0.2}, "not one block"),
    ],
)
def test_settings_without_effect_are_refused_when_a_run_is_created(make_spec, matformer, message):
    with pytest.raises(ValueError, match=message):
        make_spec(matformer=matformer).resolve()


def test_sample_rotates_within_an_epoch_when_asked_to(make_spec, tmp_path):
    spec = make_spec(matformer={**HELPERS, "helper_rotation_rounds": 2})
    run = LocalRun(spec, (0, 1), tmp_path / "run", samples=8)
    list(run.train(4))
    run.drain()
    assert equal(held(run.members[0]), held(run.members[1]))
    shares = run.members[0].training.shares
    assert shares.trained(1, 1, 1) != shares.trained(1, 1, 2) == shares.trained(1, 1, 3)
