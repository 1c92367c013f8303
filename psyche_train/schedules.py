"""Learning-rate schedules, with the original's key names.

Each is a function of the 0-based step in Python float64; the fold rounds its value to fp32 once. No schedule
rises after its warmup, and past its end it stays at its last value. `math.cos` may differ between C libraries
in the last bit, so the cosine is summed here from its series, with operations that IEEE 754 fixes.
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

    @model_validator(mode="after")
    def _warmup_rises(self) -> Self:
        _at_most("warmup_init_lr", self.warmup_init_lr, "base_lr", self.base_lr)
        return self

    def at(self, step: int) -> float:
        """Learning rate of a 0-based step.

        Raises:
            ValueError: the step is negative.
        """
        if step < 0:
            raise ValueError(f"step {step} is negative")
        if step < self.warmup_steps - 1:
            rise = (step + 1) / self.warmup_steps  # the first step already learns
            return self.warmup_init_lr + (self.base_lr - self.warmup_init_lr) * rise
        return self._after_warmup(max(0, step - self.warmup_steps))  # the warmup's last step has base_lr

    def turns(self) -> list[tuple[int, str]]:
        """Steps at which the schedule begins to do something else, and what."""
        return [(self.warmup_steps, "warmup is over")] if self.warmup_steps else []

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

    @model_validator(mode="after")
    def _falls(self) -> Self:
        _at_most("final_lr", self.final_lr, "base_lr", self.base_lr)
        return self

    def turns(self) -> list[tuple[int, str]]:
        """Steps at which the schedule begins to do something else, and what."""
        return [*super().turns(), (self.total_steps, "final_lr is reached")]

    def _progress(self, step: int) -> float:
        return min(1.0, step / (self.total_steps - self.warmup_steps))


class LinearSchedule(_Ending):
    """A straight line from `base_lr` to `final_lr`."""

    def _after_warmup(self, step: int) -> float:
        return _between(self.base_lr, self.final_lr, 1.0 - self._progress(step))


class CosineSchedule(_Ending):
    """Half a cosine from `base_lr` to `final_lr`."""

    def _after_warmup(self, step: int) -> float:
        return _between(self.base_lr, self.final_lr, half_cosine(self._progress(step)))


class WarmupStableDecaySchedule(Schedule):
    """`base_lr` for `stable_steps`, then a cosine and a linear decay."""

    stable_steps: int = Field(ge=0, le=_LIMIT)
    cosine_decay_steps: int = Field(default=0, ge=0, le=_LIMIT)
    cosine_decay_final_lr: float = Field(default=0.0, ge=0, le=10)
    linear_decay_steps: int = Field(default=0, ge=0, le=_LIMIT)
    linear_decay_final_lr: float = Field(default=0.0, ge=0, le=10)

    @model_validator(mode="after")
    def _falls(self) -> Self:
        level, name = self.base_lr, "base_lr"
        for kind in ("cosine_decay", "linear_decay"):
            if getattr(self, f"{kind}_steps"):
                key = f"{kind}_final_lr"
                _at_most(key, getattr(self, key), name, level)
                level, name = getattr(self, key), key
        return self

    def turns(self) -> list[tuple[int, str]]:
        """Steps at which the schedule begins to do something else, and what."""
        found, step = super().turns(), self.warmup_steps + self.stable_steps
        if self.cosine_decay_steps or self.linear_decay_steps:
            found.append((step, "decay begins"))
        for kind in ("cosine_decay", "linear_decay"):
            if length := getattr(self, f"{kind}_steps"):
                step += length
                found.append((step, f"{kind}_final_lr is reached"))
        return found

    def _after_warmup(self, step: int) -> float:
        step -= self.stable_steps
        if step < 0:
            return self.base_lr
        level = self.base_lr
        if self.cosine_decay_steps:
            progress = min(1.0, step / self.cosine_decay_steps)
            level = self.cosine_decay_final_lr
            if progress < 1.0:
                return _between(self.base_lr, level, half_cosine(progress))
        step -= self.cosine_decay_steps
        if self.linear_decay_steps:
            progress = min(1.0, step / self.linear_decay_steps)
            return _between(level, self.linear_decay_final_lr, 1.0 - progress)
        return level


def _between(high: float, low: float, share: float) -> float:
    """``share`` of `high` and the rest of `low`; exactly `high` at 1 and `low` at 0, never outside."""
    if share >= 1.0:
        return high
    return min(high, low + (high - low) * share)


def _at_most(key: str, value: float, limit_key: str, limit: float) -> None:
    if value > limit:
        raise ValueError(f"{key} = {value:g} must be at most {limit_key} = {limit:g}")


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
