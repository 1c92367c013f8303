"""The bodies of SparseLoCo and AdamW updates: one encoding each, total decoding, bounded memory, sizes."""

from __future__ import annotations

import math
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from psyche_train.fold.chunks import Grid
from psyche_train.strategies.adamw import DenseCodec
from psyche_train.strategies.header import UpdateError, UpdateHeader, encode_header
from psyche_train.strategies.payload import PayloadLayout
from psyche_train.strategies.quantize import compress
from psyche_train.strategies.sparse_payload import (
    LARGE,
    MAX_SCALE,
    MIN_SCALE,
    MINUS,
    SparseCodec,
    SparseValues,
)
from psyche_train.strategies.update import Update, UpdateFormat
from tests.train.payload_support import chosen_keys, counts_of, mutated

SCHEMA = bytes(range(32))
GRIDS = (
    Grid("a", (32, 32), 2, 2, 16, 16),
    Grid("b", (24,), 3, 1, 8, 1),
    Grid("c", (7, 3), 1, 1, 7, 3),
    Grid("d", (2,), 1, 1, 2, 1),
)
SPARSE = SparseCodec(GRIDS, 4)
DENSE = DenseCodec(GRIDS)
CODECS = {1: PayloadLayout(GRIDS, 4), 2: SPARSE, 3: DENSE}
"""DisTrO's own tests are in tests/train/test_payload.py and test_entropy.py."""
FORMATS = {
    code: UpdateFormat(strategy=code, schema=SCHEMA, codecs=(codec,), tokens_per_sample=16)
    for code, codec in CODECS.items()
}
HEADER = UpdateHeader(
    run=bytes(32),
    epoch=1,
    round=2,
    step=1,
    slot=0,
    tier=0,
    schema=SCHEMA,
    loss=2.5,
    tokens=160,
    intervals=(range(3, 13),),
)


def sparse(grid: Grid, counts: list[int], seed: int) -> SparseValues:
    generator = np.random.default_rng(seed)
    joined = chosen_keys(grid, counts, generator)
    scales = np.sort(generator.integers(MIN_SCALE, MAX_SCALE + 1, (len(counts), 2)), axis=1)
    scales[np.array(counts) == 0] = 0
    return SparseValues(
        joined, generator.integers(0, 4, len(joined)).astype(np.uint8), scales.astype(np.uint16)
    )


def full_sparse(seed: int = 0) -> tuple[SparseValues, ...]:
    return tuple(
        sparse(grid, [SPARSE.kept(grid)] * grid.num_chunks, seed + i) for i, grid in enumerate(GRIDS)
    )


@st.composite
def sparse_bodies(draw: st.DrawFn) -> tuple[SparseValues, ...]:
    tensors = []
    for grid in GRIDS:
        counts = draw(counts_of(grid, SPARSE.kept(grid)))
        tensors.append(sparse(grid, counts, draw(st.integers(0, 9999))))
    return tuple(tensors)


def dense(seed: int) -> tuple[np.ndarray, ...]:
    generator = np.random.default_rng(seed)
    return tuple(generator.standard_normal(grid.shape).astype(np.float32) for grid in GRIDS)


bodies = st.one_of(
    st.tuples(st.just(2), sparse_bodies()), st.tuples(st.just(3), st.integers(0, 99).map(dense))
)


def assert_equal(left: object, right: object) -> None:
    for one, two in zip(left, right, strict=True):
        if isinstance(one, SparseValues):
            one, two = (np.concatenate([v.keys, v.codes, v.scales.reshape(-1)]) for v in (one, two))
        assert one.tobytes() == two.tobytes()


@given(bodies)
def test_update_round_trips_within_the_length_known_in_advance(drawn):
    code, body = drawn
    data = FORMATS[code].encode(Update(HEADER, body))
    assert len(data) <= FORMATS[code].max_bytes
    found = FORMATS[code].decode(data)
    assert found.header == HEADER
    assert_equal(found.body, body)


@settings(max_examples=400)
@given(bodies, st.data())
def test_mutated_update_gives_its_own_bytes_back_or_update_error(drawn, data):
    code, body = drawn
    blob = mutated(data, FORMATS[code].encode(Update(HEADER, body)))
    try:
        decoded = FORMATS[code].decode(blob)
    except UpdateError:
        return
    assert FORMATS[code].encode(decoded) == blob


@settings(max_examples=400)
@given(st.sampled_from([1, 2, 3]), st.binary(max_size=SPARSE.max_bytes + 20))
def test_arbitrary_body_gives_an_update_with_these_bytes_or_update_error(code, body):
    data = encode_header(HEADER, code) + body
    try:
        decoded = FORMATS[code].decode(data)
    except UpdateError:
        return
    assert FORMATS[code].encode(decoded) == data


@given(st.sampled_from([1, 2, 3]), st.sampled_from([1, 2, 3]))
def test_update_of_another_strategy_is_refused_by_name(made, read):
    body = {1: b"", 2: SPARSE.encode(full_sparse()), 3: DENSE.encode(dense(0))}[made]
    if made == read:
        return
    with pytest.raises(UpdateError, match="strategy"):
        FORMATS[read].decode(encode_header(HEADER, made) + body)


def big_grids() -> tuple[Grid, ...]:
    return (Grid("w", (512, 512), 8, 8, 64, 64), Grid("v", (256,), 4, 1, 64, 1))


@pytest.mark.parametrize("code", [1, 2, 3])
@pytest.mark.parametrize("fill", [b"\x00", b"\xff", b"\x55"])
def test_decoding_allocates_a_bounded_multiple_of_the_tensors(code, fill):
    grids = big_grids()
    codec = {1: PayloadLayout(grids, 4), 2: SparseCodec(grids, 64), 3: DenseCodec(grids)}[code]
    size = sum(math.prod(grid.shape) for grid in grids)
    lengths = (0, 1, codec.max_bytes // 2, codec.max_bytes - 1, codec.max_bytes)
    for data in (fill * length for length in lengths):
        tracemalloc.start()
        try:
            codec.decode(data, 0)
        except UpdateError:
            pass
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < 8 * size
    form = UpdateFormat(strategy=code, schema=SCHEMA, codecs=(codec,), tokens_per_sample=16)
    long = encode_header(HEADER, code) + fill * (64 * codec.max_bytes)
    tracemalloc.start()
    with pytest.raises(UpdateError, match="length"):
        form.decode(long)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


def test_sparse_chunks_cost_at_most_0_0273_bytes_a_parameter_at_64_of_4096():
    grid = Grid("w", (512, 512), 8, 8, 64, 64)
    codec = SparseCodec((grid,), 64)
    body = compress(torch.randn(64, 4096, generator=torch.Generator().manual_seed(0)), 64)
    data = codec.encode((body,))
    assert len(body.keys) == 64 * 64
    assert len(data) / (512 * 512) <= 0.0206
    assert codec.max_bytes / (512 * 512) <= 0.0273
    assert_equal(codec.decode(data, 0), (body,))


def altered(**changes: object) -> tuple[SparseValues, ...]:
    body = full_sparse()
    return (replace(body[0], **changes), *body[1:])


def with_scales(first: int, second: int) -> tuple[SparseValues, ...]:
    scales = full_sparse()[0].scales.copy()
    scales[1] = (first, second)
    return altered(scales=scales)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (with_scales(MIN_SCALE, 0x7F80), "number"),  # infinity
        (with_scales(MIN_SCALE, 0x7FC0), "number"),  # NaN
        (with_scales(MIN_SCALE, MAX_SCALE + 1), "number"),
        (with_scales(MIN_SCALE - 1, MAX_SCALE), "number"),
        (with_scales(0, 0), "number"),
        (with_scales(0x8000 | MIN_SCALE, MAX_SCALE), "number"),  # negative
        (with_scales(MIN_SCALE + 1, MIN_SCALE), "number"),  # out of order
        (with_scales(MIN_SCALE, MIN_SCALE), None),
        (with_scales(MIN_SCALE, MAX_SCALE), None),
    ],
)
def test_magnitudes_are_finite_ordered_and_in_range(body, code):
    data = SPARSE.encode(body)
    if code is None:
        assert_equal(SPARSE.decode(data, 0), body)
        return
    with pytest.raises(UpdateError) as caught:
        SPARSE.decode(data, 0)
    assert caught.value.code == code


def test_empty_chunks_have_no_magnitudes():
    empty = sparse(GRIDS[0], [0, 4, 4, 4], 0)
    scales = empty.scales.copy()
    scales[0] = MIN_SCALE
    SPARSE.decode(SPARSE.encode((empty, *full_sparse()[1:])), 0)
    with pytest.raises(UpdateError, match="number"):
        SPARSE.decode(SPARSE.encode((replace(empty, scales=scales), *full_sparse()[1:])), 0)


def test_indices_that_repeat_descend_or_leave_the_chunk_are_refused():
    first = full_sparse()[0]
    for keys in ([1, 1, 2, 3], [2, 1, 3, 4]):
        broken = first.keys.copy()
        broken[:4] = keys
        with pytest.raises(UpdateError, match="index"):
            SPARSE.decode(SPARSE.encode(altered(keys=broken)), 0)
    narrow, wide = Grid("c", (7, 3), 1, 1, 7, 3), Grid("c", (6, 4), 1, 1, 6, 4)
    body = (
        SparseValues(np.array([0, 1, 2, 22]), np.zeros(4, np.uint8), np.full((1, 2), MIN_SCALE, np.uint16)),
    )
    SparseCodec((wide,), 4).decode(SparseCodec((wide,), 4).encode(body), 0)
    with pytest.raises(UpdateError, match="index"):
        SparseCodec((narrow,), 4).decode(SparseCodec((wide,), 4).encode(body), 0)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 2.0**41, -(2.0**41)])
def test_dense_gradients_are_finite_and_not_huge(bad):
    body = dense(1)
    DENSE.decode(DENSE.encode(body), 0)
    body[2][3, 1] = bad
    with pytest.raises(UpdateError, match=r"number: c"):
        DENSE.decode(DENSE.encode(body), 0)


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.integers(1, 16), st.sampled_from([0.0, 1e-12, 1e-3, 1.0, 1e6, 1e30]))
def test_compressed_chunks_keep_the_largest_entries_with_the_nearer_of_two_magnitudes(seed, k, scale):
    values = torch.randn(5, 16, generator=torch.Generator().manual_seed(seed)) * scale
    values[1] = 0.0
    values[2, 3:] = 0.0
    values[3] = values[3].sign()
    body = compress(values, k)
    grid = Grid("x", (80,), 5, 1, 16, 1)
    found = torch.zeros(80)
    found[torch.from_numpy(body.keys)] = torch.from_numpy(body.values(16))
    assert_equal(SparseCodec((grid,), k).decode(SparseCodec((grid,), k).encode((body,)), 0), (body,))
    found = found.reshape(5, 16)
    assert not found[1].any()
    assert int((found[2] != 0).sum()) <= 3
    limited = values.clamp(-(2.0**40), 2.0**40)
    sent = found != 0
    assert torch.equal(found.sign()[sent], limited.sign()[sent])
    for row in range(5):
        left, kept = limited[row][~sent[row]].abs(), limited[row][sent[row]].abs()
        if len(left) and len(kept):
            assert left.max() <= kept.min()
        small, large = torch.from_numpy((body.scales[row].astype(np.uint32) << 16).view(np.float32))
        chosen = found[row][sent[row]].abs()
        assert torch.all((chosen - kept).abs() <= torch.minimum((small - kept).abs(), (large - kept).abs()))


def test_codes_are_a_sign_and_one_of_two_magnitudes():
    scales = np.array([[0x3F80, 0x4000]], dtype=np.uint16)  # 1 and 2
    body = SparseValues(np.arange(4), np.array([0, MINUS, LARGE, MINUS + LARGE], dtype=np.uint8), scales)
    assert body.values(4).tolist() == [1.0, -1.0, 2.0, -2.0]
