"""What a member shows on standard error while it works: one line per thing that matters, or JSON."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from typing import Any

from psyche_chain.client.events import plain

Event = dict[str, Any]

_LINES: dict[str, Callable[[Event], str]] = {
    "joined": lambda e: "joined the run",
    "restore": lambda e: f"took the agreed checkpoint of step {e['step']}",
    "train": lambda e: (
        f"round {e['round']}  step {e['step']}  loss {e['loss']:.4f}  {e['tokens']} tokens  "
        f"{e['seconds']:.2f} s  {e['bytes']:,} bytes"
    ),
    "val": lambda e: f"validation loss {e['loss']:.4f} at step {e['step']}",
    "checkpoint": lambda e: f"checkpoint of step {e['step']} in {e['path']}",
    "upload": lambda e: f"uploaded the checkpoint of step {e['step']}: {e['uri']}",
    "attest": lambda e: f"attested the weights of step {e['step']}",
    "error": lambda e: f"! {e['message']}",
}


def show(event: Event) -> None:
    """Print an event that a person wants to see."""
    if (line := _LINES.get(event["event"])) is not None:
        print(line(event), file=sys.stderr, flush=True)
    elif event["event"] == "phase" and event["phase"] not in ("RoundTrain", "RoundWitness"):
        print(f"{event['phase']}  epoch {event['epoch']}  step {event['step']}", file=sys.stderr, flush=True)


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
        print(json.dumps({**self.context, **event}, default=plain), file=sys.stderr, flush=True)


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
