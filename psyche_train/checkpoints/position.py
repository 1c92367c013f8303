"""Where in a run's log a set of weights stands."""

from __future__ import annotations

from dataclasses import dataclass

from psyche_train.jobs import FoldError
from psyche_train.records import GENESIS, RoundRecord


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

    def after(self, record: RoundRecord, spec_sha256: bytes) -> Position:
        """The position behind a record that follows this one.

        Args:
            spec_sha256: the run's; what another specification trained does not follow.

        Raises:
            FoldError: the record does not follow.
        """
        if record.spec_hash != spec_sha256:
            raise FoldError(f"round {record.number} was trained by another specification")
        if record.number < self.round or record.epoch < self.epoch:
            raise FoldError(
                f"round {record.number} of epoch {record.epoch} does not follow: "
                f"round {self.round} of epoch {self.epoch} is next"
            )
        if record.trained and record.step != self.step:
            raise FoldError(
                f"round {record.number} is step {record.step}, the weights stand before {self.step}"
            )
        return Position(
            history=record.next_history(self.history),
            step=self.step + int(record.trained),
            round=record.number + 1,
            epoch=record.epoch,
            data_index=record.data_index,
        )
