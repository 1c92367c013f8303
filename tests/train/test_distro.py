"""DisTrO's error feedback and selection."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from psyche_train.fold.basis import real_basis
from psyche_train.fold.chunks import Grid
from psyche_train.spec import DistroOptimizer
from psyche_train.strategies import dct
from psyche_train.strategies.dct import Pool, inverse, largest
from psyche_train.strategies.distro import DistroState

GRIDS = (Grid("w", (32, 16), 2, 1, 16, 16), Grid("n", (16,), 1, 1, 16, 1))
SHAPES = (
    *GRIDS,
    Grid("wide", (24, 40), 1, 5, 24, 8),
    Grid("odd", (21, 30), 3, 2, 7, 15),
    Grid("deep", (2, 32, 48), 2, 3, 32, 16),
    Grid("column", (4, 3), 1, 3, 4, 1),
)
POOLS = (
    *((grid,) for grid in SHAPES),
    (
        Grid("one", (48, 32), 3, 2, 16, 16),
        Grid("two", (16, 16), 1, 1, 16, 16),
        Grid("three", (32, 64), 2, 4, 16, 16),
    ),
    (Grid("norm", (32,), 2, 1, 16, 1), Grid("bias", (16, 3), 1, 3, 16, 1)),
)


def state(**changes) -> DistroState:
    config = DistroOptimizer(compression_chunk=16, compression_topk=4, **changes)
    return DistroState(config, GRIDS, torch.device("cpu"))


def gradients(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {grid.name: torch.randn(grid.shape, generator=generator) for grid in GRIDS}


@settings(max_examples=60)
@given(st.integers(0, 999), st.integers(1, 20), st.booleans())
def test_largest_matches_a_stable_sort_even_with_ties(seed, k, ties):
    values = torch.randn((5, 20), generator=torch.Generator().manual_seed(seed))
    if ties:
        values = values.round()
    expected = values.abs().sort(dim=1, descending=True, stable=True).indices[:, :k].sort(dim=1).values
    assert torch.equal(largest(values, k), expected)


@settings(max_examples=100)
@given(st.integers(0, 999), st.sampled_from(POOLS), st.integers(1, 6), st.booleans(), st.integers(1, 9))
def test_what_a_pool_takes_is_what_a_stable_sort_of_every_chunk_puts_first(seed, grids, k, ties, per_slab):
    generator = torch.Generator().manual_seed(seed)
    pool = Pool(grids, torch.device("cpu"))
    k, keys, values = min(k, pool.area), [], []
    for grid in grids:
        tensor = torch.randn(grid.shape, generator=generator)
        pool.tensors[grid.name].copy_((2 * tensor).round() if ties else tensor)
        chunks = grid.split(pool.tensors[grid.name]).flatten(1)
        index = chunks.abs().sort(dim=1, descending=True, stable=True).indices[:, :k].sort(dim=1).values
        keys.append(index + torch.arange(grid.num_chunks)[:, None] * grid.area)
        values.append(chunks.gather(1, index))
    pool.accumulate({grid.name: torch.zeros(grid.shape) for grid in grids}, decay=1.0, rate=1.0)
    before = pool.flat.clone()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dct, "_SELECTED", per_slab * pool.area)
        found_keys, found_values = pool.take_largest(k)
    keys, values = torch.cat(keys), torch.cat(values)
    sent = values != 0  # which zeros fill up is free
    assert torch.equal(found_keys[found_values != 0], keys[sent])
    assert torch.equal(found_values[found_values != 0], values[sent])
    assert (pool.flat != before).sum() == sent.sum()
    for grid, part, taken in zip(
        grids, *(whole.split(pool.num_chunks) for whole in (found_keys, found_values)), strict=True
    ):
        pool.tensors[grid.name].view(-1)[grid.places(part.flatten())] = taken.flatten()
    assert torch.equal(pool.flat, before)


@pytest.mark.parametrize("grid", SHAPES)
def test_transform_in_place_is_the_orthonormal_dct_of_every_chunk(grid):
    generator = torch.Generator().manual_seed(1)
    values, before = (
        torch.randn(grid.shape, generator=generator),
        torch.randn(grid.shape, generator=generator),
    )
    down, across = real_basis(grid.chunk_rows), real_basis(grid.chunk_columns)
    expected = grid.join(down @ grid.split(values) @ across.T)
    pool = Pool([grid], torch.device("cpu"))
    pool.flat.copy_(before.flatten())
    pool.accumulate({grid.name: values}, decay=0.5, rate=2.0)
    assert torch.allclose(pool.tensors[grid.name], 0.5 * before + 2.0 * expected, atol=1e-5)
    assert torch.allclose(inverse(expected, grid), values, atol=1e-5)


@pytest.mark.parametrize("grid", SHAPES)
def test_place_of_a_coefficient_is_where_splitting_takes_it_from(grid):
    size = grid.num_chunks * grid.area
    keys = torch.arange(size)
    assert torch.equal(grid.split(torch.arange(size).reshape(grid.shape)).flatten(), grid.places(keys))


def test_what_is_sent_leaves_the_error_buffer_and_returns_when_not_accepted():
    member = state(compression_decay=1.0)
    member.encode(1, gradients(0), 1.0)
    whole = gradients(0)
    assert not torch.allclose(member.residual()["w"], whole["w"], atol=1e-2)
    member.settle(1, accepted=False)
    for name, tensor in member.residual().items():
        assert torch.allclose(tensor, whole[name], atol=1e-5)


def test_accepted_coefficients_stay_out_of_the_error_buffer():
    member = state()
    first = member.encode(1, gradients(0), 1.0)
    left = {name: tensor.clone() for name, tensor in member.error.items()}
    member.settle(1, accepted=True)
    member.settle(1, accepted=False)
    assert all(torch.equal(left[name], member.error[name]) for name in left)
    assert len(first[0].keys) == 8


def test_a_round_encoded_again_sends_the_same():
    member = state(compression_decay=1.0)
    first = member.encode(1, gradients(0), 1.0)
    member.settle(1, accepted=False)
    for tensor in member.error.values():
        tensor.zero_()
    again = member.encode(1, gradients(0), 1.0)
    assert first[0].keys.tolist() == again[0].keys.tolist()


def test_an_exact_zero_is_not_sent():
    member = state()
    sparse = {grid.name: torch.zeros(grid.shape) for grid in GRIDS}
    assert [len(signs.keys) for signs in member.encode(1, sparse, 1.0)] == [0, 0]
    sparse["w"][16:, :] = gradients(3)["w"][16:, :]
    signs = member.encode(2, sparse, 1.0)[0]
    assert (signs.keys >= 256).all()
    assert len(signs.keys) == 4


def test_state_round_trips_through_flat_tensors():
    member, other = state(), state()
    member.encode(1, gradients(0), 1.0)
    member.encode(2, gradients(1), 1.0)
    other.load_tensors(member.tensors())
    other.settle(1, accepted=False)
    member.settle(1, accepted=False)
    assert all(torch.equal(member.error[name], other.error[name]) for name in member.error)
    assert set(other.pending) == {2}


@pytest.mark.parametrize("missing", ["transformed/w", "pending/1/keys/n", "pending/1/values/n"])
def test_state_with_a_missing_tensor_is_refused(missing):
    member = state()
    member.encode(1, gradients(0), 1.0)
    flat = member.tensors()
    del flat[missing]
    with pytest.raises(ValueError, match=r"round 1|saved buffer"):
        state().load_tensors(flat)
