"""The embedded chain as a child process, for launchers and tests."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

_POLL_S = 0.05


class ChainProcessError(Exception):
    """The chain's process did not start, or ended; the text holds the end of its log."""


def free_port(host: str = "127.0.0.1") -> int:
    """A port that is free now together with the one after it."""
    for _ in range(100):
        with socket.socket() as first, socket.socket() as second:
            first.bind((host, 0))
            port = int(first.getsockname()[1])
            if port >= 65_534:
                continue
            with contextlib.suppress(OSError):
                second.bind((host, port + 1))
                return port
    raise ChainProcessError("no two neighbouring free ports were found")


class ChainProcess:
    """A chain in a process of its own.

    `start` returns at once, `wait_ready` when the RPC answers. `kill` ends it without warning, and `start`
    then goes on from the same state. Nothing here depends on an event loop: from trio, run `wait_ready` in a
    thread, or poll `is_ready`.

    Args:
        state_dir: the chain's state, and the log `chain.log`.
        port: the RPC's port, the websocket takes the next one; None chooses free ones.
        host: the address to listen on.
        slot_ms: length of a slot.
        reset: start a new chain at the first `start`.
        options: further options of the command.
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        port: int | None = None,
        host: str = "127.0.0.1",
        slot_ms: int = 400,
        reset: bool = False,
        options: Sequence[str] = (),
    ) -> None:
        self.state_dir = state_dir
        self.host = host
        self.port = free_port(host) if port is None else port
        self.slot_ms = slot_ms
        self._reset = reset
        self._options = tuple(options)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    @property
    def ws_url(self) -> str:
        return f"ws://{self.host}:{self.port + 1}"

    @property
    def log_path(self) -> Path:
        return self.state_dir / "chain.log"

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start the process. Raises ChainProcessError where it runs already."""
        if self._process is not None and self._process.poll() is None:
            raise ChainProcessError(f"the chain runs already, as process {self._process.pid}")
        self.state_dir.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "localnet.chain", "--port", str(self.port), "--host", self.host]
        command += ["--state-dir", str(self.state_dir), "--slot-ms", str(self.slot_ms), *self._options]
        if self._reset:
            command.append("--reset")
            self._reset = False
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": path},
                start_new_session=True,  # Ctrl-C at the terminal is the owner's to handle
            )

    def is_ready(self) -> bool:
        """Whether the RPC answers that it is healthy.

        Raises:
            ChainProcessError: the process ended.
        """
        process = self._process
        if process is None or process.poll() is not None:
            status = "never started" if process is None else f"ended with status {process.returncode}"
            raise ChainProcessError(f"the chain's process {status}: {self._log_tail()}")
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "getHealth"}).encode()
        request = urllib.request.Request(self.url, body, {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=2) as response:
                return bool(json.load(response).get("result") == "ok")
        except (urllib.error.URLError, OSError, ValueError):
            return False

    def wait_ready(self, timeout_s: float = 60.0) -> None:
        """Wait until the RPC answers.

        Raises:
            ChainProcessError: the process ended, or the time is over.
        """
        deadline = time.monotonic() + timeout_s
        while not self.is_ready():
            if time.monotonic() > deadline:
                raise ChainProcessError(f"the chain did not answer in {timeout_s:.0f} s: {self._log_tail()}")
            time.sleep(_POLL_S)

    def wait(self, timeout_s: float = 30.0) -> int:
        """Wait until the process ends; its exit status."""
        assert self._process is not None, "started before"
        return self._process.wait(timeout_s)

    def kill(self) -> None:
        """End the process at once, as a crash would (SIGKILL); its state stays."""
        self._end(signal.SIGKILL, 10)

    def stop(self, timeout_s: float = 10.0) -> int:
        """End the process in good order; its exit status."""
        return self._end(signal.SIGTERM, timeout_s)

    def _end(self, number: int, timeout_s: float) -> int:
        process = self._process
        if process is None:
            return 0
        if process.poll() is None:
            process.send_signal(number)
            try:
                process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
        return int(process.returncode)

    def _log_tail(self) -> str:
        try:
            lines = self.log_path.read_text(errors="replace").strip().splitlines()
        except OSError:
            lines = []
        return " | ".join(lines[-3:]) or "its log is empty"

    def __enter__(self) -> ChainProcess:
        self.start()
        self.wait_ready()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
