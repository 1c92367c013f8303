"""The launcher against the reference validator: the same programs, the same clients, the same summary.

Needs `solana-test-validator` on PATH; nothing else in the project does.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from localnet.chain.process import free_port

ROOT = Path(__file__).resolve().parents[2]
VALIDATOR = shutil.which("solana-test-validator")
START_S = 120.0


def healthy(url: str) -> bool:
    """Whether the validator says that it is."""
    request = urllib.request.Request(
        url, b'{"jsonrpc":"2.0","id":1,"method":"getHealth"}', {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return bool(json.load(answer).get("result") == "ok")
    except (OSError, ValueError):
        return False


@pytest.fixture
def validator(tmp_path: Path) -> Iterator[str]:
    """URL of a fresh validator with a faucet; stopped by its process id."""
    assert VALIDATOR is not None
    port = free_port()
    with socket.socket() as chooser:
        chooser.bind(("127.0.0.1", 0))
        faucet = chooser.getsockname()[1]
    with (tmp_path / "validator.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(VALIDATOR, "--quiet", "--reset", "--ledger", str(tmp_path / "ledger")),
                *("--rpc-port", str(port), "--faucet-port", str(faucet)),
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + START_S
        while not healthy(url):
            assert process.poll() is None, (tmp_path / "validator.log").read_text()
            assert time.monotonic() < deadline, "the validator did not start"
            time.sleep(0.5)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.mark.slow
@pytest.mark.timeout(480)
@pytest.mark.skipif(VALIDATOR is None, reason="solana-test-validator is not on PATH")
def test_a_whole_run_on_the_reference_validator(validator: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "localnet.cli", "run", str(ROOT / "config/smoke.toml")),
            *("--clients", "2", "--tiers", "0,1", "--headless", "--rpc", validator, "--out", str(out)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=420,
    )
    assert ended.returncode == 0, ended.stderr[-3000:] + ended.stdout[-1000:]
    summary = json.loads((out / "summary.json").read_text())
    assert summary["problems"] == []
    assert summary["steps"] == 8
    assert summary["members"][0]["weights_sha256"] == summary["chain"]["weights_sha256"]
    assert summary["chain"]["paid"] > 0
