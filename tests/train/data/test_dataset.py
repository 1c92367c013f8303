"""Data: hashes, held-out windows, the shuffle."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from psyche_train.data.dataset import Dataset
from psyche_train.data.errors import DataError
from psyche_train.data.labels import IGNORED, inputs_and_labels
from psyche_train.data.shuffle import Shuffle
from psyche_train.data.split import BLOCK, Split
from psyche_train.data.stdlib import stdlib_text
from psyche_train.trainer import Trainer


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
    assert data.num_train + data.num_held_out == 100_000 // 17
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
    stdlib = {"Stdlib": {"max_bytes": 50_000, "manifest": "ab" * 32, "python": "3.99.1"}}
    with pytest.raises(DataError, match=r"from peers; elsewhere use Python 3\.99\.1"):
        Dataset(make_spec(data_location=stdlib), 256)


def test_stdlib_resolves_to_its_hash(make_spec):
    spec = make_spec(
        data_location={"Stdlib": {"max_bytes": 50_000}}, checkpoint={"Init": {"vocab_size": 256}}
    ).resolve()
    assert len(spec.data_location.chosen.manifest) == 64
    assert spec.data_location.chosen.python
    assert Dataset(spec, 256).num_train > 1000


@given(st.integers(1, 10**6), st.integers(2, 50), st.integers(2, 40))
def test_split_is_a_partition_with_the_wanted_share_held_out(num_tokens, window, period):
    try:
        split = Split.of(num_tokens, window, 1 / period)
    except ValueError as error:
        assert "too few" in str(error)  # noqa: PT017
        assert num_tokens // window <= BLOCK * (period - 1)
        return
    trained = split.train_window(np.arange(min(split.num_train, 5000)))
    held_out = split.held_out_window(np.arange(min(split.num_held_out, 5000)))
    assert split.num_train + split.num_held_out == num_tokens // window
    assert not set(trained.tolist()) & set(held_out.tolist())
    assert max(split.train_window(split.num_train - 1), split.held_out_window(split.num_held_out - 1)) == (
        num_tokens // window - 1
    )
    assert split.num_held_out <= split.num_windows / period + BLOCK


def test_invented_data_that_are_too_few_are_refused_with_the_specification(make_spec):
    with pytest.raises(ValueError, match=r"data_location\.Dummy: 1000 tokens are too few for windows of 17"):
        make_spec(data_location={"Dummy": {"num_tokens": 1000}})
    smallest = (32 * 19 + 1) * 17
    assert make_spec(data_location={"Dummy": {"num_tokens": smallest}}).resolve()
    with pytest.raises(ValueError, match=f"use at least {smallest} tokens"):
        make_spec(data_location={"Dummy": {"num_tokens": smallest - 1}})
    init = {"hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 128}
    with pytest.raises(ValueError, match=r"a token is 128, checkpoint\.Init\.vocab_size is 128"):
        make_spec(checkpoint={"Init": init})
    assert make_spec(checkpoint={"Init": {**init, "vocab_size": 129}}).resolve()


def test_sample_numbers_beyond_all_sense_are_an_error(spec):
    with pytest.raises(DataError, match="no run trains so many"):
        Dataset(spec, 160).batch([range(2**63, 2**63 + 1)])


def test_windows_can_hide_tokens_from_the_loss():
    windows = torch.tensor([[5, 6, -107, -100, 9]])
    inputs, labels = inputs_and_labels(windows)
    assert inputs.tolist() == [[5, 6, 7, 0]]
    assert labels.tolist() == [[6, IGNORED, IGNORED, 9]]


def test_hidden_tokens_are_read_and_not_learned(spec, tmp_path):
    member = Trainer(spec, tier=0, run=bytes(32), state_dir=tmp_path, device="cpu", threads=1)
    member.load()
    learner = member.held.loaded().learner
    windows = torch.randint(0, 150, (3, 17), generator=torch.Generator().manual_seed(1))
    hidden = windows.clone()
    hidden[0, :9] = IGNORED - windows[0, :9]
    hidden[2, 12:] = IGNORED - windows[2, 12:]
    with torch.no_grad():
        logits = learner.model(input_ids=windows[:, :-1]).logits
    each = torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten(), reduction="none")
    counted = (hidden[:, 1:] >= 0).flatten()
    assert counted.sum() == 3 * 16 - 8 - 5
    assert learner.loss(hidden) == pytest.approx(float(each[counted].mean()), rel=1e-5)
    loss, _ = learner.gradients(hidden, cancelled=lambda: False, clip_norm=None)
    assert loss == pytest.approx(learner.loss(hidden), rel=1e-5)
