"""`[model.LLM.lr_schedule]`: the learning rate as a function of the step."""

from __future__ import annotations

from psyche_train.schedules import (
    ConstantSchedule,
    CosineSchedule,
    LinearSchedule,
    WarmupStableDecaySchedule,
)
from psyche_train.spec.tables import OneOf

AnySchedule = ConstantSchedule | LinearSchedule | CosineSchedule | WarmupStableDecaySchedule


class LrSchedule(OneOf):
    """The learning rate as a function of the step."""

    Constant: ConstantSchedule | None = None
    Linear: LinearSchedule | None = None
    Cosine: CosineSchedule | None = None
    WarmupStableDecay: WarmupStableDecaySchedule | None = None

    @property
    def chosen(self) -> AnySchedule:
        """The sub-table that is there."""
        chosen: AnySchedule = getattr(self, self.kind)
        return chosen
