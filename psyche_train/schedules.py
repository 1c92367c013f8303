"""Learning-rate schedules, with the original's key names.

Each is a function of the 0-based step in Python float64; the fold rounds its value to fp32 once. Past its
end every schedule stays at its last value. `math.cos` may differ between C libraries in the last bit, so the
cosine is summed here from its series, with operations that IEEE 754 fixes.
"""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

_PI = 3.141592653589793
_LIMIT = 10_000_000_000


class Schedule(BaseModel):
    """What all schedules share: a linear rise from `warmup_init_lr` to `base_lr`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)

    base_lr: float = Field(gt=0, le=10)
    warmup_init_lr: float = Field(default=0.0, ge=0, le=10)
    warmup_steps: int = Field(default=0, ge=0, le=_LIMIT)

    def at(self, step: int) -> float:
        """Learning rate of a 0-based step."""
        if step < 0:
            raise ValueError(f"step {step} is negative")
        if step < self.warmup_steps:
            rise = (step + 1) / self.warmup_steps  # the first step already learns
            return self.warmup_init_lr + (self.base_lr - self.warmup_init_lr) * rise
        return self._after_warmup(step - self.warmup_steps)

    def _after_warmup(self, step: int) -> float:
        raise AssertionError(f"{type(self).__name__} has no rule for step {step}")


class ConstantSchedule(Schedule):
    """`base_lr` for ever."""

    def _after_warmup(self, step: int) -> float:
        return self.base_lr


class _Ending(Schedule):
    """A schedule that reaches `final_lr` at `total_steps`."""

    total_steps: int = Field(ge=1, le=_LIMIT)
    final_lr: float = Field(ge=0, le=10)

    @model_validator(mode="after")
    def _warmup_fits(self) -> Self:
        if self.warmup_steps >= self.total_steps:
            raise ValueError(
                f"warmup_steps = {self.warmup_steps} must be below total_steps = {self.total_steps}"
            )
        return self

    def _progress(self, step: int) -> float:
        return min(1.0, step / (self.total_steps - self.warmup_steps))


class LinearSchedule(_Ending):
    """A straight line from `base_lr` to `final_lr`."""

    def _after_warmup(self, step: int) -> float:
        return self.base_lr + (self.final_lr - self.base_lr) * self._progress(step)


class CosineSchedule(_Ending):
    """Half a cosine from `base_lr` to `final_lr`."""

    def _after_warmup(self, step: int) -> float:
        return self.final_lr + (self.base_lr - self.final_lr) * half_cosine(self._progress(step))


class WarmupStableDecaySchedule(Schedule):
    """`base_lr` for `stable_steps`, then a cosine and a linear decay."""

    stable_steps: int = Field(ge=0, le=_LIMIT)
    cosine_decay_steps: int = Field(default=0, ge=0, le=_LIMIT)
    cosine_decay_final_lr: float = Field(default=0.0, ge=0, le=10)
    linear_decay_steps: int = Field(default=0, ge=0, le=_LIMIT)
    linear_decay_final_lr: float = Field(default=0.0, ge=0, le=10)

    def _after_warmup(self, step: int) -> float:
        step -= self.stable_steps
        if step < 0:
            return self.base_lr
        level = self.base_lr
        if self.cosine_decay_steps:
            progress = min(1.0, step / self.cosine_decay_steps)
            level = self.cosine_decay_final_lr
            if progress < 1.0:
                return level + (self.base_lr - level) * half_cosine(progress)
        step -= self.cosine_decay_steps
        if self.linear_decay_steps:
            progress = min(1.0, step / self.linear_decay_steps)
            return level + (self.linear_decay_final_lr - level) * progress
        return level


def half_cosine(progress: float) -> float:
    """``(1 + cos(pi * progress)) / 2`` for progress in 0..1; exactly 1 and 0 at the ends."""
    if progress >= 1.0:
        return 0.0
    if progress > 0.5:
        return 1.0 - half_cosine(1.0 - progress)
    square = (_PI * progress) * (_PI * progress)
    term = total = 1.0
    for n in range(1, 14):  # at pi/2 the 14th term is below 1e-20
        term = -term * square / ((2 * n - 1) * (2 * n))
        total = total + term
    return 0.5 * (1.0 + total)
