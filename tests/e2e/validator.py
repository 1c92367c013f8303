"""Solana's own test validator as a child process, for tests that compare with it."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

VALIDATOR = shutil.which("solana-test-validator")
START_S = 120.0
PORTS = 100
"""A validator takes some thirty; all of them are its own, so that two can run at once."""


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


def _port_block() -> int:
    """First of `PORTS` neighbouring ports that are free for TCP and UDP, below those the system hands out."""
    chosen = random.Random()  # of this process's own seed: two test processes look in different places
    for _ in range(200):
        first = chosen.randrange(10_000, 30_000, PORTS)
        with contextlib.ExitStack() as held, contextlib.suppress(OSError):
            for port in range(first, first + PORTS):
                for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                    held.enter_context(socket.socket(type=kind)).bind(("127.0.0.1", port))
            return first
    raise AssertionError(f"no {PORTS} neighbouring free ports were found")


def _start(folder: Path, first: int) -> subprocess.Popen[bytes]:
    """A validator of its own ports: RPC, websocket and faucet, then gossip and what it takes by itself.

    Left to itself it takes gossip port 8000 of the machine, so a second one would end at once.
    """
    assert VALIDATOR is not None
    with (folder / "validator.log").open("wb") as log:
        return subprocess.Popen(
            [
                *(VALIDATOR, "--quiet", "--reset", "--ledger", str(folder / "ledger")),
                *("--rpc-port", str(first), "--faucet-port", str(first + 2)),
                *("--gossip-port", str(first + 3)),
                *("--dynamic-port-range", f"{first + 4}-{first + PORTS - 1}"),
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def _ended(folder: Path, status: int) -> str:
    """What a validator that ended at its start had said."""
    said = [f"the validator ended with status {status}"]
    for log in (folder / "validator.log", folder / "ledger/validator.log"):
        if log.exists():
            said.append(f"{log}:\n{log.read_text(errors='replace')[-2000:]}")
    return "\n".join(said)


@contextlib.contextmanager
def run_validator(folder: Path, start_s: float = START_S) -> Iterator[str]:
    """URL of a fresh validator with a faucet; stopped by its process id."""
    first = _port_block()
    process = _start(folder, first)
    url = f"http://127.0.0.1:{first}"
    try:
        deadline = time.monotonic() + start_s
        while not healthy(url):
            status = process.poll()
            assert status is None, _ended(folder, status)
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
