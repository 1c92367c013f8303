"""What the members report, gathered for the screen and for the summary.

Every member appends JSON lines to ``<state-dir>/events.jsonl``. `EventTail` reads them as they grow and
`MemberProgress` holds what they add up to.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MAX_LINE_BYTES = 1 << 20


class EventTail:
    """Reads the complete lines that were appended to a file since the last call.

    A line that is not a JSON object is skipped: a process killed in mid-write leaves a torn one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        self._rest = b""

    def read(self) -> list[dict[str, Any]]:
        """The new events, oldest first; empty while the file does not exist."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        self._offset += len(data)
        lines = (self._rest + data).split(b"\n")
        self._rest = lines.pop()[-MAX_LINE_BYTES:]
        events = []
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                events.append(event)
        return events


@dataclass
class MemberProgress:
    """One member as its events tell it; losses are nats per token, keyed by step."""

    index: int
    tier: int
    wallet: str
    state: str = "starting"
    slot: int | None = None
    step: int = 0
    epoch: int = 0
    losses: dict[int, float] = field(default_factory=dict)
    val_losses: dict[int, float] = field(default_factory=dict)
    update_bytes: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Step to (bytes of the update, parameters held)."""
    checkpoint: str | None = None
    checkpoint_step: int = -1
    weights_sha256: str | None = None
    restarts: int = 0
    exit_code: int | None = None
    last_error: str | None = None

    def apply(self, event: dict[str, Any]) -> None:
        """Take one event in; unknown kinds and malformed fields are ignored."""
        kind = event.get("event")
        try:
            if isinstance(event.get("slot"), int):
                self.slot = event["slot"]
            if kind == "state":
                self.state = str(event["state"])
            elif kind == "phase":
                self.epoch = int(event.get("epoch", self.epoch))
            elif kind == "train":
                step, loss = int(event["step"]), float(event["loss"])
                self.update_bytes[step] = (int(event["bytes"]), int(event["parameters"]))
                self.losses[step] = loss
                self.step = max(self.step, step)
            elif kind == "fold":
                self.step = max(self.step, int(event["step"]))
            elif kind == "val":
                self.val_losses[int(event["step"])] = float(event["loss"])
            elif kind == "checkpoint":
                self.checkpoint = str(event["path"])
                self.checkpoint_step = int(event["step"])
                self.weights_sha256 = str(event["weights_sha256"])
            elif kind == "error":
                self.last_error = str(event["message"])
            elif kind == "start":
                self.exit_code = None
            elif kind == "exit":
                self.exit_code = int(event["code"])
        except (KeyError, TypeError, ValueError):
            return

    @property
    def loss(self) -> float | None:
        """Loss of the last step that this member trained."""
        return self.losses[max(self.losses)] if self.losses else None

    @property
    def val_loss(self) -> float | None:
        """The newest validation loss."""
        return self.val_losses[max(self.val_losses)] if self.val_losses else None
