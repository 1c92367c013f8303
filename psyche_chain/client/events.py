"""The member's diary: one JSON object a line in `events.jsonl`, for launchers, plots and people."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

Listener = Callable[[dict[str, Any]], None]
"""Takes an event as it is written; bytes are still bytes."""


class EventLog:
    """Append events to a file; every line is whole, whenever the process dies.

    Each line has ``t`` (Unix seconds, float) and ``event``; bytes are written as hex.

    Resource handling: use as a context manager, or call `close`. Error handling: a diary is a help, so a full disk
    or a listener that cannot write never ends the member. What was not written is counted, and told by an `error`
    event as soon as there is room again.
    """

    def __init__(self, path: Path, listeners: Sequence[Listener] = ()) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(OSError):
            _end_torn_line(path)
        self._file: IO[bytes] = path.open("ab", buffering=0)
        self._listeners = tuple(listeners)
        self._last_state: str | None = None
        self._unwritten = 0
        self._torn = False

    def emit(self, event: str, **fields: Any) -> None:
        """Write one event."""
        line = {"t": round(time.time(), 3), "event": event, **fields}
        written = self._write(line)
        for listener in self._listeners:
            with suppress(OSError):
                listener(line)
        if written and self._unwritten:
            missing, self._unwritten = self._unwritten, 0
            self.emit("error", message=f"the disk was full: {missing} events were not written")

    def _write(self, line: dict[str, Any]) -> bool:
        text = json.dumps(line, default=plain, separators=(",", ":")).encode() + b"\n"
        text = b"\n" + text if self._torn else text
        try:
            written = self._file.write(text)
        except OSError:
            written = 0
        if written == len(text):
            self._torn = False
            return True
        self._torn = self._torn or bool(written)
        self._unwritten += 1
        return False

    def state(self, state: str) -> None:
        """Write a `state` event if the state is another than the last."""
        if state != self._last_state:
            self._last_state = state
            self.emit("state", state=state)

    def close(self) -> None:
        """Close the file; further events are an error."""
        self._file.close()

    def __enter__(self) -> EventLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def plain(value: object) -> object:
    """What JSON has for a value that it does not know: hex, lists, paths as text."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"an event cannot hold {type(value).__name__}")


def _end_torn_line(path: Path) -> None:
    """A kill in the middle of a write leaves half a line: end it, so that the next event has its own."""
    if path.exists() and path.stat().st_size > 0:
        with path.open("rb+") as file:
            file.seek(-1, 2)
            if file.read(1) != b"\n":
                file.write(b"\n")
