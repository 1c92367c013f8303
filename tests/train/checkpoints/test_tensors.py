"""The safetensors reader and writer: the library's bytes, and nothing but named errors whatever the bytes."""

from __future__ import annotations

import hashlib
import itertools
import json
import struct
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from psyche_train.checkpoints.errors import CheckpointError, DamagedError, StorageError
from psyche_train.checkpoints.files import INDEX, WeightFiles, plan_shards, weight_files, write_weights
from psyche_train.checkpoints.manifest import CheckpointManifest, is_plain_name
from psyche_train.checkpoints.tensors import (
    MAX_HEADER_BYTES,
    Entry,
    TensorFile,
    entries_of,
    read_all,
    read_json,
    write_tensors,
)

DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
    torch.int8, torch.uint8, torch.bool,
]  # fmt: skip
ANY_FILE = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

shapes = st.lists(st.integers(0, 5), max_size=3).map(tuple)
tensors = st.dictionaries(
    st.text(min_size=1, max_size=12).filter(lambda name: name != "__metadata__" and name.isprintable()),
    st.tuples(st.sampled_from(DTYPES), shapes),
    min_size=1,
    max_size=6,
).map(
    lambda found: {
        name: torch.arange(int(np.prod(shape)), dtype=torch.float32).reshape(shape).to(dtype)
        for name, (dtype, shape) in found.items()
    }
)


@ANY_FILE
@given(tensors)
def test_the_bytes_are_the_librarys(tmp_path, values):
    save_file(values, tmp_path / "theirs", metadata={"format": "pt"})
    length, sha256 = write_tensors(
        tmp_path / "ours", entries_of(values), values.__getitem__, {"format": "pt"}
    )
    ours = (tmp_path / "ours").read_bytes()
    assert ours == (tmp_path / "theirs").read_bytes()
    assert (len(ours), sha256) == (length, hashlib.sha256(ours).hexdigest())
    read, theirs = read_all(tmp_path / "ours"), load_file(tmp_path / "ours")
    assert all(
        read[name].dtype == theirs[name].dtype and torch.equal(read[name], theirs[name]) for name in theirs
    )


@ANY_FILE
@given(st.tuples(*[st.integers(1, 9)] * 2), st.data())
def test_any_part_is_read_as_indexing_gives_it(tmp_path, shape, data):
    values = torch.randn(shape)
    write_tensors(tmp_path / "x", entries_of({"x": values}), {"x": values}.__getitem__)
    bounds = [sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n)))) for n in shape]
    index = tuple(slice(*bound) for bound in bounds)[: data.draw(st.integers(0, 2))]
    file = TensorFile(tmp_path / "x")
    assert torch.equal(file.read("x", index), values[index])
    file.close()


@ANY_FILE
@given(st.data())
def test_a_damaged_file_gives_its_values_or_a_named_error(tmp_path, data):
    values = {"a": torch.arange(12.0).reshape(3, 4), "b": torch.arange(4)}
    write_tensors(tmp_path / "x", entries_of(values), values.__getitem__)
    raw = bytearray((tmp_path / "x").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(raw)))
    (tmp_path / "x").write_bytes(raw[:cut])
    try:
        read = read_all(tmp_path / "x")
    except CheckpointError:
        return
    assert sum(t.numel() * t.element_size() for t in read.values()) <= cut


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
sizes = st.integers(-1, 40) | st.sampled_from([2**31, 2**62, 2**63, 2**64, 10**30])
entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F64", "I8", "F8_E4M3", "", "f32"]) | json_values,
        "shape": st.lists(sizes, max_size=4) | json_values,
        "data_offsets": st.lists(sizes, max_size=3) | json_values,
    }
)


@settings(ANY_FILE, max_examples=200)
@given(
    st.dictionaries(st.text(max_size=4), entries | json_values, max_size=4) | json_values,
    st.binary(max_size=64),
)
def test_an_invented_header_gives_values_or_a_named_error_without_large_allocations(tmp_path, header, body):
    raw = json.dumps(header).encode()
    (tmp_path / "x").write_bytes(struct.pack("<Q", len(raw)) + raw + body)
    tracemalloc.start()
    try:
        read_all(tmp_path / "x")
    except CheckpointError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize(
    ("length", "named"),
    [(2**64 - 1, "header of"), (MAX_HEADER_BYTES + 1, "header of"), (1, "header of"), (10**6, "header of")],
)
def test_a_header_length_that_cannot_be_is_named(tmp_path, length, named):
    (tmp_path / "x").write_bytes(struct.pack("<Q", length) + b"{}" + b" " * 100)
    with pytest.raises(DamagedError, match=named):
        TensorFile(tmp_path / "x")


def header(**entry: object) -> bytes:
    raw = json.dumps({"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **entry}}).encode()
    return struct.pack("<Q", len(raw)) + raw


@pytest.mark.parametrize(
    ("raw", "named"),
    [
        (b"", "no safetensors file"),
        (header() + b"\0" * 7, "needs 8 bytes"),
        (header() + b"\0" * 9, "belong to no tensor"),
        (header(shape=[2**62, 4]) + b"\0" * 8, "needs"),
        (header(shape=[-2, -1]) + b"\0" * 8, "absurd"),
        (header(shape=[2.0]) + b"\0" * 8, "absurd"),
        (header(shape=[True, 2]) + b"\0" * 8, "absurd"),
        (header(shape=[1] * 9) + b"\0" * 8, "absurd"),
        (header(data_offsets=[1, 9]) + b"\0" * 9, "overlap"),
        (header(dtype="F8_E4M3") + b"\0" * 8, "is none"),
        (struct.pack("<Q", 7) + b'{"a":1,' + b"\0" * 8, "not JSON"),
        (struct.pack("<Q", 2) + b"[]", "no JSON object"),
        (struct.pack("<Q", 4096) + b"[" * 4096, "not JSON"),
        (struct.pack("<Q", 17) + b'{"a":1,   "a": 2}', "comes twice"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path, raw, named):
    (tmp_path / "x").write_bytes(raw)
    with pytest.raises(DamagedError, match=named):
        TensorFile(tmp_path / "x")
    (tmp_path / "x").write_bytes(header() + b"\0" * 8)
    assert torch.equal(read_all(tmp_path / "x")["x"], torch.zeros(2))


def test_a_file_that_shrinks_while_it_is_open_is_an_error_and_no_crash(tmp_path):
    values = {"x": torch.randn(100_000)}
    write_tensors(tmp_path / "x", entries_of(values), values.__getitem__)
    file = TensorFile(tmp_path / "x")
    with (tmp_path / "x").open("r+b") as opened:
        opened.truncate(500)
    with pytest.raises(DamagedError, match="ends within x"):
        file.read("x")
    file.close()
    with pytest.raises(StorageError, match="No such file"):
        TensorFile(tmp_path / "nothing")


def test_shards_are_the_layout_of_transformers_and_each_tensor_is_made_once(tmp_path):
    values = {f"t{i}": torch.randn(10, 10) for i in range(7)}
    asked: list[str] = []

    def fetch(name: str) -> torch.Tensor:
        asked.append(name)
        return values[name]

    files = write_weights(tmp_path, entries_of(values), fetch, shard_bytes=900)
    assert sorted(asked) == sorted(values)
    assert sorted(files) == [*[f"model-{i:05d}-of-00004.safetensors" for i in range(1, 5)], INDEX]
    index = json.loads((tmp_path / INDEX).read_text())
    assert index["metadata"]["total_size"] == 7 * 400
    assert set(index["weight_map"]) == set(values)
    with WeightFiles(tmp_path) as read:
        assert all(torch.equal(read.read(name), value) for name, value in values.items())


@given(st.lists(st.integers(0, 50), min_size=1, max_size=30), st.integers(1, 400))
def test_shards_are_full_in_order_and_none_is_empty(sizes, limit):
    entries = [Entry(f"t{i:02d}", torch.float32, (n,)) for i, n in enumerate(sizes)]
    plan = list(plan_shards(entries, limit).values())
    assert [entry for shard in plan for entry in shard] == entries
    assert all(shard for shard in plan)
    for shard, following in itertools.pairwise(plan):
        assert len(shard) == 1 or sum(e.num_bytes for e in shard) <= limit
        assert sum(e.num_bytes for e in shard) + following[0].num_bytes > limit


@pytest.mark.parametrize(
    "name",
    [
        "../model.safetensors", "/etc/passwd.safetensors", "a/b.safetensors", "..\\x.safetensors", ".x.safetensors",
        "x.bin", "", 7, None, ["x.safetensors"], "C:x.safetensors", "x\0.safetensors", "x" * 300 + ".safetensors",
    ],
)  # fmt: skip
def test_an_index_that_names_what_is_not_beside_it_is_refused(tmp_path, name):
    (tmp_path / "sub").mkdir()
    (tmp_path / "model.safetensors").write_bytes(header() + b"\0" * 8)
    (tmp_path / "sub" / INDEX).write_text(json.dumps({"weight_map": {"x": name}}))
    with pytest.raises(CheckpointError):
        weight_files(tmp_path / "sub")


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{}", b'{"weight_map": 3}', b'{"weight_map": {}}', b"\xff", b"NaN", b"[" * 99_999]
)
def test_an_index_that_is_none_is_named(tmp_path, raw):
    (tmp_path / INDEX).write_bytes(raw)
    with pytest.raises(DamagedError):
        weight_files(tmp_path)


def test_a_tensor_in_two_files_and_one_that_is_not_finite_are_named(tmp_path):
    for i in (1, 2):
        save_file({"x": torch.tensor([1.0, float("nan")])}, tmp_path / f"model-0000{i}-of-00002.safetensors")
    names = {"x": "model-00001-of-00002.safetensors", "y": "model-00002-of-00002.safetensors"}
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": names}))
    with pytest.raises(DamagedError, match="two files"):
        WeightFiles(tmp_path)
    with WeightFiles(tmp_path / names["x"]) as files, pytest.raises(DamagedError, match="NaN"):
        files.read("x")
    save_file({"x": torch.arange(3)}, tmp_path / "whole.safetensors")
    with (
        WeightFiles(tmp_path / "whole.safetensors") as files,
        pytest.raises(CheckpointError, match="floating"),
    ):
        files.read("x")


@settings(ANY_FILE, max_examples=150)
@given(
    json_values
    | st.dictionaries(st.sampled_from(["files", "tier", "schema_version", "outer_sha256"]), json_values)
)
def test_any_manifest_is_read_or_named(tables):
    if not isinstance(tables, dict):
        return
    with pytest.raises(DamagedError):
        CheckpointManifest.from_tables(tables, "it")


def test_a_long_file_is_not_read_as_json(tmp_path):
    (tmp_path / "x").write_bytes(b"{" + b" " * 2000 + b"}")
    with pytest.raises(DamagedError, match="longer than 100"):
        read_json(tmp_path / "x", 100)
    assert read_json(tmp_path / "x", 3000) == {}


@given(st.text(max_size=30))
def test_a_plain_name_stays_in_its_folder(name):
    if is_plain_name(name):
        assert (Path("/folder") / name).parent == Path("/folder")
        assert name not in (".", "..")


def test_threads_read_one_open_file_at_once(tmp_path):
    values = {f"t{i}": torch.full((200_000,), float(i)) for i in range(4)}
    save_file(values, tmp_path / "file.safetensors")
    file = TensorFile(tmp_path / "file.safetensors")
    try:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(file.read, [*values] * 25))
    finally:
        file.close()
    assert all(torch.equal(got, wanted) for got, wanted in zip(found, [*values.values()] * 25, strict=True))
