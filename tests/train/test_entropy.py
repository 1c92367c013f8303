"""Packed bits, coded sets and the entropy-coded body: round trips, one encoding each, total decoding, sizes."""

import hashlib
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psyche_train.fold.chunks import Grid
from psyche_train.fold.exact import Signs
from psyche_train.spec import DistroOptimizer
from psyche_train.spec.optimizer import MAX_ENTROPY_TOPK
from psyche_train.strategies.bits import MAX_WIDTH, bytes_of, pack, unpack
from psyche_train.strategies.header import UpdateError
from psyche_train.strategies.payload import PayloadLayout
from psyche_train.strategies.subsets import MAX_K, SubsetCoder, subset_coder
from tests.train.payload_support import assert_equal_signs, mutated, sign_bodies

GRIDS = (
    Grid("a", (32, 32), 2, 2, 16, 16),
    Grid("b", (24,), 3, 1, 8, 1),
    Grid("c", (48, 32), 3, 2, 16, 16),
    Grid("d", (6, 1), 2, 1, 3, 1),
)
CODEC = PayloadLayout(GRIDS, topk=4, entropy=True)


@st.composite
def numbers(draw: st.DrawFn) -> tuple[np.ndarray, int]:
    width = draw(st.integers(0, MAX_WIDTH))
    values = draw(st.lists(st.integers(0, 2**width - 1), max_size=40))
    return np.array(values, dtype=np.int64), width


@given(numbers(), st.binary(max_size=3))
def test_packed_numbers_are_their_bits_from_the_lowest(case, before):
    values, width = case
    bits = "".join(f"{value:0{width}b}"[::-1] for value in values.tolist()) if width else ""
    padded = bits + "0" * (-len(bits) % 8)
    expected = bytes(int(padded[i : i + 8][::-1], 2) for i in range(0, len(padded), 8))
    assert pack(values, width) == expected
    found, end = unpack(before + expected + b"\xff", len(before), len(values), width)
    assert found.tolist() == values.tolist()
    assert end == len(before) + len(expected)


def test_unpack_refuses_padding_that_is_not_zero_and_bytes_that_are_missing():
    data = pack(np.array([5, 6, 7]), 11)
    for broken, code in ((data[:-1], "length"), (data[:-1] + bytes([data[-1] | 0x80]), "padding")):
        with pytest.raises(UpdateError) as caught:
            unpack(broken, 0, 3, 11)
        assert caught.value.code == code


@pytest.mark.parametrize(("n", "k"), [(1, 1), (5, 0), (5, 5), (7, 1), (8, 3), (12, 6), (9, 7)])
def test_every_set_has_its_own_code_and_every_code_a_set(n, k):
    coder = SubsetCoder(n, k)
    sets = np.array(list(itertools.combinations(range(n), k)), dtype=np.int64).reshape(math.comb(n, k), k)
    assert len(sets) == coder.count
    codes = {coder.encode(one[None]) for one in sets}
    assert len(codes) == coder.count
    size = coder.num_bytes(1)
    good = 0
    for number in range(256**size if size < 3 else 0):
        data = number.to_bytes(size, "little")
        try:
            found, end = coder.decode(data, 0, 1)
        except UpdateError:
            continue
        good += 1
        assert end == size
        assert coder.encode(found) == data
    assert good == coder.count or size >= 3


@st.composite
def set_lists(draw: st.DrawFn) -> tuple[SubsetCoder, np.ndarray]:
    n = draw(st.sampled_from([1, 2, 21, 64, 100, 256, 841, 4096, 16384]))
    k = draw(st.integers(0, min(n, 64)))
    generator = np.random.default_rng(draw(st.integers(0, 999)))
    rows = [
        np.arange(k) if draw(st.integers(0, 9)) == 0 else np.sort(generator.choice(n, k, replace=False))
        for _ in range(draw(st.integers(0, 19)))
    ]
    if rows and draw(st.booleans()):
        rows[-1] = np.arange(n - k, n)  # the highest rank
    return subset_coder(n, k), np.array(rows, dtype=np.int64).reshape(len(rows), k)


@settings(deadline=None, max_examples=150)
@given(set_lists(), st.binary(max_size=3))
def test_sets_round_trip(case, before):
    coder, sets_CK = case
    data = coder.encode(sets_CK)
    assert len(data) == coder.num_bytes(len(sets_CK))
    found_CK, end = coder.decode(before + data + b"\x00", len(before), len(sets_CK))
    assert np.array_equal(found_CK, sets_CK)
    assert end == len(before) + len(data)


@settings(deadline=None, max_examples=200)
@given(set_lists(), st.data())
def test_any_bytes_are_a_list_of_sets_with_these_bytes_or_an_error(case, data):
    coder, sets_CK = case
    size = coder.num_bytes(len(sets_CK))
    raw = data.draw(st.binary(min_size=size, max_size=size))
    if data.draw(st.booleans()):  # near the limits: a valid code with some bits changed
        valid = bytearray(coder.encode(sets_CK))
        for i in range(min(2, size)):
            valid[data.draw(st.integers(0, size - 1))] = raw[i]
        raw = bytes(valid)
    try:
        found_CK, _ = coder.decode(raw, 0, len(sets_CK))
    except UpdateError:
        return
    assert ((found_CK >= 0) & (found_CK < coder.n)).all()
    assert (np.diff(found_CK, axis=1) > 0).all()
    assert coder.encode(found_CK) == raw


def test_a_rank_at_its_limit_is_refused_and_the_one_below_is_the_last_set():
    coder = SubsetCoder(4096, 4)
    last = coder.encode(np.array([[4092, 4093, 4094, 4095]]))
    whole, rest = divmod(coder.low_bits, 32)
    low = coder.count & ((1 << coder.low_bits) - 1)
    limit = (
        (low & 0xFFFFFFFF).to_bytes(4, "little") * whole
        + pack(np.array([low >> 32 * whole]), rest)
        + last[4 * whole + bytes_of(rest) :]
    )
    assert len(limit) == len(last)
    with pytest.raises(UpdateError, match="not below") as caught:
        coder.decode(limit, 0, 1)
    assert caught.value.code == "index"


@pytest.mark.parametrize("k", [1, 2, 3, 4, 8, 16, 64])
def test_sets_cost_at_most_a_sixth_of_a_bit_more_than_their_entropy(k):
    coder = subset_coder(4096, k)
    assert coder.num_bytes(8000) * 8 / 8000 <= math.log2(coder.count) + 1 / 6


def test_larger_sets_than_the_tables_are_refused_where_they_are_asked_for():
    assert MAX_K == MAX_ENTROPY_TOPK == 64
    with pytest.raises(ValueError, match="at most 64"):
        SubsetCoder(4096, 65)
    with pytest.raises(ValueError, match="at most 64"):
        PayloadLayout(GRIDS, topk=65, entropy=True)
    with pytest.raises(ValueError, match="lower compression_topk"):
        DistroOptimizer(compression_topk=65, entropy=True)
    assert DistroOptimizer(compression_topk=64, entropy=True).entropy


BODIES = sign_bodies(GRIDS, 4)


@settings(deadline=None)
@given(BODIES, st.binary(max_size=3))
def test_body_round_trips_and_means_what_the_plain_body_means(body, before):
    data = CODEC.encode(body)
    assert len(data) <= CODEC.max_bytes
    assert_equal_signs(CODEC.decode(before + data, len(before)), body)
    plain = PayloadLayout(GRIDS, topk=4)
    assert_equal_signs(plain.decode(plain.encode(body), 0), body)


@settings(deadline=None, max_examples=300)
@given(BODIES, st.data())
def test_mutated_body_gives_the_same_bytes_back_or_an_error(body, data):
    blob = mutated(data, CODEC.encode(body))
    try:
        decoded = CODEC.decode(blob, 0)
    except UpdateError:
        return
    assert CODEC.encode(decoded) == blob


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=CODEC.max_bytes + 20))
def test_arbitrary_bytes_give_a_body_with_these_bytes_or_an_error(data):
    try:
        decoded = CODEC.decode(data, 0)
    except UpdateError:
        return
    assert CODEC.encode(decoded) == data


GOLDEN = (50, "78699c8")


def golden_body() -> tuple[Signs, ...]:
    body = []
    for grid in GRIDS:
        per_chunk = min(4, grid.area)
        keys = [
            chunk * grid.area + i * (grid.area // 4) for chunk in range(grid.num_chunks) for i in range(4)
        ]
        if grid.area < 4:
            keys = list(range(grid.num_chunks * per_chunk))
        keys = keys[1:] if grid.name == "c" else keys  # one chunk that is not full
        body.append(Signs(np.array(keys), np.where(np.array(keys) % 3 == 0, -1, 1).astype(np.int8)))
    return tuple(body)


def test_golden_bytes():
    data = CODEC.encode(golden_body())
    assert_equal_signs(CODEC.decode(data, 0), golden_body())
    assert (len(data), hashlib.sha256(data).hexdigest()[:7]) == GOLDEN


def test_full_chunks_of_64_by_64_cost_at_most_0_00147_bytes_a_parameter():
    grids = tuple(Grid(name, (128, 128), 2, 2, 64, 64) for name in "abcdefgh")
    generator = np.random.default_rng(0)
    body = []
    for _ in grids:
        keys = np.concatenate(
            [chunk * 4096 + np.sort(generator.choice(4096, 4, replace=False)) for chunk in range(4)]
        )
        body.append(Signs(keys, generator.choice([-1, 1], 16).astype(np.int8)))
    data = PayloadLayout(grids, topk=4, entropy=True).encode(tuple(body))
    assert len(data) / (8 * 128 * 128) <= 0.00147
