"""One tiny run per strategy for all tests of a module."""

from __future__ import annotations

import pytest

from psyche_train.local_run import LocalRun
from tests.train.strategies.cases import trained


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Return a function from a strategy's name to its run; runs are shared and must not be changed."""
    found: dict[str, LocalRun] = {}

    def run(kind: str) -> LocalRun:
        if kind not in found:
            found[kind] = trained(kind, tmp_path_factory.mktemp(kind))
        return found[kind]

    return run
