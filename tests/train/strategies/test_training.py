"""What a member does before the fold: local steps, error feedback, and the baseline as torch's AdamW does it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from psyche_train.jobs import NotFinite, TrainCancelled
from psyche_train.local_run import RUN, LocalRun
from psyche_train.models.initial import initial_weights
from psyche_train.spec import SparseLoCoOptimizer
from psyche_train.strategies.local_adamw import LocalAdamW
from psyche_train.strategies.sparseloco import parts
from psyche_train.trainer import Trainer, TrainJob
from tests.train.strategies.cases import make_spec, member, trained

JOB = TrainJob(1, 1, 0, 0, 0, [range(6)])


def test_local_adamw_is_torchs():
    config = SparseLoCoOptimizer(betas=(0.8, 0.95), eps=1e-6, weight_decay=0.2)
    generator = torch.Generator().manual_seed(0)
    ours = {"a": torch.randn(5, 3, generator=generator)}
    theirs = ours["a"].clone().requires_grad_()
    torchs = torch.optim.AdamW([theirs], lr=0.01, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.2)
    inner = LocalAdamW(config, {"a": torch.zeros(5, 3)}, {"a": torch.zeros(5, 3)}, 0)
    for _ in range(20):
        theirs.grad = torch.randn(5, 3, generator=generator)
        inner.step(ours, {"a": theirs.grad}, 0.01)
        torchs.step()
    assert torch.allclose(ours["a"], theirs, atol=1e-6)
    assert inner.steps == 20


@given(st.integers(1, 40), st.integers(1, 12))
def test_parts_of_a_batch_are_consecutive_and_nearly_equal(samples, number):
    windows = torch.arange(samples)[:, None]
    found = parts(windows, number)
    assert len(found) == min(samples, number)
    assert torch.equal(torch.cat(found), windows)
    assert max(map(len, found)) - min(map(len, found)) <= 1


@pytest.mark.parametrize("kind", ["sparseloco", "adamw"])
def test_training_leaves_the_shared_weights_alone(kind, tmp_path, monkeypatch):
    monkeypatch.setattr("psyche_train.learner.MICRO_BATCH_TOKENS", 8)
    first, second = member(kind, tmp_path / "a"), member(kind, tmp_path / "b")
    before = first.weights_hash()
    calls = iter([False] * 4 + [True])
    with pytest.raises(TrainCancelled):
        first.train(JOB, lambda: next(calls))
    assert next(calls, None) is None
    result = first.train(JOB)
    first.held.changed()
    assert first.weights_hash() == before
    assert result.blob == second.train(JOB).blob  # what was cancelled has left nothing behind


def test_not_finite_local_step_changes_nothing(tmp_path, monkeypatch):
    first, second = member("sparseloco", tmp_path / "a"), member("sparseloco", tmp_path / "b")
    before = first.weights_hash()
    learner, gradients, calls = first.held.loaded().learner, first.held.loaded().learner.gradients, 0

    def second_fails(*args, **options):
        nonlocal calls
        calls += 1
        if calls == 2:
            raise NotFinite("loss nan")
        return gradients(*args, **options)

    monkeypatch.setattr(learner, "gradients", second_fails)
    with pytest.raises(NotFinite):
        first.train(JOB)
    monkeypatch.undo()
    first.held.changed()
    assert first.weights_hash() == before
    assert first.train(JOB).blob == second.train(JOB).blob


def test_error_buffer_keeps_exactly_what_was_not_sent_and_takes_back_what_was_not_accepted(tmp_path):
    trainer = member("sparseloco", tmp_path)
    strategy = trainer.training
    generator = torch.Generator().manual_seed(1)
    moved = {g.name: torch.randn(g.shape, generator=generator) * 1e-3 for g in strategy.grids}
    body = strategy.encode(7, moved)
    for grid, sparse in zip(strategy.grids, body, strict=True):
        sent = torch.zeros(grid.num_chunks * grid.area)
        sent[torch.from_numpy(sparse.keys)] = torch.from_numpy(sparse.values(grid.area))
        whole = grid.join(sent.reshape(grid.num_chunks, grid.chunk_rows, grid.chunk_columns))
        assert bool(whole.any())
        assert torch.equal(strategy.error[grid.name], moved[grid.name] - whole)
    kept = {name: error.clone() for name, error in strategy.error.items()}
    strategy.settle(7, accepted=True)
    assert all(torch.equal(strategy.error[name], kept[name]) for name in kept)
    strategy.encode(8, {name: torch.zeros_like(error) for name, error in kept.items()})
    strategy.settle(8, accepted=False)
    decay = strategy.config.compression_decay
    for name, error in kept.items():
        assert torch.allclose(strategy.error[name], error * decay, atol=1e-9)
    assert not strategy.pending


def test_restarted_member_goes_on_with_its_error_buffers_and_moments(tmp_path):
    run = trained("sparseloco-momentum", tmp_path, steps=2)
    first = run.members[1]
    job = TrainJob(1, 3, 2, 1, 1, [range(30, 34)])
    first.save()
    second = Trainer(first.spec, tier=1, run=RUN, state_dir=tmp_path / "1", device="cpu")
    second.load()
    assert second.training.inner.steps == 4
    assert second.train(job).blob == first.train(job).blob
    third = Trainer(first.spec, tier=1, run=RUN, state_dir=tmp_path / "1", device="cpu")
    third.load()
    third.training.clear()
    assert third.train(job).blob != first.train(job).blob


def test_own_state_of_another_shape_is_refused(tmp_path):
    strategy = member("sparseloco", tmp_path).training
    strategy.encode(1, {grid.name: torch.ones(grid.shape) for grid in strategy.grids})
    flat = strategy.tensors()
    strategy.load_tensors(flat)
    name = strategy.grids[0].name
    for key, value in (
        (f"error/{name}", torch.zeros(3)),
        (f"inner/exp_avg/{name}", torch.zeros(3)),
        ("inner/steps", torch.tensor([-1])),
        (f"pending/1/keys/{name}", torch.zeros(3, dtype=torch.int64)),
        (f"pending/1/keys/{name}", flat[f"pending/1/keys/{name}"] + 10**9),
    ):
        with pytest.raises(ValueError, match="saved"):
            strategy.load_tensors({**flat, key: value})
        with pytest.raises(ValueError, match="saved"):
            strategy.load_tensors({k: v for k, v in flat.items() if k != key})


def test_data_parallel_adamw_is_torchs_adamw_on_the_whole_batch(tmp_path):
    """Two members of unequal shares, folded at once, against one torch optimizer on all samples."""
    spec = make_spec("adamw-holders")
    table = {"betas": (0.9, 0.95), "eps": 1e-6, "weight_decay": 0.1, "votes": "tokens"}
    spec = spec.model_copy(
        update={
            "optimizer": spec.optimizer.model_copy(
                update={"AdamW": spec.optimizer.AdamW.model_copy(update=table)}
            )
        }
    )
    run = LocalRun(spec, (0, 0), tmp_path, samples=5, pipelined=False)
    learner = run.members[0].held.loaded()
    weights = {
        name: value.requires_grad_() for name, value in initial_weights(run.members[0].schema, 3, 0).items()
    }
    torchs = torch.optim.AdamW(weights.values(), lr=0.004, betas=(0.9, 0.95), eps=1e-6, weight_decay=0.1)
    other = member("adamw", tmp_path / "other")
    for step, _ in enumerate(run.train(5)):
        other.held.loaded().learner.copy_weights(weights)
        batch = run.members[0].data.batch([range(step * 5, step * 5 + 5)])
        _, gradients = other.held.loaded().learner.gradients(batch, cancelled=lambda: False, clip_norm=None)
        for name, value in weights.items():
            value.grad = gradients[name]
        torchs.step()
    for name, value in weights.items():
        assert torch.allclose(learner.weights[name], value, atol=2e-5), name


def test_losses_fall_with_every_strategy(tmp_path):
    for kind in ("sparseloco-momentum", "adamw"):
        run = LocalRun(make_spec(kind), (0, 1), tmp_path / kind, samples=32)
        before = [m.validation_loss() for m in run.members]
        list(run.train(12))
        run.drain()
        after = [m.validation_loss() for m in run.members]
        assert all(low < high - 0.3 for low, high in zip(after, before, strict=True)), (kind, before, after)
