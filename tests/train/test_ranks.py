"""Several processes that train as one member, over Gloo."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from psyche_train.devices import DeviceError, choose_devices, rank_devices
from psyche_train.local_run import RUN
from psyche_train.parallel import RankError
from psyche_train.parallel.shards import Shards
from psyche_train.parallel.team import TeamStrategy
from psyche_train.records import Accepted, RoundRecord
from psyche_train.resolve import schema_of
from psyche_train.spec import TrainSpec
from psyche_train.trainer import NotFinite, TrainCancelled, Trainer, TrainJob
from tests.train.conftest import tables

OPTIMIZERS = {
    "Distro": {"compression_chunk": 16, "compression_topk": 4, "clip_grad_norm": 0.5, "lookahead": True},
    "SparseLoCo": {"local_steps": 3},
    "AdamW": {"clip_grad_norm": 0.5},
}


def spec_of(kind: str) -> TrainSpec:
    return TrainSpec.model_validate(tables(optimizer={kind: OPTIMIZERS[kind]}))


def trainer(spec: TrainSpec, folder: Path, tier: int = 0, ranks: int = 1) -> Trainer:
    member = Trainer(spec, tier=tier, run=RUN, state_dir=folder, device="cpu", threads=1, ranks=ranks)
    member.load()
    return member


def job(number: int, tier: int = 0) -> TrainJob:
    return TrainJob(1, number, number - 1, 0, tier, [range(7 * (number - 1), 7 * number)])


def record(spec: TrainSpec, number: int, tiers: list[int]) -> RoundRecord:
    return RoundRecord(
        epoch=1,
        number=number,
        step=number - 1,
        trained=True,
        seed=bytes(32),
        data_index=7 * (number - 1),
        samples=7,
        assigned=bytes([(1 << len(tiers)) - 1]) + bytes(31),
        spec_hash=spec.sha256,
        accepted=tuple(Accepted(slot, tier, 1, bytes(32)) for slot, tier in enumerate(tiers)),
    )


@pytest.fixture
def close() -> Iterator[list[Trainer]]:
    members: list[Trainer] = []
    yield members
    for member in members:
        member.close()


@pytest.mark.slow
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_two_ranks_train_and_fold_as_one(kind, tmp_path, close):
    """Same gradients within rounding, so that what is sent differs at most in near-ties; the same fold."""
    spec = spec_of(kind)
    alone, pair = trainer(spec, tmp_path / "alone"), trainer(spec, tmp_path / "pair", ranks=2)
    close.append(pair)
    assert pair.weights_hash() == alone.weights_hash()
    slices = trainer(spec, tmp_path / "slice", tier=1)
    for number in (1, 2, 3):
        one, two = alone.train(job(number)), pair.train(job(number))
        assert two.loss == pytest.approx(one.loss, abs=1e-5)
        assert two.tokens == one.tokens
        assert len(two.blob) == pytest.approx(len(one.blob), rel=0.02)
        theirs = alone.format.decode(two.blob)
        if kind == "AdamW":
            for ours, other in zip(alone.format.decode(one.blob).body, theirs.body, strict=True):
                assert torch.allclose(torch.tensor(ours), torch.tensor(other), atol=1e-5)
        else:
            pairs = zip(alone.format.decode(one.blob).body, theirs.body, strict=True)
            shared = [(len(set(a.keys) & set(b.keys)), len(a.keys)) for a, b in pairs]
            assert sum(same for same, _ in shared) > 0.97 * sum(count for _, count in shared)
        third = slices.train(job(number, tier=1)).blob
        for member in (alone, pair, slices):
            tier = member.tier
            slot = {0: 0, 1: 1}[tier]
            member.fold(record(spec, number, [0, 1]), {0: two.blob, 1: third}, slot)
        assert pair.digests() == alone.digests()
        assert pair.digests()[:2] == slices.digests()
        assert pair.validation_loss() == alone.validation_loss()
    saved = pair.save()
    assert pair.training.tensors().keys() == alone.training.tensors().keys()
    blob = pair.train(job(4)).blob
    again = trainer(spec, tmp_path / "pair", ranks=2)
    close.append(again)
    assert (again.position, again.weights_hash()) == (pair.position, pair.weights_hash())
    assert again.train(job(4)).blob == blob
    single = trainer(spec, tmp_path / "pair")  # another number of ranks takes the same checkpoint
    assert single.source.checkpoint == str(saved)
    assert single.weights_hash() == pair.weights_hash()


@pytest.mark.slow
def test_state_is_divided_and_errors_are_the_same_as_with_one_rank(tmp_path, close):
    spec = spec_of("Distro")
    pair, alone = trainer(spec, tmp_path / "pair", ranks=2), trainer(spec, tmp_path / "alone")
    close.append(pair)
    assert isinstance(pair.training, TeamStrategy)
    sizes = pair.training.state_bytes()
    whole = sum(value.nbytes for value in alone.training.tensors().values())
    assert sum(sizes) == whole
    assert max(sizes) < 0.6 * whole
    answers = iter([True])
    with pytest.raises(TrainCancelled):
        pair.train(job(1), lambda: next(answers))
    before = pair.weights_hash()
    weight = pair.held.loaded().weights["lm_head.weight"]
    kept = weight.detach().clone()
    pair.held.loaded().copy_weights(
        {**pair.held.loaded().weights, "lm_head.weight": torch.full_like(kept, torch.inf)}
    )
    with pytest.raises(NotFinite, match="learning rate"):
        pair.train(job(1))
    pair.held.loaded().copy_weights({**pair.held.loaded().weights, "lm_head.weight": kept})
    pair.held.changed()
    assert pair.weights_hash() == before
    assert pair.train(job(1)).loss == pytest.approx(alone.train(job(1)).loss, abs=1e-5)
    lone_sample = TrainJob(1, 2, 1, 0, 0, [range(0, 1)])  # less than one sample a rank
    assert pair.train(lone_sample).loss == pytest.approx(alone.train(lone_sample).loss, abs=1e-5)


@pytest.mark.slow
def test_a_rank_that_dies_is_a_clear_error_and_nothing_hangs(tmp_path, close):
    member = trainer(spec_of("Distro"), tmp_path, ranks=2)
    close.append(member)
    member.train(job(1))
    (process,) = member._team.processes()
    os.kill(process.pid, signal.SIGKILL)
    process.join(timeout=30)
    with pytest.raises(RankError, match=r"rank 1 has ended.*start the member again"):
        member.train(job(2))
    with pytest.raises(RankError, match="start the member again"):
        member.train(job(2))
    member.close()
    again = trainer(spec_of("Distro"), tmp_path, ranks=2)
    close.append(again)
    (process,) = again._team.processes()
    os.kill(process.pid, signal.SIGSTOP)  # alive, but it does not answer
    again._team.timeout_s = 1.0
    with pytest.raises(RankError, match="did not answer within 1 s"):
        again._team.strategy.drop_before(1)
    assert not process.is_alive()


@pytest.mark.slow
def test_a_rank_that_cannot_start_is_a_clear_error(tmp_path, monkeypatch):
    monkeypatch.setattr("psyche_train.parallel.team.work", _broken)
    with pytest.raises(RankError, match=r"rank 1.*no such thing"):
        Trainer(spec_of("Distro"), tier=0, run=RUN, state_dir=tmp_path, device="cpu", ranks=2)


def _broken(pipe, _assignment):
    pipe.send(("failed", "no such thing"))


@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_shards_are_a_balanced_partition_in_schema_order(spec, ranks):
    schema = schema_of(spec)
    shards = Shards(schema, 0, ranks)
    names = [[tensor.name for tensor in part.tensors] for part in shards.schemas]
    assert sorted(name for part in names for name in part) == sorted(shards.names)
    for part in names:
        assert part == [name for name in shards.names if name in part]
    sizes = [part.num_parameters() for part in shards.schemas]
    largest = max(torch.Size(tensor.shape).numel() for tensor in schema.tensors)
    assert max(sizes) - min(sizes) <= largest
    body = list(range(len(shards.names)))
    assert list(shards.joined([shards.body_of(body, rank) for rank in range(ranks)])) == body
    flat = {f"error/{name}": torch.zeros(1) for name in shards.names} | {"inner/steps": torch.zeros(1)}
    parts = [shards.state_of(flat, rank) for rank in range(ranks)]
    assert all("inner/steps" in part for part in parts)
    assert sum(len(part) for part in parts) == len(flat) - 1 + ranks


def test_devices_are_parsed_and_refused_by_name(monkeypatch):
    assert choose_devices("cpu") == [torch.device("cpu")]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert choose_devices("auto") == [torch.device("cuda:0")]
    assert choose_devices("cuda") == [torch.device("cuda:0")]
    assert choose_devices("cuda:2,0") == [torch.device("cuda:2"), torch.device("cuda:0")]
    assert rank_devices("cuda:0,1", None) == [torch.device("cuda:0"), torch.device("cuda:1")]
    assert rank_devices("cpu", 2) == [torch.device("cpu")] * 2
    for name in ("cuda:3", "cuda:", "cuda:0,", "cuda:-1", "gpu", "cpu:0", "", "cuda:0,7"):
        with pytest.raises(DeviceError, match=r"not on this machine: choose auto, cpu.*cuda:0"):
            choose_devices(name)
    with pytest.raises(DeviceError, match="twice"):
        choose_devices("cuda:1,1")
    for name, ranks in (("cuda:0,1", 3), ("cuda", 2), ("cpu", 0), ("cpu", 65)):
        with pytest.raises(DeviceError, match="ranks"):
            rank_devices(name, ranks)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_devices("auto") == [torch.device("mps")]
    with pytest.raises(DeviceError, match="2 ranks on 'mps'"):
        rank_devices("mps", 2)


def test_helper_mode_is_for_one_rank(tmp_path):
    spec = TrainSpec.model_validate(tables(matformer={"max_tier": 1, "helper_fraction": 0.5}))
    with pytest.raises(RankError, match="one rank"):
        Trainer(spec, tier=1, run=RUN, state_dir=tmp_path, device="cpu", ranks=2)
