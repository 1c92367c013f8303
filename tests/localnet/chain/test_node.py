"""Solana's JavaScript clients: web3.js with spl-token, and kit."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from localnet.chain.process import ChainProcess
from tests.node_packages import node_modules

HERE = Path(__file__).parent / "node"


@pytest.fixture(scope="module")
def node_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the locked packages; skips where they cannot be had."""
    packages = node_modules(HERE)
    run_dir = tmp_path_factory.mktemp("node")
    (run_dir / "node_modules").symlink_to(packages)
    return run_dir


@pytest.mark.parametrize("script", ["web3.mjs", "kit.mjs"])
def test_javascript_client_does_its_work(script: str, node_dir: Path, tmp_path: Path) -> None:
    shutil.copy(HERE / script, node_dir / script)
    with ChainProcess(tmp_path, slot_ms=100) as chain:
        command = ["node", script, chain.url, chain.ws_url]
        done = subprocess.run(command, cwd=node_dir, capture_output=True, text=True, timeout=180)
        log = chain.log_path.read_text()
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{log}"
    assert done.stdout.strip() == "ok"
    assert "Traceback" not in log
