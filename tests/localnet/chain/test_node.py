"""Solana's JavaScript clients: web3.js with spl-token, and kit."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from localnet.chain.process import ChainProcess

HERE = Path(__file__).parent / "node"
LEAST_NODE = 20


@pytest.fixture(scope="module")
def node_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the locked packages installed, kept between runs; skips where that cannot be had."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("node and npm are not installed: the JavaScript clients are not tested")
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.lstrip("v").split(".")[0]) < LEAST_NODE:
        pytest.skip(f"node is {version.strip()}, the JavaScript clients need {LEAST_NODE}")
    lock = (HERE / "package-lock.json").read_bytes()
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "psyche-tests"
    folder = base / f"node-{hashlib.sha256(lock).hexdigest()[:16]}"
    if not (folder / "installed").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, folder / name)
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
        if done.returncode != 0:
            pytest.skip(f"npm could not install the JavaScript clients: {done.stderr.strip()[-300:]}")
        (folder / "installed").touch()
    run_dir = tmp_path_factory.mktemp("node")
    (run_dir / "node_modules").symlink_to(folder / "node_modules")
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
