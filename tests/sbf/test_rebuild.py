"""The committed programs, byte for byte, from their sources."""

import subprocess
from pathlib import Path

import pytest
from sbf_toolchain.driver import ROOT


@pytest.mark.slow
@pytest.mark.xdist_group("toolchain")
def test_committed_programs_equal_a_rebuild_in_another_folder(toolchain: Path) -> None:
    """Takes some minutes the first time (dependencies), half a minute later; skipped without the packages."""
    result = subprocess.run(
        [ROOT / "programs" / "build.py", "--check"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-4000:]
    assert "equal to what their sources give" in result.stderr
