"""A bounded form of the scenarios of churn and bad networks; `python -m benchmarks.churn` plays all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.churn import network
from benchmarks.churn.__main__ import play_all
from benchmarks.churn.scenarios import SCENARIOS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]

BOUNDED = ("asleep", "loss-30", "partition")


async def test_a_sleeper_loss_and_a_partition_leave_weights_pay_and_samples_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "PARTITION_S", 6.0)
    results = await play_all([SCENARIOS[name] for name in BOUNDED], tmp_path, seed=1, kind="proxy")
    assert [(name, outcome) for name, outcome, _seen, _s in results] == [(n, "ok") for n in BOUNDED], results
