"""The member's diary: one JSON object a line in `events.jsonl`, for launchers, plots and people."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from io import RawIOBase
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

Listener = Callable[[dict[str, Any]], None]
"""Takes an event as it is written; bytes are still bytes."""


class EventLog:
    """Append events to a file; every line is whole, whenever the process dies.

    Each line has ``t`` (Unix seconds, float) and ``event``; bytes are written as hex.

    Resource handling: use as a context manager, or call `close`.
    Error handling: what a full disk does not take is lost, with one warning; a member goes on without a diary.
    """

    def __init__(self, path: Path, listeners: Sequence[Listener] = ()) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        _end_torn_line(path)
        self._path = path
        self._file: RawIOBase = path.open("ab", buffering=0)
        self._is_torn = False
        """The last line was not written to its end."""
        self._has_warned = False
        self._listeners = tuple(listeners)
        self._last_state: str | None = None

    def emit(self, event: str, **fields: Any) -> None:
        """Write one event."""
        line = {"t": round(time.time(), 3), "event": event, **fields}
        self._write(json.dumps(line, default=plain, separators=(",", ":")).encode() + b"\n")
        for listener in self._listeners:
            listener(line)

    def _write(self, line: bytes) -> None:
        data = b"\n" + line if self._is_torn else line
        try:
            written = self._file.write(data) or 0
        except OSError as error:
            written = 0
            if not self._has_warned:
                logger.warning("events are lost, %s cannot be written: %s", self._path, error)
            self._has_warned = True
        if written:
            self._is_torn = written < len(data)

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
