"""Helper mode: the sample of neurons, the grids of what is held, against a plain model of both."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from psyche_train.fold.chunks import Grid, as_matrix, grids
from psyche_train.fold.exact import Ballot, Signs, direction
from psyche_train.matformer.helper import Helper, layer_of
from psyche_train.models.schema import Schema, TensorSpec, TierError

SPEC_HASH = bytes(range(32))


def schema(width: int, max_tier: int, hidden: int = 6, layers: int = 2, experts: int = 0) -> Schema:
    """A schema with the shapes of feed-forward layers; its configuration is only a width."""
    lead = (experts,) if experts else ()
    tensors = [TensorSpec("embed.weight", (10, hidden), None), TensorSpec("norm.weight", (hidden,), None)]
    for layer in range(layers):
        tensors += [
            TensorSpec(f"layers.{layer}.mlp.gate.bias", (width,), 0),
            TensorSpec(f"layers.{layer}.mlp.up.weight", (*lead, width, hidden), len(lead)),
            TensorSpec(f"layers.{layer}.mlp.down.weight", (*lead, hidden, width), len(lead) + 1),
            TensorSpec(f"layers.{layer}.mlp.both.weight", (*lead, 2 * width, hidden), len(lead), groups=2),
            TensorSpec(f"layers.{layer}.mlp.turned.weight", (hidden, 2 * width), 1, groups=2),
        ]
    return Schema(tuple(tensors), max_tier, SimpleNamespace(ffn_width=width))


def helper(schema_: Schema, fraction: float, *, rounds: int = 0, chunk: int = 4) -> Helper:
    return Helper(schema_, SPEC_HASH, fraction=fraction, rotation_rounds=rounds, compression_chunk=chunk)


@st.composite
def helpers(draw: st.DrawFn) -> Helper:
    """Any width, tiers, chunk edge and fraction that are allowed together."""
    max_tier = draw(st.integers(1, 2))
    width = draw(st.integers(1, 24)) << max_tier
    made = schema(width, max_tier, draw(st.integers(2, 7)), layers=1, experts=draw(st.sampled_from([0, 3])))
    chunk, fraction = draw(st.integers(2, 9)), draw(st.floats(0.01, 1.0))
    try:
        return helper(made, fraction, chunk=chunk, rounds=draw(st.sampled_from([0, 1, 5])))
    except TierError:
        return helper(made, 1.0, chunk=chunk)


def positions(grid: Grid, full: Grid) -> list[int]:
    """For each of a grid's chunks the number that the same chunk has in the full grid: the plain model."""
    rows = grid.row_numbers or range(grid.rows)
    columns = grid.column_numbers or range(grid.columns)
    return [row * full.columns + column for row in rows for column in columns]


def neurons(grid: Grid, tensor: TensorSpec, blocks: tuple[int, ...]) -> torch.Tensor:
    """What a grid should take out of a tensor that holds its own element numbers."""
    whole = torch.arange(torch.Size(tensor.shape).numel()).reshape(tensor.shape)
    if tensor.cut_axis is None:
        return whole
    edge = grid.shape[tensor.cut_axis] // len(blocks) // tensor.groups
    width = tensor.shape[tensor.cut_axis] // tensor.groups
    kept = [
        group * width + block * edge + i
        for group in range(tensor.groups)
        for block in blocks
        for i in range(edge)
    ]
    return whole.index_select(tensor.cut_axis, torch.tensor(kept))


@given(helpers(), st.integers(1, 2), st.integers(0, 200), st.integers(0, 3))
def test_sample_is_outside_the_slice_and_covers_every_block_in_a_cycle(plan, tier, rotation, layer):
    tier = min(tier, plan.schema.max_tier)
    own, outside = plan.num_own(tier), plan.num_blocks - plan.num_own(tier)
    sample = plan.sample(tier, layer, rotation)
    assert len(sample) == len(set(sample)) == plan.num_sampled(tier) > 0
    assert list(sample) == sorted(sample)
    assert all(own <= block < plan.num_blocks for block in sample)
    assert plan.held(tier, layer, rotation) == (*range(own), *sample)
    assert plan.width(tier) == len(plan.held(tier, layer, rotation)) * plan.edge
    turns = -(-outside // len(sample))
    first = rotation - rotation % turns
    seen = [plan.sample(tier, layer, first + turn) for turn in range(turns)]
    assert set().union(*seen) == set(range(own, plan.num_blocks))
    again = Helper(
        plan.schema, SPEC_HASH, fraction=plan.fraction, rotation_rounds=7, compression_chunk=plan._chunk
    )
    assert again.sample(tier, layer, rotation) == sample


def test_sample_is_frozen():
    plan = helper(schema(256, 2), 0.25)
    assert (plan.edge, plan.num_blocks, plan.num_sampled(1), plan.num_sampled(2)) == (4, 64, 8, 12)
    assert plan.sample(1, 0, 0) == GOLDEN_FIRST
    assert plan.sample(1, 1, 9) == GOLDEN_OTHER


GOLDEN_FIRST = (34, 47, 50, 53, 54, 61, 62, 63)
GOLDEN_OTHER = (40, 42, 45, 47, 53, 55, 61, 62)


def test_sample_differs_between_layers_tiers_rotations_and_runs():
    plan = helper(schema(1024, 2), 0.25)
    samples = [
        plan.sample(tier, layer, rotation) for tier in (1, 2) for layer in (0, 1) for rotation in (0, 1)
    ]
    other = Helper(plan.schema, bytes(32), fraction=0.25, rotation_rounds=0, compression_chunk=4)
    assert len({*samples, other.sample(1, 0, 0)}) == 9


def test_rotation_is_the_epoch_or_counts_rounds():
    assert helper(schema(64, 1), 0.5).rotation(epoch=3, round_number=70) == 3
    by_rounds = helper(schema(64, 1), 0.5, rounds=16)
    assert [by_rounds.rotation(1, number) for number in (0, 15, 16, 33)] == [0, 0, 1, 2]


@settings(max_examples=40)
@given(helpers(), st.integers(0, 2), st.integers(0, 2), st.integers(0, 30), st.integers(0, 30), st.data())
def test_grids_of_any_two_widths_agree_with_the_plain_model(plan, mine, theirs, now, then, data):
    tiers = min(mine, plan.schema.max_tier), min(theirs, plan.schema.max_tier)
    choose = data.draw(st.sampled_from(["held", "slice"]))
    full = grids(plan.schema, 0, plan._chunk)
    if choose == "held":
        own, sent = plan.grids(tiers[0], now), plan.grids(tiers[1], then)
    else:
        own, sent = (grids(plan.schema, tier, plan._chunk) for tier in tiers)
    for tensor, a, b, whole in zip(plan.schema.tensors, own, sent, full, strict=True):
        assert (a.chunk_rows, a.chunk_columns) == (whole.chunk_rows, whole.chunk_columns)
        assert as_matrix(a.shape) == (a.rows * a.chunk_rows, a.columns * a.chunk_columns)
        here, there = positions(a, whole), positions(b, whole)
        assert a.held_by(b).tolist() == [place in set(there) for place in here]
        size = b.num_chunks * b.area
        keys = np.array(sorted(data.draw(st.sets(st.integers(0, size - 1), max_size=20))), dtype=np.int64)
        adopted, held = a.adopt(keys, b)
        wanted = [
            here.index(there[key // b.area]) * a.area + key % b.area if there[key // b.area] in here else -1
            for key in keys.tolist()
        ]
        assert held.tolist() == [key >= 0 for key in wanted]
        assert adopted.tolist() == [key for key in wanted if key >= 0]
        assert tensor.name == a.name


@settings(max_examples=40)
@given(helpers(), st.integers(0, 2), st.integers(0, 30))
def test_a_grid_takes_and_puts_exactly_the_neurons_that_are_held(plan, tier, rotation):
    tier = min(tier, plan.schema.max_tier)
    for tensor, grid in zip(plan.schema.tensors, plan.grids(tier, rotation), strict=True):
        whole = torch.arange(torch.Size(tensor.shape).numel()).reshape(tensor.shape)
        blocks = plan.held(tier, layer_of(tensor.name), rotation)
        part = grid.take(whole)
        assert torch.equal(part, neurons(grid, tensor, blocks))
        changed = whole.clone()
        grid.put(changed, -part)
        assert torch.equal(grid.take(changed), -part)
        assert int((changed != whole).sum()) == int((part != 0).sum())
        assert torch.equal(grid.join(grid.split(part)), part)
    for tensor, grid in zip(plan.schema.tensors, grids(plan.schema, tier, plan._chunk), strict=True):
        whole = torch.arange(torch.Size(tensor.shape).numel()).reshape(tensor.shape)
        assert torch.equal(grid.take(whole), tensor.take(whole, tier))


@settings(max_examples=25)
@given(
    helpers(), st.integers(0, 30), st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2**40)), max_size=5)
)
def test_direction_of_full_width_holds_that_of_every_part(plan, rotation, senders):
    """What a member folds at any width are the same bits as that part of the full fold."""
    tiers = [min(tier, plan.schema.max_tier) for tier, _ in senders]
    for i, whole in enumerate(grids(plan.schema, 0, plan._chunk)):
        ballots = []
        for tier, (_, bits) in zip(tiers, senders, strict=True):
            grid = plan.grids(tier, rotation)[i]
            keys = np.arange(bits % 3, grid.num_chunks * grid.area, 1 + bits % 5, dtype=np.int64)
            signs = np.array([1 - 2 * (bits >> j % 40 & 1) for j in range(len(keys))], dtype=np.int8)
            ballots.append(Ballot(grid, Signs(keys, signs)))
        for votes in ("senders", "holders"):
            step = direction(whole, ballots, votes=votes)
            for tier in range(plan.schema.max_tier + 1):
                for part in (plan.grids(tier, rotation)[i], grids(plan.schema, tier, plan._chunk)[i]):
                    assert torch.equal(part.take(step), direction(part, ballots, votes=votes))


def test_votes_of_holders_count_only_members_that_sampled_the_block():
    plan = helper(schema(16, 1), 0.5, chunk=4)
    up = next(i for i, tensor in enumerate(plan.schema.tensors) if tensor.name == "layers.0.mlp.up.weight")
    whole, sampled = plan.grids(0, 0)[up], plan.grids(1, 0)[up]
    (block,) = plan.sample(1, 0, 0)
    held = whole.held_by(sampled).reshape(whole.rows, whole.columns)
    assert held[:, 0].tolist() == [row in (0, 1, block) for row in range(4)]


def test_a_fraction_of_less_than_one_block_is_refused_with_what_would_do():
    with pytest.raises(
        TierError, match=r"helper_fraction = 0\.1 of the 2 blocks of 4 neurons outside tier 1"
    ):
        helper(schema(16, 1), 0.1)
    assert helper(schema(16, 1), 0.25).num_sampled(1) == 1


def test_neurons_cut_with_two_chunk_edges_are_refused():
    tensors = (TensorSpec("a.0.mlp.up.weight", (32, 8), 0), TensorSpec("a.0.mlp.wide.weight", (24, 8), 0))
    with pytest.raises(TierError, match="one chunk edge"):
        helper(Schema(tensors, 1, SimpleNamespace(ffn_width=32)), 0.5, chunk=8)


@pytest.mark.parametrize(
    ("name", "layer"),
    [("model.layers.3.mlp.gate_proj.weight", 3), ("model.layers.3.mlp.experts.7.up.weight", 3), ("head", 0)],
)
def test_layer_is_the_first_number_of_a_name(name, layer):
    assert layer_of(name) == layer
