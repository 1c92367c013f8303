"""Local files: plain and prepared, order, hashes, damage, memory."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from psyche_train.blobs import PIECE, Manifest
from psyche_train.data.dataset import Dataset
from psyche_train.data.errors import DataError
from psyche_train.data.local import open_local
from psyche_train.data.manifest import DataManifest, ShardEntry
from tests.train.data.shards import tokens_of, write_prepared


def local(path: Path, **more):
    return {"Local": {"path": str(path), **more}}


def read_all(source):
    return source.read(np.zeros(1, dtype=np.int64), source.num_tokens)[0]


@pytest.mark.parametrize("dtype", ["<u1", "<u2", "<u4", "<i4", "<i8"])
def test_npy_file_says_its_own_width(tmp_path: Path, dtype):
    tokens = tokens_of(1000)
    np.save(tmp_path / "t.npy", tokens.astype(dtype))
    assert read_all(open_local(tmp_path / "t.npy", None)).tolist() == tokens.tolist()


def test_npy_and_bin_of_the_same_tokens_have_the_same_manifest(tmp_path: Path):
    tokens = tokens_of(1000).astype("<u2")
    np.save(tmp_path / "t.npy", tokens)
    tokens.tofile(tmp_path / "t.bin")
    one, other = (open_local(tmp_path / name, None).manifest for name in ("t.npy", "t.bin"))
    assert one == other == write_prepared(tmp_path / "prepared", tokens)


@pytest.mark.parametrize("suffix", [".bin", ".npy"])
def test_local_file_is_read_and_checked(make_spec, tmp_path: Path, suffix):
    path = tmp_path / f"tokens{suffix}"
    tokens = tokens_of(20_000).astype(np.uint16)
    np.save(path, tokens) if suffix == ".npy" else tokens.tofile(path)
    spec = make_spec(data_location=local(path, validation_fraction=0.1)).resolve()
    assert len(spec.data_location.chosen.manifest) == 64
    data = Dataset(spec, 160)
    rows = {tuple(row) for row in tokens[: 20_000 // 17 * 17].reshape(-1, 17).tolist()}
    assert {tuple(row) for row in data.batch([range(data.num_train)]).tolist()} < rows
    with pytest.raises(DataError, match="vocabulary has 100"):
        Dataset(spec, 100)
    with path.open("r+b") as file:
        file.seek(-2, 2)
        file.write(b"\x01")
    with pytest.raises(DataError, match="published"):
        Dataset(spec, 160)


def test_folder_is_read_in_the_order_of_names_whatever_the_disk_says(tmp_path: Path):
    parts = {name: tokens_of(100, seed) for seed, name in enumerate(["b.bin", "a10.bin", "a9.bin", "c.npy"])}
    for name, part in parts.items():
        if name.endswith("npy"):
            np.save(tmp_path / name, part.astype("<u2"))
        else:
            part.astype("<u2").tofile(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not data")
    (tmp_path / ".hidden.bin").write_bytes(b"ab")
    expected = np.concatenate([parts[name] for name in sorted(parts)])
    assert read_all(open_local(tmp_path, None)).tolist() == expected.tolist()


@given(st.lists(st.integers(1, 999), max_size=5, unique=True), st.integers(0, 990), st.integers(1, 10))
def test_windows_run_over_the_ends_of_shards(tmp_path_factory, cuts, start, length):
    folder = tmp_path_factory.mktemp("cuts")
    tokens = tokens_of(1000)
    write_prepared(folder, tokens, sorted(cuts))
    found = open_local(folder, None).read(np.array([start, 0]), length)
    assert found.tolist() == [tokens[start : start + length].tolist(), tokens[:length].tolist()]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.bin", None, "neither a file nor a folder"),
        ("odd.bin", b"abc", "multiple of 2"),
        ("empty.bin", b"", "multiple of 2"),
        ("text.txt", b"ab", "are read"),
        ("short.bin", b"ab" * 40, "too few"),
        ("not.npy", b"PK\x03\x04" * 40, "not an array of numpy"),
        ("cut.npy", b"\x93NUMPY\x01\x00", "not an array of numpy"),
    ],
)
def test_broken_local_file_is_refused(make_spec, tmp_path: Path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        Dataset(make_spec(data_location=local(path)), 65_536)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4, 4), dtype=np.uint16), "2 dimensions"),
        (np.zeros(4, dtype=np.float32), "float32"),
        (np.zeros(4, dtype=">u2"), "big-endian"),
        (np.array([{"a": 1}], dtype=object), "not a list of integers"),
        (-np.ones(40_000, dtype=np.int32), "the model's vocabulary has 160"),
    ],
)
def test_array_of_something_else_is_refused(make_spec, tmp_path: Path, array, message):
    np.save(tmp_path / "t.npy", array, allow_pickle=True)
    with pytest.raises(DataError, match=message):
        Dataset(make_spec(data_location=local(tmp_path / "t.npy")), 160)


def test_npy_file_that_was_cut_is_refused(tmp_path: Path):
    np.save(tmp_path / "t.npy", np.zeros(4000, dtype=np.uint16))
    data = (tmp_path / "t.npy").read_bytes()
    (tmp_path / "t.npy").write_bytes(data[:-1000])
    with pytest.raises(DataError, match="cut short"):
        open_local(tmp_path / "t.npy", None)


def test_plain_file_is_hashed_once_and_again_when_it_changes(tmp_path: Path, monkeypatch):
    from psyche_train.data import local as module

    scans = []
    scan = module._scan
    monkeypatch.setattr(module, "_scan", lambda *args: scans.append(args) or scan(*args))
    tokens_of(5000).astype("<u2").tofile(tmp_path / "t.bin")
    first = open_local(tmp_path / "t.bin", None).manifest
    assert open_local(tmp_path / "t.bin", None).manifest == first
    assert len(scans) == 1
    assert open_local(tmp_path / "t.bin", "OneByte").manifest.num_tokens == 10_000
    tokens_of(5000, seed=1).astype("<u2").tofile(tmp_path / "t.bin")
    assert open_local(tmp_path / "t.bin", None).manifest != first
    assert len(scans) == 3


def prepared_spec(make_spec, folder: Path):
    return make_spec(data_location=local(folder)).resolve()


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """Three shards of a few pieces."""
    write_prepared(tmp_path / "data", tokens_of(400_000), [150_000, 300_000])
    return tmp_path / "data"


def test_damage_behind_an_unchanged_manifest_names_file_and_samples(make_spec, prepared: Path):
    spec = prepared_spec(make_spec, prepared)
    with (prepared / "shard-00001.bin").open("r+b") as file:
        file.seek(1000)
        file.write(b"\xff")
    data = Dataset(spec, 160)
    everything = range(0, data.num_train, 9)
    with pytest.raises(
        DataError, match=r"samples \d+, .* more cannot be read: .*shard-00001\.bin, bytes 0 to"
    ):
        data.batch([range(data.num_train)])
    fine, hit = [], []
    for number in everything:
        try:
            data.batch([range(number, number + 1)])
            fine.append(number)
        except DataError as error:
            assert f"samples {number} cannot be read" in str(error)  # noqa: PT017
            hit.append(number)
    assert len(hit) == pytest.approx(PIECE / 2 / 17 / 9 * 0.95, rel=0.1)
    assert data.batch([range(n, n + 1) for n in fine]).shape == (len(fine), 17)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("shard-00002.bin", None, r"shard-00002\.bin is missing, the manifest says 3 shards"),
        ("shard-00002.bin", b"ab", r"shard-00002\.bin has 2 bytes, the manifest says 200000"),
        ("manifest.json", b"{}", "is manifest .* the run's data have"),
        ("shard-00000.bin.pieces", None, r"pieces cannot be read: No such file"),
        ("shard-00000.bin.pieces", b"abc", r"pieces cannot be read: a manifest cannot be 3 bytes"),
        ("shard-00000.bin.pieces", Manifest.of_bytes(b"other").to_bytes(), "are not those of the run's data"),
    ],
)
def test_incomplete_prepared_data_are_refused(make_spec, prepared: Path, name, content, message):
    spec = prepared_spec(make_spec, prepared)
    if content is None:
        (prepared / name).unlink()
    else:
        (prepared / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        Dataset(spec, 160).batch([range(20_000)])


def test_token_size_that_contradicts_the_manifest_is_refused(make_spec, prepared: Path):
    with pytest.raises(DataError, match="leave token_size_in_bytes out"):
        make_spec(data_location=local(prepared, token_size_in_bytes="FourBytes")).resolve()


def test_manifest_that_promises_too_low_tokens_is_found_out_at_the_batch(make_spec, tmp_path: Path):
    honest = write_prepared(tmp_path / "d", tokens_of(40_000))
    lying = DataManifest(honest.token_bytes, 10, honest.shards)
    (tmp_path / "d" / "manifest.json").write_bytes(lying.to_bytes())
    data = Dataset(prepared_spec(make_spec, tmp_path / "d"), 100)
    with pytest.raises(DataError, match=r"samples .* hold token 1\d\d, the model's vocabulary has 100"):
        data.batch([range(50)])


def test_memory_is_bounded_on_a_data_set_of_32_gib(make_spec, tmp_path: Path):
    length = 8 << 30
    pieces = Manifest(length, (Manifest.of_bytes(bytes(PIECE)).digests[0],) * (length // PIECE))
    folder = tmp_path / "large"
    folder.mkdir()
    for number in range(4):
        path = folder / f"shard-{number:05}.bin"
        with path.open("wb") as file:
            file.truncate(length)
        path.with_name(path.name + ".pieces").write_bytes(pieces.to_bytes())
    manifest = DataManifest(2, 0, (ShardEntry(pieces.id, length),) * 4)
    (folder / "manifest.json").write_bytes(manifest.to_bytes())
    spec = make_spec(data_location=local(folder))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    data = Dataset(spec, 160)
    assert data.num_train + data.num_held_out == (32 << 30) // 2 // 17
    assert not data.batch([range(300), range(10**9, 10**9 + 300)]).any()
    assert data.validation(64).shape == (64, 17)
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown_mib < 150


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=70),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=16), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from(["format", "token_bytes", "highest_token", "sequence_tokens", "shards"]),
        json_like
        | st.just("psyche-data-1")
        | st.lists(st.tuples(st.just("ab" * 32), st.integers()), max_size=2),
    )
)
def test_any_object_is_a_manifest_or_a_named_error(tables):
    import json

    data = json.dumps(tables, separators=(",", ":")).encode()
    try:
        manifest = DataManifest.from_bytes(data, "there")
    except DataError as error:
        assert str(error).startswith("there is not a data manifest")  # noqa: PT017
    else:
        assert manifest.to_bytes() == data


@given(st.binary(max_size=300), st.data())
def test_damaged_manifest_is_a_named_error(noise, data):
    good = DataManifest(2, 5, (ShardEntry(b"\x01" * 32, 10), ShardEntry(b"\x02" * 32, 8))).to_bytes()
    at = data.draw(st.integers(0, len(good) - 1))
    bad = data.draw(st.sampled_from([noise, good[:at], good[:at] + noise + good[at + 1 :], b"[" * 50_000]))
    try:
        manifest = DataManifest.from_bytes(bad, "there")
    except DataError:
        return
    assert manifest.to_bytes() == bad


def test_opening_local_data_imports_neither_datasets_nor_pyarrow():
    code = "import sys, psyche_train.data.dataset; sys.exit('datasets' in sys.modules or 'pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path.cwd(), check=False).returncode == 0
