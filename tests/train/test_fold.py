"""The fold gives equal bits: threads, number types, restarts, widths, order of arrival."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from psyche_train.fold.basis import FRACTION_BITS, integer_basis
from psyche_train.fold.chunks import Grid, grids, largest_divisor
from psyche_train.fold.exact import Ballot, Signs, apply_step, direction
from psyche_train.local_run import RUN, LocalRun
from psyche_train.records import RoundRecord
from psyche_train.resolve import schema_of
from psyche_train.trainer import FoldError, Trainer

TIERS = (0, 1, 2)
STEPS = 6


@pytest.fixture
def run(spec, tmp_path) -> LocalRun:
    """Three members of three widths after some steps, all folded."""
    run = LocalRun(spec, TIERS, tmp_path / "run", samples=12)
    list(run.train(STEPS))
    run.drain()
    return run


def trainer(spec, tier: int, folder: Path) -> Trainer:
    member = Trainer(spec, tier=tier, run=RUN, state_dir=folder, device="cpu")
    member.load()
    return member


def replay(member: Trainer, log: list[tuple[RoundRecord, dict[int, bytes]]]) -> bytes:
    for record, blobs in log:
        member.fold(record, blobs, None)
    return member.weights_hash()


def test_members_of_all_tiers_agree_on_every_part(run):
    parts = [member.digests() for member in run.members]
    assert parts[0][0] == parts[1][0] == parts[2][0]
    assert parts[0][1] == parts[1][1]
    assert len({bytes(digest) for digest in parts[0]}) == 3
    assert all(len(blobs[slot]) > 0 for _, blobs in run.log for slot in blobs)


def test_a_slice_holds_the_bits_of_tier_zeros_prefix(run):
    full = run.members[0].held.loaded().weights
    for member in run.members[1:]:
        for tensor in member.schema.tensors:
            part = tensor.take(full[tensor.name], member.tier)
            assert torch.equal(part, member.held.loaded().weights[tensor.name])


@pytest.mark.parametrize("tier", TIERS)
def test_fold_is_equal_on_one_and_two_threads(run, spec, tmp_path, tier):
    assert replay(trainer(spec, tier, tmp_path / "one"), run.log) == run.members[tier].weights_hash()
    torch.set_num_threads(2)
    try:
        assert replay(trainer(spec, tier, tmp_path / "two"), run.log) == run.members[tier].weights_hash()
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("tier", TIERS)
def test_fold_is_equal_after_a_restart_in_the_middle(run, spec, tmp_path, tier):
    first = trainer(spec, tier, tmp_path)
    replay(first, run.log[: STEPS // 2])
    first.save()
    second = trainer(spec, tier, tmp_path)
    assert second.position == first.position
    assert second.position.step == STEPS // 2
    assert replay(second, run.log[STEPS // 2 :]) == run.members[tier].weights_hash()


def test_fold_is_equal_for_blobs_in_any_order_of_arrival(run, spec, tmp_path):
    shuffled = [(record, dict(reversed(list(blobs.items())))) for record, blobs in run.log]
    assert replay(trainer(spec, 0, tmp_path), shuffled) == run.members[0].weights_hash()


def test_fold_restored_from_a_full_checkpoint_gives_every_slice(run, spec, tmp_path):
    full = trainer(spec, 0, tmp_path / "full")
    replay(full, run.log[:3])
    checkpoint = full.save()
    for tier in (1, 2):
        for number, path in enumerate((checkpoint, checkpoint / "model.safetensors")):
            member = trainer(spec, tier, tmp_path / f"slice-{tier}-{number}")
            member.restore(path, full.position)
            assert replay(member, run.log[3:]) == run.members[tier].weights_hash()


def test_a_round_with_nothing_accepted_changes_no_weight(run, spec, tmp_path):
    member = trainer(spec, 0, tmp_path)
    replay(member, run.log[:2])
    before, at = member.weights_hash(), member.position
    record = replace(run.log[2][0], accepted=())
    member.fold(record, {}, None)
    assert member.weights_hash() == before
    assert member.position.step == at.step + 1
    assert member.position.history == record.next_history(at.history)
    drain = replace(record, number=record.number + 1, trained=False, samples=0, assigned=bytes(32))
    member.fold(drain, {}, None)
    assert member.weights_hash() == before
    assert member.position.step == at.step + 1


def test_an_accepted_blob_that_does_not_decode_contributes_nothing(run, spec, tmp_path):
    record, blobs = run.log[0]
    damaged = trainer(spec, 0, tmp_path / "damaged")
    damaged.fold(record, {**blobs, 1: b"not an update"}, None)
    without = trainer(spec, 0, tmp_path / "without")
    kept = tuple(entry for entry in record.accepted if entry.slot != 1)
    without.fold(replace(record, accepted=kept), blobs, None)
    assert damaged.weights_hash() == without.weights_hash()
    assert damaged.position.history == record.next_history(bytes(32))


def test_fold_refuses_what_does_not_follow_and_changes_nothing(run, spec, tmp_path):
    member = trainer(spec, 0, tmp_path)
    before = member.weights_hash()
    record, blobs = run.log[0]
    for wrong, message in (
        (replace(record, step=1), "step 1"),
        (replace(record, number=0), "does not follow"),
        (replace(record, spec_hash=bytes(32)), "specification"),
    ):
        with pytest.raises(FoldError, match=message):
            member.fold(wrong, blobs, None)
    with pytest.raises(FoldError, match="slots \\[1\\] are missing"):
        member.fold(record, {slot: blob for slot, blob in blobs.items() if slot != 1}, None)
    assert member.weights_hash() == before
    member.fold(record, blobs, None)
    assert member.weights_hash() != before


def test_weights_after_a_fixed_ballot_are_frozen():
    grid = Grid("x", (32, 32), 2, 2, 16, 16)
    keys = np.arange(0, 1024, 3, dtype=np.int64)
    ballots = [
        Ballot(grid, Signs(keys + shift, np.where((keys + shift) % 7 < 3, -1, 1).astype(np.int8)))
        for shift in (0, 1, 2)
        if (keys + shift).max() < 1024
    ]
    step = direction(grid, ballots, votes="senders")
    weight = torch.arange(1024, dtype=torch.float32).reshape(32, 32) / 1000
    apply_step(weight, step, lr=0.003, weight_decay=0.1)
    golden = "594716a3da69227caba77d07dd92312e9b2b0658dcf6d4727e095b3036545299"
    assert hashlib.sha256(weight.numpy().tobytes()).hexdigest() == golden


@st.composite
def ballots(draw: st.DrawFn) -> tuple[Grid, Grid, list[Ballot]]:
    """A full grid, its half along one axis, and updates of either width."""
    rows, columns = draw(st.sampled_from([(8, 8), (16, 4), (64, 64), (6, 10), (5, 1), (64, 1)]))
    down, across = draw(st.integers(1, 2)) * 2, 1 if columns == 1 else draw(st.integers(1, 3))
    shape = (down * rows,) if columns == 1 else (down * rows, across * columns)
    half_shape = (shape[0] // 2, *shape[1:])
    full = Grid("x", shape, down, across, rows, columns)
    half = Grid("x", half_shape, down // 2, across, rows, columns)
    found = []
    for wide in draw(st.lists(st.booleans(), min_size=1, max_size=5)):
        grid = full if wide else half
        size = grid.num_chunks * grid.area
        keys = sorted(draw(st.sets(st.integers(0, size - 1), max_size=40)))
        minus = draw(st.integers(0, 2**40))
        signs = [1 - 2 * (minus >> i & 1) for i in range(len(keys))]
        found.append(Ballot(grid, Signs(np.array(keys, dtype=np.int64), np.array(signs, dtype=np.int8))))
    return full, half, found


@settings(deadline=None, max_examples=60)
@given(ballots(), st.sampled_from(["senders", "holders"]))
def test_direction_is_equal_in_float64_int64_any_order_and_any_width(case, votes):
    full, half, found = case
    step = direction(full, found, votes=votes)
    assert step.dtype == torch.int8
    assert torch.equal(step, direction(full, found, votes=votes, dtype=torch.int64))
    assert torch.equal(step, direction(full, found[::-1], votes=votes))
    assert torch.equal(step[: half.shape[0]], direction(half, found, votes=votes))


def test_direction_agrees_with_the_real_valued_transform():
    grid = Grid("x", (128, 128), 2, 2, 64, 64)
    generator = np.random.default_rng(1)
    found = []
    for _ in range(3):
        keys = np.concatenate(
            [chunk * 4096 + np.sort(generator.choice(4096, 8, replace=False)) for chunk in range(4)]
        )
        found.append(Ballot(grid, Signs(keys, generator.choice([-1, 1], len(keys)).astype(np.int8))))
    sums, counts = np.zeros(4 * 4096), np.zeros(4 * 4096)
    for ballot in found:
        np.add.at(sums, ballot.signs.keys, ballot.signs.signs)
        np.add.at(counts, ballot.signs.keys, 1)
    means = torch.from_numpy(sums / np.maximum(counts, 1)).reshape(4, 64, 64)
    basis = integer_basis(64).double() / 2**FRACTION_BITS
    real = grid.join((basis.T @ means @ basis).sign().to(torch.int8))
    assert (real == direction(grid, found, votes="senders")).double().mean() > 0.999


def test_direction_of_the_largest_votes_stays_exact():
    grid = Grid("x", (128, 128), 1, 1, 128, 128)
    keys = np.arange(128 * 128, dtype=np.int64)
    ballot = Ballot(grid, Signs(keys, np.ones(len(keys), dtype=np.int8)))
    step = direction(grid, [ballot] * 256, votes="holders")
    assert torch.equal(step, direction(grid, [ballot] * 256, votes="holders", dtype=torch.int64))


@pytest.mark.parametrize("edge", [1, 2, 3, 7, 48, 64, 100, 128])
def test_integer_basis_is_the_rounded_dct(edge):
    k, i = np.meshgrid(np.arange(edge), np.arange(edge), indexing="ij")
    scale = np.where(k == 0, np.sqrt(1 / edge), np.sqrt(2 / edge))
    exact = scale * np.cos(np.pi * (2 * i + 1) * k / (2 * edge)) * 2**FRACTION_BITS
    assert np.abs(integer_basis(edge).numpy() - exact).max() < 0.5 + 1e-6


def test_chunk_grid_of_every_tier_is_a_prefix_of_the_full_grid(spec):
    schema = schema_of(spec)
    full = grids(schema, 0, 16)
    for tier in (1, 2):
        for wide, narrow in zip(full, grids(schema, tier, 16), strict=True):
            assert (wide.chunk_rows, wide.chunk_columns) == (narrow.chunk_rows, narrow.chunk_columns)
            assert narrow.rows <= wide.rows
            assert narrow.columns <= wide.columns


@pytest.mark.parametrize(
    ("size", "limit", "expected"), [(512, 64, 64), (240, 64, 60), (97, 64, 1), (5, 64, 5)]
)
def test_largest_divisor(size, limit, expected):
    assert largest_divisor(size, limit) == expected


def test_zero_step_moves_nothing_but_decay():
    weight = torch.tensor([1.0, -2.0, -0.0])
    apply_step(weight, torch.zeros(3, dtype=torch.int8), lr=0.1, weight_decay=0.0)
    assert weight.tolist() == [1.0, -2.0, 0.0]
    apply_step(weight, torch.tensor([1, -1, 0], dtype=torch.int8), lr=0.5, weight_decay=0.0)
    assert weight.tolist() == [0.5, -1.5, 0.0]
