"""Tables and plot of docs/scale.md, between its marks; the prose around them is kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.scale import limits, model, plot, tables
from benchmarks.scale.scenes import Played

PAGE = model.ROOT / "docs" / "scale.md"
BEGIN = "<!-- figures: written by `python -m benchmarks.scale page`, edit nothing between the marks -->"
END = "<!-- end of figures -->"


def sections(measured: dict[str, Any], played: Sequence[Played]) -> list[tuple[str, str]]:
    """Titles and tables."""
    return [
        ("What breaks first", limits.table(measured)),
        ("Rounds on lines of 100 and 500 Mbps", tables.rounds(played)),
        ("Strategies", tables.strategies(measured)),
        ("Bytes of an update", tables.updates()),
        ("Chain and RPC", tables.chain(measured)),
        ("The network process", tables.processes(measured)),
        ("Memory and processors of a full member", tables.machines(measured)),
        ("Somebody joins", tables.joiners()),
        ("The simulation against real processes", tables.validation(measured)),
        ("Measured constants", tables.constants(measured)),
    ]


def as_text(measured: dict[str, Any], played: Sequence[Played]) -> str:
    """All sections as Markdown."""
    return "\n\n".join(f"### {title}\n\n{table}" for title, table in sections(measured, played))


def as_json(measured: dict[str, Any], played: Sequence[Played]) -> dict[str, Any]:
    """All figures for scripts."""
    return {
        "measured": measured,
        "limits": limits.as_json(measured),
        "rounds": [{**p.table(), "utilisation": model.utilisation(p.all_s).overlapped} for p in played],
    }


def write_page(path: Path, measured: dict[str, Any], played: Sequence[Played]) -> None:
    """Write the figures into the page and the plot beside it.

    Raises:
        SystemExit: the page has lost its marks.
    """
    text = path.read_text() if path.is_file() else f"# Scale\n\n{BEGIN}\n{END}\n"
    if BEGIN not in text or END not in text:
        raise SystemExit(f"{path} has lost its marks: it needs the lines {BEGIN} and {END}")
    before, rest = text.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    folder = path.parent / "scale"
    folder.mkdir(parents=True, exist_ok=True)
    plot.write(folder / "scale.png", measured, played)
    picture = "![Exchange of a round and processor load by number of members](scale/scale.png)"
    path.write_text(f"{before}{BEGIN}\n\n{picture}\n\n{as_text(measured, played)}\n\n{END}{after}")
