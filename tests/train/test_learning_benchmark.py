"""The learning benchmark: it works end to end, and its assertions can fail."""

import json
import math
from pathlib import Path

import pytest
import torch

from benchmarks.learning import __main__ as command
from benchmarks.learning.matrix import ADAMW, GOALS, LOCO, LOCO_LONE, LOCO_MIXED, MATRIX, Goal
from benchmarks.learning.one_run import NotTrained, check_updates, train_row
from benchmarks.learning.report import verdict, write_report
from benchmarks.learning.results import Estimate, Results
from benchmarks.learning.rows import QUICK, Scale, identity, spec_of


@pytest.mark.slow
def test_the_command_trains_reports_and_resumes(tmp_path, monkeypatch, capsys):
    arguments = [
        "--quick",
        "--only",
        "loco-mixed,adamw",
        "--seeds",
        "1",
        "--workers",
        "1",
        "--out",
        str(tmp_path),
    ]
    assert command.main(arguments) == 0
    assert "[2/2]" in capsys.readouterr().out
    results = sorted((tmp_path / "learning" / "results").glob("*.json"))
    assert [path.name.split("-1-")[0] for path in results] == ["adamw", "loco-mixed"]
    mixed = json.loads(results[1].read_text())
    assert set(mixed["loss"]) == {"0", "1"}
    assert [point["round"] for point in mixed["curve"]] == [3, 6]
    assert 0 < mixed["bytes_per_parameter"] < 0.2
    page = (tmp_path / "learning.md").read_text()
    assert "not measured yet" in page
    assert f"{mixed['loss']['1']:.3f}" in page
    assert (tmp_path / "learning" / "strategies.png").stat().st_size > 5000
    monkeypatch.setattr(command, "train_all", lambda wanted, *_rest: len(wanted))
    assert command.main(arguments) == 0  # nothing was left to train


@pytest.mark.parametrize("change", ["weight", "slice"])
def test_a_member_whose_weights_differ_in_a_bit_is_found(change):
    def flip(run):
        if len(run.log) == 4:
            member = run.members[1]
            name = "lm_head.weight" if change == "weight" else "model.layers.0.mlp.down_proj.weight"
            with torch.no_grad():
                member.held.loaded().weights[name].view(torch.int32)[0, 0] ^= 1
            member.held.changed()

    with pytest.raises(NotTrained, match="tier 1 holds other weights"):
        train_row(LOCO_MIXED, QUICK, 1, watch=flip)


def test_a_fold_that_changes_nothing_is_found(monkeypatch):
    monkeypatch.setattr("psyche_train.strategies.sparseloco.SparseLoCo.fold", lambda *_args, **_kwargs: None)
    with pytest.raises(NotTrained, match="round 3 changed no weight"):
        train_row(LOCO, QUICK, 1)


def test_empty_and_copied_updates_are_found():
    check_updates({0: b"a", 1: b"b"})
    with pytest.raises(NotTrained, match="empty"):
        check_updates({0: b"a", 1: b""})
    with pytest.raises(NotTrained, match="same"):
        check_updates({0: b"a", 1: b"a"})


def test_rows_are_valid_and_named_once():
    assert len({row.name for row in MATRIX}) == len(MATRIX)
    for row in MATRIX:
        assert round(Scale().samples * row.share) % len(row.tiers) == 0
        assert spec_of(row, Scale(), 1).matformer.max_tier == max(row.tiers)
    names = {identity(row, Scale(), seed) for row in MATRIX for seed in (1, 2)}
    assert len(names) == 2 * len(MATRIX)


def test_intervals_are_students(tmp_path):
    estimate = Estimate.of([1.0, 2.0, 3.0])
    assert estimate.mean == 2.0
    assert estimate.half == pytest.approx(4.303 / math.sqrt(3))
    assert estimate.text(2) == "2.00 ± 2.48"
    assert Estimate.of([1.5]).text(1) == "1.5"


@pytest.mark.parametrize(
    ("mean", "half", "at_most", "expected"),
    [
        (0.0, 0.005, True, "reached"),
        (0.02, 0.005, True, "not reached"),
        (0.008, 0.005, True, "reached by the mean; the interval does not decide"),
        (0.012, 0.005, True, "not reached by the mean; the interval does not decide"),
        (0.0, math.inf, True, "reached by the mean; the interval does not decide"),
        (0.02, 0.005, False, "reached"),
        (0.008, 0.001, False, "not reached"),
    ],
)
def test_only_an_interval_on_one_side_decides(mean, half, at_most, expected):
    goal = Goal("", 0.01, lambda _results: None, at_most)
    assert verdict(goal, Estimate(mean, half, 3)) == expected


def test_figures_are_compared_seed_by_seed(tmp_path):
    results = Results(tmp_path / "learning" / "results", QUICK, (1, 2))
    for row, losses in (
        (LOCO, (2.0, 3.0)),
        (LOCO_MIXED, (2.2, 3.3)),
        (LOCO_LONE, (3.0, 4.5)),
        (ADAMW, (2.0,)),
    ):
        for seed, loss in enumerate(losses, start=1):
            curve = [{"round": 6, "loss": {"0": loss}, "train": loss}]
            result = {"loss": {"0": loss}, "curve": curve, "bytes_per_parameter": 0.02}
            results.put(row, seed, result)
    assert results.excess(LOCO_MIXED, LOCO).mean == pytest.approx(0.1)
    assert results.excess(LOCO_MIXED, LOCO).half == pytest.approx(0, abs=1e-9)
    assert results.helpers(LOCO_MIXED, LOCO, LOCO_LONE).mean == pytest.approx(0.8)
    assert results.excess(LOCO, ADAMW).count == 1
    assert GOALS[0].measure(Results(tmp_path / "other", QUICK, (1,))) is None
    write_report(tmp_path, results)
    assert "| 80.0 ± 0.0 % | 2 | not reached |" in (tmp_path / "learning.md").read_text()


def test_the_report_keeps_the_prose_and_refuses_a_page_without_marks(tmp_path):
    results = Results(tmp_path / "learning" / "results", QUICK, (1,))
    write_report(tmp_path, results)
    page = Path(tmp_path / "learning.md")
    page.write_text(page.read_text() + "\nWords.\n")
    write_report(tmp_path, results)
    assert page.read_text().endswith("\nWords.\n")
    page.write_text("# Nothing\n")
    with pytest.raises(SystemExit, match="marks"):
        write_report(tmp_path, results)
