"""Fixtures for tests that need the compiler packages; they skip, with the reason, where those are absent."""

from pathlib import Path

import pytest
from sbf_toolchain import cache, tools
from sbf_toolchain.errors import ToolchainError


@pytest.fixture(scope="session")
def toolchain() -> Path:
    """The prepared toolchain's folder; made first if it is not there (a minute or two)."""
    try:
        found = tools.find_tools()
    except ToolchainError as error:
        pytest.skip(f"the program toolchain is not installed: {error}")
    return cache.prepare(found, "2")
