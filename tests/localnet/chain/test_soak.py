"""Memory and disk stay bounded, and what is no longer kept is answered as a validator answers it."""

from __future__ import annotations

from pathlib import Path

import pytest

from .soak import KEEP_SLOTS, run


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read from /proc")
def test_memory_and_disk_stay_flat_and_old_blocks_are_cleaned_up(tmp_path: Path) -> None:
    found = run(tmp_path, slots=1_800)
    memory, disk = found.growth()
    assert memory < 1.15, found.samples
    assert disk < 1.15, found.samples
    error = found.pruned_block["error"]
    assert error["code"] == -32001
    assert error["message"].startswith("Block 1 cleaned up, does not exist on node. First available block: ")
    assert found.pruned_transaction is None
    assert found.oldest >= 1_800 - KEEP_SLOTS - 400
