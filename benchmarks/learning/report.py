"""Tables and plots from the results, between two marks of docs/learning.md; the prose around them is kept."""

from __future__ import annotations

from pathlib import Path

from benchmarks.learning import matrix
from benchmarks.learning.plots import write_plots
from benchmarks.learning.results import Estimate, Results
from benchmarks.learning.rows import Row

BEGIN = "<!-- figures: written by `python -m benchmarks.learning`, edit nothing between the marks -->"
END = "<!-- end of figures -->"


def write_report(out: Path, results: Results) -> None:
    """Write `learning.md` and `learning/*.png` into a folder."""
    path = out / "learning.md"
    text = path.read_text() if path.is_file() else f"# Learning, measured\n\n{BEGIN}\n{END}\n"
    if BEGIN not in text or END not in text:
        raise SystemExit(f"{path} has lost its marks: it needs the lines {BEGIN} and {END}")
    before, rest = text.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    plots = write_plots(out / "learning", results)
    parts = [_setting(results), _goals(results), *(_table(results, *table) for table in matrix.TABLES)]
    parts += [f"![{caption}](learning/{name})" for name, caption in plots]
    path.write_text(f"{before}{BEGIN}\n\n" + "\n\n".join(parts) + f"\n\n{END}{after}")


def _setting(results: Results) -> str:
    scale = results.scale
    return (
        f"{scale.rounds} rounds of {scale.samples} samples of {scale.max_seq_len} bytes "
        f"({scale.rounds * scale.samples * scale.max_seq_len:,} tokens), {scale.num_layers} layers, hidden size "
        f"{scale.hidden_size}, feed-forward {scale.intermediate_size}. Figures are validation losses, nats a byte, "
        "as mean ± half of the 95 % interval over the seeds (t distribution); a figure without ± has one seed."
    )


def _goals(results: Results) -> str:
    lines = ["| goal | figure | seeds | verdict |", "|---|---|---|---|"]
    for goal in matrix.GOALS:
        estimate = goal.measure(results)
        if estimate is None:
            lines.append(f"| {goal.text} | not measured yet | 0 | |")
            continue
        figure = estimate.text(1, 100, " %")
        lines.append(f"| {goal.text} | {figure} | {estimate.count} | {verdict(goal, estimate)} |")
    return "\n".join(lines)


def verdict(goal: matrix.Goal, estimate: Estimate) -> str:
    """What an estimate says about a goal: only an interval wholly on one side decides."""
    low, high = estimate.mean - estimate.half, estimate.mean + estimate.half
    good, bad = (
        (high <= goal.limit, low > goal.limit) if goal.at_most else (low >= goal.limit, high < goal.limit)
    )
    if good:
        return "reached"
    if bad:
        return "not reached"
    inside = estimate.mean <= goal.limit if goal.at_most else estimate.mean >= goal.limit
    return f"{'reached' if inside else 'not reached'} by the mean; the interval does not decide"


def _table(results: Results, title: str, rows: tuple[Row, ...], reference: Row) -> str:
    lines = [
        f"### {title}",
        "",
        f"| | members | tokens | tier 0 | tier 1 | tier 2 | tier 0 against {reference.label} | bytes a parameter "
        "and round | seeds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        done = results.of(row)
        losses = [_loss(results, row, tier) for tier in (0, 1, 2)]
        if row.narrower:  # a twin's whole model is as wide as that tier
            losses = ["" if tier != row.narrower else _loss(results, row, 0) for tier in (0, 1, 2)]
        excess = None if row.narrower else results.excess(row, reference)
        against = "" if excess is None or row is reference else excess.text(1, 100, " %")
        sent = f"{next(iter(done.values()))['bytes_per_parameter']:.5f}" if done else ""
        members = ",".join(map(str, row.tiers))
        lines.append(
            f"| {row.label} | {members} | {row.samples} | {' | '.join(losses)} | {against} | {sent} | {len(done)} |"
        )
    return "\n".join(lines)


def _loss(results: Results, row: Row, tier: int) -> str:
    values = list(results.losses(row, tier).values())
    return Estimate.of(values).text(3) if values else ""
