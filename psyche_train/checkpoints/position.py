"""Where in a run's log a set of weights stands."""

from __future__ import annotations

from dataclasses import dataclass

from psyche_train.records import GENESIS


@dataclass(frozen=True, slots=True)
class Position:
    """The log up to which weights are folded."""

    history: bytes = GENESIS
    """The coordinator's history after the last folded round."""
    step: int = 0
    """Trained rounds folded: the step that the next trained round has."""
    round: int = 1
    """No round below this number is expected any more."""
    epoch: int = 0
    """Epoch of the last folded round."""
    data_index: int = 0
    """First new sample of the last folded round."""
