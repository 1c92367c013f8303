"""What a member tells its user while it runs: a line when something changes, and now and then one about the loss."""

import sys
import time
from collections.abc import Callable
from typing import Any, Final

from psyche_train.cli import output

TRAIN_LINE_S: Final = 10.0
"""Least time between two lines about training."""
SAME_ERROR_S: Final = 60.0
"""The same trouble is told again after this time, if it stays."""
EPOCH: Final = ("Warmup", "RoundTrain", "RoundWitness", "Cooldown")


class Narrator:
    """Turns a member's events into lines on stderr.

    Never fails: a member must not stop because nobody reads what it says.

    Args:
        linger_s: how long the member stays once the run is finished.
        clock: monotonic seconds.
    """

    def __init__(self, *, linger_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._linger_s = linger_s
        self._clock = clock
        self._phase: tuple[str, int] = ("", -1)
        self._trained_at = float("-inf")
        self._errors: dict[str, float] = {}
        self._last = ""
        self._is_leaving = False

    def __call__(self, event: dict[str, Any]) -> None:
        line = self.line(event)
        if line and line != self._last:
            self._last = line
            write(line)

    def line(self, event: dict[str, Any]) -> str:
        """The words for an event; empty where it is not worth any."""
        match event.get("event"):
            case "joined":
                return "joined the run; Ctrl-C leaves it"
            case "phase":
                return self._of_phase(event)
            case "state":
                return self._of_state(str(event.get("state")))
            case "train":
                now = self._clock()
                if now - self._trained_at < TRAIN_LINE_S:
                    return ""
                self._trained_at = now
                return f"step {event['step']}: loss {event['loss']:.4f}"
            case "val":
                return f"step {event['step']}: validation loss {event['loss']:.4f}"
            case "upload":
                return f"step {event['step']}: uploaded the checkpoint: {event['uri']}"
            case "eval":
                return _of_eval(event)
            case "checkpoint":
                return f"step {event['step']}: wrote the checkpoint {event['path']}"
            case "error":
                return self._of_error(str(event.get("message", "")))
            case "leaving":
                self._is_leaving = True
                return "leaving the run; Ctrl-C once more ends at once"
        return ""

    def _of_phase(self, event: dict[str, Any]) -> str:
        phase, epoch = str(event["phase"]), int(event["epoch"])
        kind = "RoundTrain" if phase == "RoundWitness" else phase
        if (kind, epoch) == self._phase:
            return ""
        self._phase = (kind, epoch)
        return {
            "Uninitialized": "waiting: the run's operator has not configured it yet",
            "Paused": "waiting: the run is paused until its operator resumes it (psyche-chain resume)",
            "WaitingForMembers": "waiting for members; look with: psyche-chain status RUN",
            "Warmup": f"epoch {epoch}: warming up",
            "RoundTrain": f"epoch {epoch}: training from step {event['step']} on",
            "Cooldown": f"epoch {epoch}: agreeing on the checkpoint of step {event['step']}",
            "Finished": f"the run is finished at step {event['step']}; staying at most {self._linger_s:g} s "
            "for others that still need this member's updates",
        }.get(kind, "")

    def _of_state(self, state: str) -> str:
        if self._is_leaving:
            return ""
        if state == "waiting" and self._phase[0] in EPOCH:
            return "waiting: an epoch is under way, this member takes part from the next one on"
        return "getting the newest weights and the log" if state == "syncing" else ""

    def _of_error(self, message: str) -> str:
        now = self._clock()
        if now - self._errors.get(message, float("-inf")) < SAME_ERROR_S:
            return ""
        if len(self._errors) > 100:
            self._errors.clear()
        self._errors[message] = now
        return f"warning: {message} (trying again)"


def _of_eval(event: dict[str, Any]) -> str:
    first, step, tier = event["first_step"], event["step"], event["tier"]
    steps = f"step {step}" if first == step else f"steps {first} to {step}"
    match event["task"]:
        case "validation":
            return f"{steps}: validation loss of tier {tier} {event['loss']:.4f}"
        case "prompt":
            return f"{steps}: {output.one_line(str(event['text']))}"
    normed = "" if event["acc_norm"] is None else f", acc_norm {event['acc_norm']:.3f}"
    return f"{steps}: {event['task']} acc {event['acc']:.3f}{normed} of {event['questions']} questions"


def write(line: str) -> None:
    """A line on stderr, if anybody reads it."""
    try:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):  # the reader is gone, or the stream is closed
        pass
