"""The update's bytes: one encoding each, total decoding, sizes, goldens."""

import contextlib
import hashlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from psyche_train.fold.chunks import Grid
from psyche_train.fold.exact import Signs
from psyche_train.strategies.header import (
    ExpectedUpdate,
    UpdateError,
    UpdateHeader,
    check_header,
    encode_header,
)
from psyche_train.strategies.payload import PayloadLayout
from psyche_train.strategies.update import Update, UpdateFormat
from tests.train.payload_support import assert_equal_signs, mutated, sign_bodies, signs

SCHEMA = bytes(range(32))
GRIDS = (
    Grid("a", (32, 32), 2, 2, 16, 16),
    Grid("b", (24,), 3, 1, 8, 1),
    Grid("c", (7, 3), 1, 1, 7, 3),
)
CODEC = PayloadLayout(GRIDS, topk=4)
LAYOUT = UpdateFormat(strategy=1, schema=SCHEMA, codecs=(CODEC, CODEC), tokens_per_sample=16)


def header(**changes) -> UpdateHeader:
    values = {
        "run": bytes(range(100, 132)),
        "epoch": 2,
        "round": 17,
        "step": 15,
        "slot": 3,
        "tier": 1,
        "schema": SCHEMA,
        "loss": 3.5,
        "tokens": 320,
        "intervals": (range(100, 115), range(400, 405)),
    }
    return UpdateHeader(**{**values, **changes})


@st.composite
def updates(draw: st.DrawFn) -> Update:
    return Update(header(slot=draw(st.integers(0, 255))), draw(sign_bodies(GRIDS, 4)))


def full_update() -> Update:
    tensors = tuple(signs(grid, [4] * grid.num_chunks, i) for i, grid in enumerate(GRIDS))
    return Update(header(), tensors)


def assert_equal(left: Update, right: Update) -> None:
    assert left.header == right.header
    assert_equal_signs(left.body, right.body)


@given(updates())
def test_update_round_trips(update):
    data = LAYOUT.encode(update)
    assert len(data) <= LAYOUT.max_bytes
    assert_equal(LAYOUT.decode(data), update)


@settings(max_examples=300)
@given(updates(), st.data())
def test_mutated_bytes_give_the_same_bytes_back_or_update_error(update, data):
    blob = mutated(data, LAYOUT.encode(update))
    try:
        decoded = LAYOUT.decode(blob)
    except UpdateError:
        return
    assert LAYOUT.encode(decoded) == blob


@settings(max_examples=300)
@given(st.binary(max_size=LAYOUT.max_bytes + 50))
def test_arbitrary_bytes_give_update_error(data):
    with pytest.raises(UpdateError):
        LAYOUT.decode(data)
    whole = LAYOUT.encode(full_update())
    body = whole[: len(whole) - 40] + data[:40]
    with contextlib.suppress(UpdateError):
        assert LAYOUT.encode(LAYOUT.decode(body)) == body


def test_golden_bytes():
    tensors = []
    for grid in GRIDS:
        keys = np.array([chunk * grid.area + 1 + 2 * i for chunk in range(grid.num_chunks) for i in range(3)])
        tensors.append(Signs(keys, np.where(keys % 3 == 0, -1, 1).astype(np.int8)))
    data = LAYOUT.encode(Update(header(), tuple(tensors)))
    assert len(data) == 159
    assert hashlib.sha256(data).hexdigest() == (
        "c7c7797719db0ec2e0db6531503c743f17b0799a7cd220b6adb151bac8f7bcd1"
    )


def test_full_chunks_of_64_by_64_cost_at_most_0_0016_bytes_a_parameter():
    grid = Grid("w", (512, 512), 8, 8, 64, 64)
    layout = PayloadLayout((grid,), topk=4)
    bare, full = (signs(grid, [0] * 64, 0),), (signs(grid, [4] * 64, 0),)
    counts = 64 * 3 // 8  # an update with a chunk that is not full carries counts
    body = len(layout.encode(full)) - len(layout.encode(bare)) + counts
    assert body / (512 * 512) <= 0.00160


def patched(at: int, data: bytes) -> bytes:
    whole = bytearray(LAYOUT.encode(full_update()))
    whole[at : at + len(data)] = data
    return bytes(whole)


def oversized_first_count() -> bytes:
    update = Update(header(), (signs(GRIDS[0], [0, 4, 4, 4], 0), *full_update().body[1:]))
    whole = bytearray(LAYOUT.encode(update))
    start = whole.index(b"\x01", 131)  # flags byte: tensor 0 has counts
    whole[start + 1] |= 0b111
    return bytes(whole)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "length"),
        (patched(0, b"X"), "magic"),
        (patched(4, b"\x02"), "version"),
        (patched(6, b"\x09"), "strategy"),
        (patched(7, b"\x02"), "tier"),
        (patched(66, b"\xff"), "schema"),
        (patched(98, b"\x00\x00\xc0\x7f"), "number"),
        (patched(98, b"\x00\x00\x80\x7f"), "number"),
        (patched(106, b"\x00"), "intervals"),
        (patched(106, b"\xff"), "intervals"),
        (patched(107 + 8, b"\x00\x00\x00\x00"), "intervals"),
        (patched(107, b"\xff" * 8), "intervals"),
        (LAYOUT.encode(full_update()) + b"\x00", "length"),
        (LAYOUT.encode(full_update())[:-1], "length"),
        (LAYOUT.encode(full_update()) + bytes(LAYOUT.max_bytes), "length"),
        (patched(102, b"\x41"), "number"),
        (oversized_first_count(), "counts"),
    ],
)
def test_broken_update_is_refused_by_name(data, code):
    with pytest.raises(UpdateError) as caught:
        LAYOUT.decode(data)
    assert caught.value.code == code
    assert_equal(LAYOUT.decode(LAYOUT.encode(full_update())), full_update())


def test_descending_indices_and_indices_outside_the_chunk_are_refused():
    for keys in ([5, 3, 6, 7], [1, 1, 2, 3], [1, 2, 3, 24]):
        tensors = (
            *full_update().body[:2],
            Signs(np.array(keys, dtype=np.int64), np.ones(4, dtype=np.int8)),
        )
        grids = (*GRIDS[:2], Grid("c", (5, 5), 1, 1, 5, 5))  # same bits per index, a larger chunk
        wide = PayloadLayout(grids, topk=4)
        head = encode_header(header(), 1)
        with pytest.raises(UpdateError) as caught:
            LAYOUT.decode(head + wide.encode(tensors))
        assert caught.value.code == "index"


@pytest.mark.parametrize("name", ["run", "epoch", "round", "step", "slot", "tier", "intervals"])
def test_header_that_differs_from_the_chain_is_refused_by_field(name):
    found = header()
    fields = ("run", "epoch", "round", "step", "slot", "tier", "intervals")
    expected = ExpectedUpdate(**{field: getattr(found, field) for field in fields})
    check_header(found, expected)
    check_header(found, replace(expected, intervals=None))
    other = {"run": bytes(32), "intervals": (range(1, 2),)}.get(name, 99)
    with pytest.raises(UpdateError) as caught:
        check_header(replace(found, **{name: other}), expected)
    assert caught.value.code == name


def test_encoding_refuses_a_header_that_does_not_fit():
    for change in ({"slot": 70_000}, {"intervals": ()}, {"tokens": -1}, {"loss": 1e300}):
        with pytest.raises(UpdateError):
            LAYOUT.encode(replace(full_update(), header=header(**change)))
