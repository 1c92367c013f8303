"""Whole runs through the launcher, in each of which one member is killed at a random moment.

Two seeds here; `make kill-seeds` runs twenty.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.kill_seeds import one

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.timeout(420)
@pytest.mark.parametrize("seed", [1, 5])
def test_a_killed_member_ends_with_the_weights_of_the_others(seed: int, tmp_path: Path) -> None:
    assert one(seed, ROOT / "config/kill.toml", "0,1,1", tmp_path, 20.0) == []
    summary = json.loads((tmp_path / f"seed-{seed}" / "summary.json").read_text())
    assert summary["kills"] == 1
    assert [m["restarts"] for m in summary["members"]].count(1) == 1
    full, *halves = summary["members"]
    assert full["weights_sha256"] == summary["chain"]["weights_sha256"]
    assert len({m["weights_sha256"] for m in halves}) == 1
    assert summary["chain"]["funded"] == summary["chain"]["paid"] + summary["chain"]["left_in_vault"]
