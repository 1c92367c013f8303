"""Processes that answer on standard output and end with their standard input, so that none is left over."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import trio


class Child:
    """A module of this package that runs as a process and speaks lines of JSON."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def answer(self) -> dict[str, Any]:
        """The next line it says.

        Raises:
            RuntimeError: it ended instead.
        """
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise RuntimeError(f"{' '.join(map(str, self._process.args))} ended with {self._process.wait()}")

    def ask(self, **question: Any) -> dict[str, Any]:
        """Say a line and wait for the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self.answer()


@contextmanager
def child(module: str, *args: object) -> Iterator[Child]:
    """Start `benchmarks.network.<module>`; it ends with the block."""
    command = [sys.executable, "-m", f"benchmarks.network.{module}", *map(str, args)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Child(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()


async def until_stdin_ends() -> None:
    """Wait for the parent to be done with this process."""
    await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
