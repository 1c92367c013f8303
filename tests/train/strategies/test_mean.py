"""Means of the element-wise fold, token weights in exact integers, and the baseline's arithmetic."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from psyche_train.fold.chunks import Grid
from psyche_train.fold.exact import Ballot, Signs, direction
from psyche_train.fold.mean import Mean
from psyche_train.strategies.adamw import power

CPU = torch.device("cpu")
FULL = Grid("w", (8, 8), 2, 2, 4, 4)
HALF_ROWS = Grid("w", (4, 8), 1, 2, 4, 4)
HALF_COLUMNS = Grid("w", (8, 4), 2, 1, 4, 4)


@pytest.mark.parametrize("narrow", [HALF_ROWS, HALF_COLUMNS], ids=["rows", "columns"])
@pytest.mark.parametrize("votes", ["holders", "tokens"])
def test_dense_mean_divides_each_part_by_those_who_hold_it(narrow, votes):
    wide = torch.arange(64, dtype=torch.float32).reshape(8, 8)
    small = torch.ones(narrow.shape) * 100
    mean = Mean(FULL, votes, CPU)
    mean.add_dense(FULL, wide, 3)
    mean.add_dense(narrow, small, 1)
    result, covered = mean.result()
    assert covered is None
    expected = wide.clone()
    part = (slice(narrow.shape[0]), slice(narrow.shape[1]))
    expected[part] = (wide[part] * 3 + 100) / 4 if votes == "tokens" else (wide[part] + 100) / 2
    assert torch.equal(result, expected)


@pytest.mark.parametrize("narrow", [HALF_ROWS, HALF_COLUMNS], ids=["rows", "columns"])
def test_part_that_nobody_holds_is_marked(narrow):
    mean = Mean(FULL, "holders", CPU)
    mean.add_dense(narrow, torch.ones(narrow.shape), 1)
    result, covered = mean.result()
    expected = torch.zeros(8, 8)
    expected[: narrow.shape[0], : narrow.shape[1]] = 1
    assert torch.equal(result, expected)
    assert torch.equal(covered, expected.bool())


def test_wide_update_is_cut_for_a_narrow_member_as_the_full_mean_is():
    wide = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    for narrow in (HALF_ROWS, HALF_COLUMNS):
        mean = Mean(narrow, "holders", CPU)
        mean.add_dense(FULL, wide, 1)
        assert torch.equal(mean.result()[0], wide[: narrow.shape[0], : narrow.shape[1]])


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.sampled_from([FULL, HALF_ROWS, HALF_COLUMNS]), st.integers(0, 99), st.integers(1, 999)),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from(["senders", "holders", "tokens"]),
)
def test_sparse_mean_is_that_of_a_plain_loop(drawn, votes):
    mean = Mean(FULL, votes, CPU)
    total, divisor = np.zeros((8, 8)), np.zeros((8, 8))
    held = np.zeros((8, 8), dtype=bool)
    for grid, seed, tokens in drawn:
        generator = np.random.default_rng(seed)
        size = math.prod(grid.shape)
        keys = np.sort(generator.choice(size, generator.integers(0, size // 2), replace=False))
        values = generator.integers(-8, 9, len(keys)).astype(np.float32)
        mean.add_sparse(grid, keys, torch.from_numpy(values), tokens)
        weight = tokens if votes == "tokens" else 1
        dense = np.zeros(size)
        dense[keys] = values
        sent = np.zeros(size)
        sent[keys] = 1
        rows, columns = grid.shape
        shape = (grid.num_chunks, 4, 4)
        total[:rows, :columns] += grid.join(torch.from_numpy(dense).reshape(shape)).numpy() * weight
        ones = grid.join(torch.from_numpy(sent).reshape(shape)).numpy() if votes == "senders" else weight
        divisor[:rows, :columns] += ones
        held[:rows, :columns] = True
    result, covered = mean.result()
    assert np.array_equal(covered.numpy() if covered is not None else np.ones((8, 8), bool), held)
    assert np.array_equal(result.numpy(), (total / np.maximum(divisor, 1)).astype(np.float32))


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 99), st.integers(1, 4), st.booleans()), min_size=1, max_size=4))
def test_a_ballot_of_n_tokens_counts_like_n_ballots_of_holders(drawn):
    weighted, repeated = [], []
    for seed, tokens, narrow in drawn:
        grid = HALF_ROWS if narrow else FULL
        generator = np.random.default_rng(seed)
        keys = np.sort(generator.choice(math.prod(grid.shape), 12, replace=False))
        signs = Signs(keys, generator.choice(np.array([-1, 1], dtype=np.int8), 12))
        weighted.append(Ballot(grid, signs, tokens))
        repeated += [Ballot(grid, signs)] * tokens
    one = direction(FULL, weighted, votes="tokens")
    assert torch.equal(one, direction(FULL, repeated, votes="holders"))
    assert torch.equal(one, direction(FULL, weighted, votes="tokens", dtype=torch.int64))


def test_votes_of_the_largest_token_counts_stay_exact():
    grid = Grid("x", (128, 128), 1, 1, 128, 128)
    keys = np.arange(128 * 128, dtype=np.int64)
    ballot = Ballot(grid, Signs(keys, np.ones(len(keys), dtype=np.int8)), 2**32 - 1)
    step = direction(grid, [ballot] * 256, votes="tokens")
    assert torch.equal(step, direction(grid, [ballot], votes="holders", dtype=torch.int64))


@given(st.floats(0, 0.999999), st.integers(0, 100_000))
def test_power_by_multiplications_is_near_the_librarys(base, exponent):
    assert power(base, exponent) == pytest.approx(base**exponent, rel=1e-9, abs=1e-300)
