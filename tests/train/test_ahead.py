"""Members that go on from their own undecided rounds, and error buffers that keep part of what was sent."""

import pytest
import torch

from psyche_train.fold.chunks import grids
from psyche_train.local_run import RUN, LocalRun
from psyche_train.resolve import schema_of
from psyche_train.strategies.distro import DistroState
from psyche_train.trainer import Trainer, TrainJob

LOCO = {"compression_chunk": 16, "compression_topk": 8, "local_steps": 2}
DISTRO = {"compression_chunk": 16, "compression_topk": 8}


def trainer(spec, folder, tier=0) -> Trainer:
    member = Trainer(spec, tier=tier, run=RUN, state_dir=folder, device="cpu", threads=1)
    member.load()
    return member


def job(number: int) -> TrainJob:
    return TrainJob(1, number, number - 1, 0, 0, [range(8 * number, 8 * number + 8)])


def copy(weights) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in weights.items()}


def train_seen(member: Trainer, number: int) -> dict[str, torch.Tensor]:
    """Train a round; returns the weights at which its first gradient was taken."""
    learner = member.held.loaded().learner
    seen = []
    real = learner._accumulate

    def accumulate(*arguments):
        seen.append(copy(learner.weights))
        return real(*arguments)

    learner._accumulate = accumulate
    try:
        member.train(job(number))
    finally:
        learner._accumulate = real
    return seen[0]


def test_local_steps_go_on_from_undecided_rounds_only(make_spec, tmp_path):
    member = trainer(make_spec(optimizer={"SparseLoCo": {**LOCO, "ahead": True}}), tmp_path)
    shared = copy(member.held.loaded().weights)
    at = train_seen(member, 1)
    assert all(torch.equal(at[name], shared[name]) for name in shared)
    moved = copy(member.training.ahead[1])
    assert any(bool(change.any()) for change in moved.values())
    at = train_seen(member, 2)
    assert all(torch.equal(at[name], shared[name] - moved[name]) for name in shared)
    assert all(torch.equal(weight, shared[name]) for name, weight in member.held.loaded().weights.items())
    member.training.settle(1, accepted=True)
    member.training.settle(2, accepted=False)
    at = train_seen(member, 3)
    assert all(torch.equal(at[name], shared[name]) for name in shared)


def test_a_round_that_is_trained_again_starts_where_it_started(make_spec, tmp_path):
    member = trainer(make_spec(optimizer={"SparseLoCo": {**LOCO, "ahead": True}}), tmp_path)
    first = train_seen(member, 1)
    again = train_seen(member, 1)
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_distro_looks_where_its_own_update_leads(make_spec, tmp_path):
    """Alone, that is where the fold leads, but for the signs of sums that are zero but for rounding."""
    spec = make_spec(optimizer={"Distro": {**DISTRO, "ahead": True}})
    member = trainer(spec, tmp_path / "ahead")
    train_seen(member, 1)
    at = train_seen(member, 2)
    run = LocalRun(spec, (0,), tmp_path / "run", samples=8)
    run.members[0].data.batch, batch = lambda _intervals: batch([range(8, 16)]), run.members[0].data.batch
    list(run.train(1))
    run.drain()
    folded = run.members[0].held.loaded().weights
    same = sum(int((at[name] == folded[name]).sum()) for name in at)
    assert same > 0.999 * sum(weight.numel() for weight in at.values())


@pytest.mark.parametrize(
    "table", [{"SparseLoCo": {**LOCO, "ahead": True}}, {"Distro": {**DISTRO, "ahead": True}}]
)
def test_a_restarted_member_goes_on_the_same(make_spec, tmp_path, table):
    spec = make_spec(optimizer=table)
    member, other = trainer(spec, tmp_path / "a"), trainer(spec, tmp_path / "b")
    member.train(job(1))
    other.training.load_tensors({name: tensor.clone() for name, tensor in member.training.tensors().items()})
    assert other.train(job(2)).blob == member.train(job(2)).blob


@pytest.mark.parametrize(
    "matformer", [{"max_tier": 2}, {"max_tier": 2, "helper_fraction": 0.5, "helper_rotation_rounds": 1}]
)
@pytest.mark.parametrize(
    "table", [{"SparseLoCo": {**LOCO, "ahead": True}}, {"Distro": {**DISTRO, "ahead": True}}]
)
def test_members_that_run_ahead_hold_equal_weights(make_spec, tmp_path, table, matformer):
    run = LocalRun(make_spec(optimizer=table, matformer=matformer), (0, 1, 2, 1), tmp_path, samples=8)
    before = run.members[0].weights_hash()
    list(run.train(4))
    run.drain()
    full = run.members[0].digests()
    assert run.members[0].weights_hash() != before
    assert all(member.digests() == full[: len(member.digests())] for member in run.members)


def test_what_is_not_taken_stays_in_the_error_buffer(make_spec):
    states = {}
    for take in (1.0, 0.25):
        spec = make_spec(optimizer={"Distro": {**DISTRO, "compression_take": take}})
        schema = schema_of(spec)
        state = DistroState(spec.optimizer.chosen, grids(schema, 0, 16), torch.device("cpu"))
        generator = torch.Generator().manual_seed(3)
        gradients = {tensor.name: torch.randn(tensor.shape, generator=generator) for tensor in schema.tensors}
        signs = state.encode(1, gradients, 0.5)
        states[take] = (state, signs, copy(state.error))
    (all_taken, signs, left), (some_taken, same, more_left) = states.values()
    for one, other in zip(signs, same, strict=True):
        assert (one.keys == other.keys).all()
        assert (one.signs == other.signs).all()
    for name, part in all_taken.pending[1].items():
        assert torch.equal(some_taken.pending[1][name].values, part.values * 0.25)
    for state in (all_taken, some_taken):
        state.settle(1, accepted=False)
    for name, whole in all_taken.error.items():
        assert torch.allclose(whole, some_taken.error[name], atol=1e-5)
        assert torch.allclose(more_left[name], left[name] + 0.75 * (whole - left[name]), atol=1e-5)
        assert not torch.allclose(more_left[name], left[name], atol=1e-3)
