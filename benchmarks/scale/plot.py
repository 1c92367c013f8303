"""How long the exchange of a round takes, and how busy a member's processes are, by number of members."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.scale import limits, model
from benchmarks.scale.scenes import Played

mpl.use("Agg")

COUNTS = (4, 8, 16, 32, 64, 128, 256)


def write(path: Path, measured: dict[str, Any], played: Sequence[Played]) -> None:
    """Draw both."""
    figure = Figure(figsize=(10.5, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    colours = {("1 B", "100"): "C0", ("1 B", "500"): "C1", ("40 B", "100"): "C2", ("40 B", "500"): "C3"}
    for (name, line), colour in colours.items():
        bound = [limits.exchange_bound_s(name, line, n, measured) for n in COUNTS]
        left.plot(COUNTS, bound, color=colour, label=f"{name}, {line} Mbps")
        dots = [
            (p.scene.members, p.all_s)
            for p in played
            if (p.scene.model, p.scene.line) == (name, line)
            and p.simulated
            and p.scene.strategy == model.DEFAULT
            and p.scene.tiers == (0,)
        ]
        left.plot([x for x, _ in dots], [y for _, y in dots], "o", color=colour)
    left.axhline(model.ROUND_S, color="black", linestyle="--", linewidth=1)
    left.text(4, model.ROUND_S * 1.1, "a round of 240 s", fontsize=8)
    left.set_ylabel("seconds until everybody has all updates")
    left.set_title("exchange: what the lines allow, dots simulated", fontsize=10)
    chosen = {
        "pings and connections": "pings, connections",
        "gossip while a round's blobs arrive (1 B, 100 Mbps)": "gossip, 1 B at 100 Mbps",
        "reading RPC's answers": "reading RPC's answers",
        "fold of 1 B on one CPU thread": "fold of 1 B, of its 12 s",
        "looks at the chain while blobs arrive, at most": "looks at the chain, of 40 in 10 s",
    }
    for one in limits.limits(measured):
        if one.what in chosen:
            right.plot(COUNTS, [100 * one.share(n) for n in COUNTS], marker=".", label=chosen[one.what])
    right.axhline(100, color="black", linestyle="--", linewidth=1)
    right.set_ylabel("% of a core, or of what is named")
    right.set_title("what runs out", fontsize=10)
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(COUNTS, [str(n) for n in COUNTS])
        axes.set_xlabel("members")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)
