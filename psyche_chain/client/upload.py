"""Upload agreed checkpoints to the Hub or an object store, beside the work of the member and never in its way.

The chain keeps pointing to the copy that members hold (`peers:`): it does not depend on a service, and whoever
has a copy from elsewhere compares it with the weights hash that the chain shows.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import trio

from psyche_chain.client.events import EventLog

logger = logging.getLogger(__name__)

Publish = Callable[[Path, str, str], str]
"""Takes the checkpoint's directory, where to and a message; returns a reference to what was uploaded."""


FINISH_POLL_S = 1.0


@dataclass(frozen=True, slots=True)
class Upload:
    """An agreed checkpoint that is to be uploaded."""

    path: Path
    step: int
    weights_hash: bytes

    @property
    def message(self) -> str:
        """For the commit on the Hub."""
        return f"Step {self.step}, weights {self.weights_hash.hex()}"


class Uploader:
    """Uploads one checkpoint at a time in a thread of its own; a newer one replaces one that waits.

    Resource handling: the thread ends with the process; `finish` lets it do what is left before.
    Error handling: what goes wrong is an event, and the next checkpoint is tried again.

    Args:
        target: `hub:ORG/NAME`, or the URL of a folder that gets a folder for every checkpoint.
    """

    def __init__(self, target: str, events: EventLog, *, publish: Publish | None = None) -> None:
        self._target = target.rstrip("/")
        self._events = events
        self._publish = publish or _publish
        self._waiting: queue.Queue[Upload | None] = queue.Queue()
        self._token = trio.lowlevel.current_trio_token()
        self._is_over = False
        self._thread = threading.Thread(target=self._work, name="upload", daemon=True)
        self._thread.start()

    def offer(self, upload: Upload) -> None:
        """Upload this checkpoint when the one before is done."""
        self._waiting.put(upload)

    async def finish(self, *, deadline_s: float) -> None:
        """Wait until everything is uploaded, no longer than the deadline."""
        self._waiting.put(None)
        with trio.move_on_after(deadline_s):
            while self._thread.is_alive():
                await trio.sleep(FINISH_POLL_S)
        await trio.sleep(0.01)  # what the thread told last is written before the diary is closed
        self._is_over = True

    def _work(self) -> None:
        ends = False
        while not ends:
            upload = self._waiting.get()
            while not self._waiting.empty():
                newer = self._waiting.get()
                ends = ends or newer is None
                upload = newer or upload
            if upload is None:
                return
            self._one(upload)

    def _one(self, upload: Upload) -> None:
        is_hub = self._target.startswith("hub:")
        target = self._target if is_hub else f"{self._target}/{upload.path.name}"
        try:
            reference = self._publish(upload.path, target, upload.message)
        except (ValueError, OSError) as error:
            self._tell("error", message=f"the checkpoint of step {upload.step} was not uploaded: {error}")
            return
        self._tell("upload", step=upload.step, uri=reference, weights_sha256=upload.weights_hash)

    def _tell(self, event: str, **fields: object) -> None:
        """Events are written by the member's own thread."""

        def emit() -> None:
            if self._is_over:  # the diary may be closed
                logger.warning("event=%s came after the end fields=%s", event, fields)
            else:
                self._events.emit(event, **fields)

        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(emit)


def _publish(path: Path, target: str, message: str) -> str:
    from psyche_train.checkpoints.remote import publish

    return publish(path, target, message=message)
