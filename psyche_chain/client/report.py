"""What a member shows on standard error with `--json-logs`: every event and log record as an object a line."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

from psyche_chain.cli.narrator import write
from psyche_chain.client.events import plain

Event = dict[str, Any]


class JsonLogs:
    """Events and log records as JSON lines on standard error; each names run, slot, epoch and round."""

    def __init__(self, run: str) -> None:
        self.context: dict[str, Any] = {"run": run, "slot": None, "epoch": None, "round": None}

    def install(self) -> None:
        """Send all log records through here."""
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_JsonFormatter(self.context))
        logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
        logging.getLogger("httpx").setLevel(logging.WARNING)

    def show(self, event: Event) -> None:
        """Print an event, and remember where in the run it happened."""
        for name in ("slot", "epoch", "round"):
            if event.get(name) is not None:
                self.context[name] = event[name]
        write(json.dumps({**self.context, **event}, default=plain))


class _JsonFormatter(logging.Formatter):
    def __init__(self, context: dict[str, Any]) -> None:
        super().__init__()
        self._context = context

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "t": round(record.created, 3),
            **self._context,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)
