"""What a trainer is asked and answers, and how it fails.

TrainerError (RuntimeError): a call that does not fit the trainer's state; the message says which.
    FoldError: a record that does not follow the position, or blobs that are missing.
    NotFinite: loss or gradient is NaN or infinite; nothing was changed.
    TrainerLost: every further call fails, too; the member must be started again.
TrainCancelled (Exception): the caller asked to stop; nothing was changed.
"""

from __future__ import annotations

from dataclasses import dataclass


class TrainerError(RuntimeError):
    """A call that does not fit the trainer's state."""


class FoldError(TrainerError):
    """A record that does not follow the position, or blobs that are missing."""


class NotFinite(TrainerError):
    """Loss or gradient is NaN or infinite; nothing was changed."""


class TrainerLost(TrainerError):
    """The trainer is gone: every further call fails, too. The member must be started again."""


class TrainCancelled(Exception):
    """The caller asked to stop; nothing was changed."""


@dataclass(frozen=True, slots=True)
class TrainJob:
    """One member's share of one round."""

    epoch: int
    round: int
    step: int
    slot: int
    tier: int
    intervals: list[range]


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What came of a job."""

    blob: bytes
    """The update, as it is committed and published."""
    loss: float
    """Mean over the tokens, before this round's update."""
    tokens: int
    seconds: float
