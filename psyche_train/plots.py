"""Pictures of curves as PNG files; no display is needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psyche_train.schedule_plan import PlannedStep

TIER_COLOURS = ("#1b6ca8", "#d1495b", "#2a9d5c", "#8d6cab")

Curve = tuple[Sequence[float], Sequence[float]]
"""Where (steps, say), and values."""


@dataclass(frozen=True, slots=True)
class MemberCurve:
    """Training losses of one member."""

    label: str
    tier: int
    losses: Curve


def write_png(path: Path, size: tuple[float, float], draw: Callable[[Any], None]) -> Path:
    """Make a figure of `size` inches, let `draw` fill it, and write it; the file appears whole."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    draw(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.tmp")
    figure.savefig(beside, dpi=130, format="png")
    beside.replace(path)
    return path


def plot_losses(
    path: Path, title: str, members: Sequence[MemberCurve], validation: Mapping[int, Curve], unit: str
) -> Path:
    """Write the training losses of members (thin lines) and the validation loss per tier (points).

    Args:
        validation: by tier.
        unit: of the losses, such as "nats per byte".
    """

    def draw(figure: Any) -> None:
        axis = figure.subplots()
        for member in members:
            colour = TIER_COLOURS[member.tier % len(TIER_COLOURS)]
            axis.plot(*member.losses, color=colour, alpha=0.5, linewidth=1.0, label=member.label)
        for tier, curve in sorted(validation.items()):
            colour = TIER_COLOURS[tier % len(TIER_COLOURS)]
            axis.plot(
                *curve, "o-", color=colour, markersize=4, linewidth=1.6, label=f"validation, tier {tier}"
            )
        axis.set(title=title, xlabel="step", ylabel=unit)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=9)

    return write_png(path, (8, 4.6), draw)


def plot_plan(path: Path, title: str, plan: Sequence[PlannedStep]) -> Path:
    """Write learning rate, samples per round and tokens by step; only the first where there is no batch size."""
    steps = [point.step for point in plan]
    panels: list[tuple[str, list[float]]] = [("learning rate", [point.learning_rate for point in plan])]
    if plan[0].samples is not None:
        panels.append(("samples per round", [float(point.samples or 0) for point in plan]))
        panels.append(("tokens trained", [float(point.tokens or 0) for point in plan]))

    def draw(figure: Any) -> None:
        axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for axis, colour, (label, values) in zip(axes, TIER_COLOURS, panels, strict=False):
            axis.plot(steps, values, color=colour, linewidth=1.6)
            axis.set_ylabel(label)
            axis.set_ylim(bottom=0)
            axis.set_xlim(0, max(1, steps[-1]))
            axis.grid(alpha=0.25)
            axis.spines[["top", "right"]].set_visible(False)
        axes[0].set_title(title)
        axes[-1].set_xlabel("step")

    return write_png(path, (8, 2.2 * len(panels) + 0.6), draw)
