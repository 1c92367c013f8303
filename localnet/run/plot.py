"""The picture that ends a run: loss of every member, and what its updates cost in bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from localnet.run.progress import MemberProgress

TIER_COLOURS = ("#1b6ca8", "#d1495b", "#2a9d5c", "#8d6cab")


def plot_run(run_id: str, members: Sequence[MemberProgress], path: Path) -> Path:
    """Write a PNG with training loss (lines), validation loss (points) and bytes per parameter and step.

    Returns:
        ``path``, written atomically.
    """
    import matplotlib as mpl

    mpl.use("Agg")  # no display needed
    import matplotlib.pyplot as plt

    figure, (losses, sizes) = plt.subplots(1, 2, figsize=(11, 4.2), width_ratios=(3, 1), layout="constrained")
    for member in members:
        colour = TIER_COLOURS[member.tier % len(TIER_COLOURS)]
        label = f"member {member.index}, tier {member.tier}"
        steps = sorted(member.losses)
        losses.plot(
            steps, [member.losses[s] for s in steps], color=colour, alpha=0.55, linewidth=1.0, label=label
        )
        steps = sorted(member.val_losses)
        losses.plot(
            steps, [member.val_losses[s] for s in steps], "o-", color=colour, markersize=4, linewidth=1.6
        )
    losses.set(title=f"{run_id}: loss", xlabel="step", ylabel="nats per byte")
    losses.grid(alpha=0.25)
    losses.legend(frameon=False, fontsize=9, title="lines: training, points: validation", title_fontsize=8)
    bars = [bytes_per_param_step([member]) or 0.0 for member in members]
    sizes.bar(
        [f"{m.index}\ntier {m.tier}" for m in members],
        bars,
        color=[TIER_COLOURS[m.tier % len(TIER_COLOURS)] for m in members],
    )
    sizes.set(title="update size", ylabel="bytes per parameter and step")
    sizes.grid(alpha=0.25, axis="y")
    for axis in (losses, sizes):
        axis.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.tmp")
    figure.savefig(beside, dpi=130, format="png")
    plt.close(figure)
    beside.replace(path)
    return path


def bytes_per_param_step(members: Sequence[MemberProgress]) -> float | None:
    """Mean over all updates of (bytes of the update ÷ parameters that its sender holds); None without updates."""
    ratios = [
        size / parameters for m in members for size, parameters in m.update_bytes.values() if parameters
    ]
    return sum(ratios) / len(ratios) if ratios else None
