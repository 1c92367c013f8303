"""Mixtures: exact proportions over every prefix, the same on every machine, shuffled source by source."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from psyche_train.data.dataset import Dataset
from psyche_train.data.errors import DataError
from psyche_train.data.mixture import Interleave
from tests.train.data.shards import tokens_of, write_prepared


@given(st.lists(st.integers(1, 60), min_size=1, max_size=9))
@example([1, 59, 1, 59, 1, 7, 13])
@example([6, 3, 2, 1])
def test_every_prefix_has_each_sources_share_within_one(weights):
    order = Interleave(weights)
    total, places = sum(weights), 2 * sum(weights) + 5
    source, rank = order(np.arange(places))
    counts = [0] * len(weights)
    for n, (i, j) in enumerate(zip(source.tolist(), rank.tolist(), strict=True), start=1):
        assert j == counts[i]  # the samples of a source come in order, none twice
        counts[i] += 1
        for weight, count in zip(weights, counts, strict=True):
            assert abs(count - Fraction(n * weight, total)) < 1


@given(st.lists(st.integers(1, 500), min_size=1, max_size=5), st.integers(0, 2**50))
def test_any_place_is_found_without_counting(weights, start):
    order = Interleave(weights)
    whole_source, whole_rank = order(np.arange(start, start + 20))
    for at in (0, 7, 19):
        source, rank = order(np.array([start + at]))
        assert (source[0], rank[0]) == (whole_source[at], whole_rank[at])


def test_interleave_golden():
    source, rank = Interleave([2, 4, 6])(np.arange(12))
    assert source.tolist() == [2, 1, 2, 0, 1, 2, 2, 1, 2, 0, 1, 2]
    assert rank.tolist() == [0, 0, 1, 0, 1, 2, 3, 2, 4, 1, 3, 5]


@pytest.fixture
def three(tmp_path: Path):
    """Sources whose tokens tell them apart: below 40, 40 to 79, and Dummy's (32 to 128)."""
    write_prepared(tmp_path / "a", tokens_of(60_000, 0, 30), [7000])
    np.save(tmp_path / "b.npy", (tokens_of(13_000, 1, 10) + 140).astype("<u2"))
    return {
        "Weighted": {
            "sources": [
                {"weight": 5, "Local": {"path": str(tmp_path / "a")}},
                {"weight": 3, "Local": {"path": str(tmp_path / "b.npy"), "validation_fraction": 0.1}},
                {"weight": 1, "Dummy": {"num_tokens": 50_000}},
            ]
        }
    }


def kind_of(row: np.ndarray) -> int:
    return 0 if row[0] < 30 else 1 if row[0] >= 140 else 2


def test_mixture_takes_its_sources_in_turn_and_each_sources_passes_are_whole(make_spec, three):
    spec = make_spec(data_location=three).resolve()
    assert [len(s.chosen.manifest) for s in spec.data_location.Weighted.sources[:2]] == [64, 64]
    data = Dataset(spec, 160)
    samples = data.batch([range(9 * 400)]).numpy()
    kinds = np.array([kind_of(row) for row in samples])
    assert np.bincount(kinds).tolist() == [5 * 400, 3 * 400, 400]
    first = {tuple(row) for row in samples[kinds == 1][:609].tolist()}
    second = {tuple(row) for row in samples[kinds == 1][-400:].tolist()}
    ratio = Dataset(
        make_spec(data_location={"Local": three["Weighted"]["sources"][1]["Local"]}), 160
    ).num_train
    assert len({tuple(row) for row in samples[kinds == 1][:ratio].tolist()}) == ratio
    assert second <= {tuple(row) for row in samples[kinds == 1].tolist()}
    held_out = data.validation(90).numpy()
    assert np.bincount([kind_of(row) for row in held_out]).tolist() == [50, 30, 10]
    trained = {tuple(row) for row in samples.tolist()}
    assert not trained & {tuple(row) for row in held_out[[kind_of(r) != 2 for r in held_out]].tolist()}
    assert first


def test_mixture_depends_on_sample_numbers_alone(make_spec, three):
    data = Dataset(make_spec(data_location=three), 160)
    whole = data.batch([range(1000, 1100)])
    assert (data.batch([range(1090, 1100), range(1000, 1090)])[10:] == whole[:90]).all()
    assert (Dataset(make_spec(data_location=three), 160).batch([range(1000, 1100)]) == whole).all()


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ([{"weight": 1, "Dummy": {}}], "at least 2"),
        ([{"weight": 0, "Dummy": {}}, {"weight": 1, "Dummy": {}}], "greater than or equal to 1"),
        ([{"weight": 0.5, "Dummy": {}}, {"weight": 1, "Dummy": {}}], "integer"),
        ([{"Dummy": {}}, {"weight": 1, "Dummy": {}}], "weight"),
        ([{"weight": 1}, {"weight": 1, "Dummy": {}}], "choose exactly one of Stdlib, Local"),
        (
            [{"weight": 65_536, "Dummy": {}}, {"weight": 1, "Dummy": {}}],
            "sum to 65537, allowed is up to 65536",
        ),
        ([{"weight": 1, "Dummy": {}, "Weighted": {}}, {"weight": 1, "Dummy": {}}], "Weighted"),
    ],
)
def test_impossible_mixture_is_refused(make_spec, sources, message):
    with pytest.raises(ValueError, match=message):
        make_spec(data_location={"Weighted": {"sources": sources}})


def test_source_of_a_mixture_that_is_missing_is_named(make_spec, three, tmp_path: Path):
    spec = make_spec(data_location=three).resolve()
    (tmp_path / "b.npy").unlink()
    with pytest.raises(DataError, match=r"b\.npy is neither a file nor a folder here"):
        Dataset(spec, 160)


def test_specification_with_a_mixture_round_trips(make_spec, three):
    spec = make_spec(data_location=three).resolve()
    assert type(spec).from_bytes(spec.to_bytes()) == spec
