"""What a configuration will do, step by step: learning rate, samples, tokens; for plots and tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psyche_train.batch_ramp import BatchRamp, Stretch
from psyche_train.spec import TrainSpec


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One step of a run in which every update is accepted."""

    step: int
    learning_rate: float
    samples: int | None
    """Of the round; None where the configuration does not say."""
    tokens: int | None
    """Trained before this step."""


class SchedulePlan:
    """The steps of a run.

    Args:
        steps: of the run.
        ramp: samples of a round; None if nothing says.
        members: that take part; each gets a sample at least.
    """

    def __init__(self, spec: TrainSpec, *, steps: int, ramp: BatchRamp | None, members: int = 1) -> None:
        self.spec, self.steps = spec, steps
        self._stretches = [] if ramp is None else _until(ramp, spec.max_seq_len, members, steps)

    def turns(self) -> list[tuple[int, str]]:
        """Steps of the run at which something changes, ascending, and what; the first and the last step are there."""
        found = self.spec.lr_schedule.chosen.turns()
        if cold := self.spec.cold_start_warmup_steps:
            found.append((cold, "cold start is over"))
        if len(self._stretches) > 1:
            found.append((self._stretches[-1].first, "batch is at its end"))
        by_step: dict[int, list[str]] = {0: ["first step"]}
        if self.steps > 1:
            by_step[self.steps - 1] = ["last step"]
        for step, what in found:
            if 0 <= step < self.steps:
                by_step.setdefault(step, []).append(what)
        return [(step, ", ".join(by_step[step])) for step in sorted(by_step)]

    def beyond(self) -> list[tuple[int, str]]:
        """What the schedule would do only after the run's last step."""
        return [turn for turn in self.spec.lr_schedule.chosen.turns() if turn[0] > self.steps]

    def sampled(self, count: int) -> list[int]:
        """About `count` steps spread over the run, with all turns and the steps before them."""
        last = self.steps - 1
        spread = {last * i // max(1, count - 1) for i in range(count)}
        for step, _ in self.turns():
            spread |= {step, max(0, step - 1)}
        return sorted(spread)

    def at(self, steps: Sequence[int]) -> list[PlannedStep]:
        """The given steps, which must ascend."""
        planned, i = [], 0
        for step in steps:
            samples = tokens = None
            if self._stretches:
                while i + 1 < len(self._stretches) and self._stretches[i + 1].first <= step:
                    i += 1
                stretch = self._stretches[i]
                samples = stretch.samples
                tokens = (stretch.data_index + (step - stretch.first) * samples) * self.spec.max_seq_len
            planned.append(PlannedStep(step, self.spec.learning_rate(step), samples, tokens))
        return planned


def _until(ramp: BatchRamp, max_seq_len: int, members: int, steps: int) -> list[Stretch]:
    found = []
    for stretch in ramp.stretches(max_seq_len, members):
        if stretch.first >= steps:
            break
        found.append(stretch)
    return found
