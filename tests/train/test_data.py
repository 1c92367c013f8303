"""Data: hashes, held-out windows, the shuffle."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from psyche_train.data.dataset import Dataset
from psyche_train.data.shuffle import Shuffle
from psyche_train.data.source import DataError, read_tokens, stdlib_text


@given(st.integers(1, 3000), st.binary(max_size=8))
def test_shuffle_is_a_permutation(size, seed):
    assert sorted(Shuffle(size, seed)(np.arange(size)).tolist()) == list(range(size))


def test_shuffle_golden():
    assert Shuffle(1000, b"seed")(np.arange(6)).tolist() == [932, 510, 578, 366, 613, 332]


def test_a_pass_takes_every_training_window_once_and_no_held_out_one(spec):
    data = Dataset(spec, 160)
    first = data.batch([range(0, data.num_train)])
    again = data.batch([range(data.num_train, 2 * data.num_train)])
    assert not np.array_equal(first.numpy(), again.numpy())
    starts = data._train_window(np.arange(data.num_train))
    assert len(set(starts.tolist())) == data.num_train
    assert not set(starts.tolist()) & set(data._validation.tolist())
    assert len(starts) + len(data._validation) == 100_000 // 17
    key = [tuple(row) for row in first.tolist()]
    assert sorted(key) == sorted(tuple(row) for row in again.tolist())


def test_batch_depends_on_sample_numbers_alone(spec):
    data = Dataset(spec, 160)
    whole = data.batch([range(10, 30)])
    parts = data.batch([range(20, 30), range(10, 20)])
    assert np.array_equal(whole[10:].numpy(), parts[:10].numpy())
    assert data.batch([range(3 * 10**12, 3 * 10**12 + 2)]).shape == (2, 17)


def test_stdlib_text_is_sorted_and_leaves_out_tests_and_generated_files(tmp_path: Path):
    for name in ("b.py", "a/z.py", "a/test/t.py", "site-packages/p.py", "_sysconfigdata_x.py", "c.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode() + b"\r\n")
    assert stdlib_text(1000, tmp_path) == b"a/z.py\nb.py\n"
    assert stdlib_text(9, tmp_path) == b"a/z.py\nb."
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no \.py files"):
        stdlib_text(10, tmp_path / "empty")


def test_another_stdlib_is_refused_with_what_to_do(make_spec):
    stdlib = {"Stdlib": {"max_bytes": 50_000, "sha256": "ab" * 32, "python": "3.99.1"}}
    with pytest.raises(DataError, match=r"Join with Python 3\.99\.1"):
        Dataset(make_spec(data_location=stdlib), 256)


def test_stdlib_resolves_to_its_hash(make_spec):
    spec = make_spec(
        data_location={"Stdlib": {"max_bytes": 50_000}}, checkpoint={"Init": {"vocab_size": 256}}
    ).resolve()
    assert len(spec.data_location.chosen.sha256) == 64
    assert spec.data_location.chosen.python
    assert Dataset(spec, 256).num_train > 1000


@pytest.mark.parametrize("suffix", [".bin", ".npy"])
def test_local_file_is_read_and_checked(make_spec, tmp_path: Path, suffix):
    path = tmp_path / f"tokens{suffix}"
    tokens = (np.arange(20_000) % 150).astype(np.uint16)
    if suffix == ".npy":
        np.save(path, tokens)
    else:
        tokens.tofile(path)
    table = {"Local": {"path": str(path), "validation_fraction": 0.1}}
    spec = make_spec(data_location=table).resolve()
    assert read_tokens(spec.data_location.chosen)[0].tolist() == tokens.tolist()
    data = Dataset(spec, 160)
    assert int(data.batch([range(5)]).max()) < 150
    with pytest.raises(DataError, match="vocabulary has 100"):
        Dataset(spec, 100)
    with path.open("r+b") as file:
        file.seek(-2, 2)
        file.write(b"\x01")
    with pytest.raises(DataError, match="published"):
        Dataset(spec, 160)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.bin", None, "not a file"),
        ("odd.bin", b"abc", "multiple of 2"),
        ("text.txt", b"ab", "are read"),
        ("short.bin", b"ab" * 40, "too few"),
    ],
)
def test_broken_local_file_is_refused(make_spec, tmp_path: Path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        Dataset(make_spec(data_location={"Local": {"path": str(path)}}), 65_536)
