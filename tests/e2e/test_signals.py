"""A signal in the first seconds of `join` is answered with words and the right exit status."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow

# The command as it is, but told when it has begun to look at the chain; nobody listens at the address.
STARTING = """
import sys
import trio
from psyche_chain.cli.main import main
from psyche_chain.chain.rpc import RpcPool
async def hang(self, *args, **named):
    print("begun", flush=True)
    await trio.sleep_forever()
RpcPool.call = hang
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_while_starting_is_told(tmp_path: Path, number: signal.Signals, status: int) -> None:
    key = tmp_path / "wallet.json"
    done = subprocess.run(
        [sys.executable, "-m", "psyche_chain", "wallet", "new", "--keypair", str(key)],
        cwd=ROOT,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    process = subprocess.Popen(
        [sys.executable, "-c", STARTING, "join", "demo", "--keypair", str(key)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.send_signal(number)
    deadline = time.monotonic() + 60
    _, told = process.communicate(timeout=deadline - time.monotonic())
    assert process.returncode == status
    assert told == "stopped before it joined demo: nothing was sent\n"
