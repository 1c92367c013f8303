"""Solana's own test validator as a child process, for tests that compare with it."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from localnet.chain.process import free_port

VALIDATOR = shutil.which("solana-test-validator")
START_S = 120.0


def healthy(url: str) -> bool:
    """Whether the validator says that it is, and makes slots."""

    def ask(method: str) -> Any:
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method}).encode()
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=5) as answer:
            return json.load(answer)["result"]

    try:
        return bool(ask("getHealth") == "ok" and ask("getSlot") > 0)
    except (OSError, ValueError, KeyError):
        return False


@contextlib.contextmanager
def run_validator(folder: Path, start_s: float = START_S) -> Iterator[str]:
    """URL of a fresh validator with a faucet; stopped by its process id."""
    assert VALIDATOR is not None
    port = free_port()
    with socket.socket() as chooser:
        chooser.bind(("127.0.0.1", 0))
        faucet = chooser.getsockname()[1]
    log_path = folder / "validator.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            [
                *(VALIDATOR, "--quiet", "--reset", "--ledger", str(folder / "ledger")),
                *("--rpc-port", str(port), "--faucet-port", str(faucet)),
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + start_s
        while not healthy(url):
            assert process.poll() is None, log_path.read_text()
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
