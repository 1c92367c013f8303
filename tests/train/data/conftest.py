"""Every test of the data has a cache of its own."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the data cache."""
    folder = tmp_path / "data-cache"
    monkeypatch.setenv("PSYCHE_DATA_CACHE", str(folder))
    return folder
