"""Validation loss over rounds, one picture for each group of rows."""

from __future__ import annotations

import statistics
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from benchmarks.learning import matrix
from benchmarks.learning.results import Results
from benchmarks.learning.rows import Row

mpl.use("Agg")


def write_plots(folder: Path, results: Results) -> list[tuple[str, str]]:
    """Draw the groups of which something is measured; returns file names and captions."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, title, rows in matrix.PLOTS:
        curves = {row.label: _curve(results, row) for row in rows if results.of(row)}
        if not curves:
            continue
        figure = Figure(figsize=(7.2, 4.4), layout="constrained")
        axes = figure.add_subplot()
        for label, (rounds, mean, low, high) in curves.items():
            (line,) = axes.plot(rounds, mean, marker="o", markersize=3, label=label)
            axes.fill_between(rounds, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
        axes.set_xlabel("round")
        axes.set_ylabel("validation loss at full width, nats a byte")
        axes.set_title(title)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
        figure.savefig(folder / f"{name}.png", dpi=120)
        written.append((f"{name}.png", title))
    return written


def _curve(results: Results, row: Row) -> tuple[list[int], list[float], list[float], list[float]]:
    """Rounds, and over the seeds the mean, least and greatest loss of the widest tier."""
    runs = [
        {point["round"]: point["loss"][min(point["loss"])] for point in result["curve"]}
        for result in results.of(row).values()
    ]
    rounds = sorted(set.intersection(*(set(run) for run in runs)))
    values = [[run[at] for run in runs] for at in rounds]
    return rounds, [statistics.fmean(v) for v in values], [min(v) for v in values], [max(v) for v in values]
