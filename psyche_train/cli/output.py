"""Where the command line's words go: data to stdout, everything else to stderr."""

import json
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.console import Console
from rich.markup import escape

from psyche_train.errors import PsycheError

_STEERS_TERMINALS: Final = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Control characters but the line feed, changes of the writing direction, and what no encoding can write."""


class ReaderGone(Exception):
    """Whoever read standard output has seen enough (`| head -1`): nothing is wrong, and nothing is left to tell."""


def plain(text: str) -> str:
    """Text of strangers (names and addresses on chain) as it may go to a terminal, which obeys some characters.

    Those become `\\u001b`, which means the same in JSON.
    """
    return _STEERS_TERMINALS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _stderr() -> Console:
    return Console(stderr=True, highlight=False, soft_wrap=True)


def data(text: str) -> None:
    """A line of the result.

    Raises:
        ReaderGone: nobody reads standard output any more.
        PsycheError: it cannot be written: it is closed, say, or the disk is full.
    """
    _write(plain(text) + "\n")


def piece(text: str) -> None:
    """A part of a text that is shown as it comes into being; tabs stay. Raises as `data` does."""
    _write("\t".join(plain(part) for part in text.split("\t")))


def _write(text: str) -> None:
    if sys.stdout is None:
        raise PsycheError("the result cannot be shown: standard output is closed")
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_stdout()
        raise ReaderGone from None
    except OSError as exc:
        _drop_stdout()
        raise PsycheError(f"the result cannot be written to standard output: {exc.strerror}") from exc


def _drop_stdout() -> None:
    """What could not be written would fail once more, and without words, when the process ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def data_json(value: Any) -> None:
    """The result as JSON."""
    data(json.dumps(value, indent=2, ensure_ascii=False))


def note(text: str) -> None:
    """A line about what is going on."""
    _stderr().print(escape(plain(text)))


def warn(text: str) -> None:
    """Something that the user should know, without it being an error."""
    _stderr().print(f"[yellow]warning:[/yellow] {escape(plain(text))}")


def asks() -> bool:
    """Whether there is somebody at a terminal who can answer."""
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))


def ask(question: str) -> bool:
    """Ask at the terminal; only `y` and `yes` are a yes. Nothing goes to stdout, which may be a file."""
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def width() -> int:
    """Columns of the terminal; 80 where there is none."""
    shown = sys.stdout is not None and sys.stdout.isatty()
    return shutil.get_terminal_size((80, 24)).columns if shown else 80


def error(exc: PsycheError) -> None:
    """The one place that shows an error: what happened, then what to do next."""
    console = _stderr()
    console.print(f"[bold red]error:[/bold red] {escape(plain(exc.message))}")
    if exc.hint:
        console.print(f"[cyan]hint:[/cyan] {escape(plain(exc.hint))}")


def table(
    columns: Sequence[str], rows: Sequence[Sequence[Any]], *, optional: Sequence[str] = ()
) -> list[str]:
    """Lines of aligned columns; numbers to the right. No colours, so that it can be piped.

    Args:
        columns: their names.
        rows: their cells.
        optional: columns to leave out, the first one first, while the table is wider than the terminal.
    """
    lines = _table(columns, rows)
    for name in optional:
        if max(map(len, lines)) <= width():
            break
        at = list(columns).index(name)
        columns = [*columns[:at], *columns[at + 1 :]]
        rows = [[*row[:at], *row[at + 1 :]] for row in rows]
        lines = _table(columns, rows)
    return lines


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    texts = [[_cell(v) for v in row] for row in rows]
    widths = [max(len(c), *(len(t[i]) for t in texts)) if texts else len(c) for i, c in enumerate(columns)]
    right = [bool(rows) and all(_is_number(t[i]) for t in texts) for i in range(len(columns))]

    def line(cells: Sequence[str]) -> str:
        padded = (
            c.rjust(w) if to_right else c.ljust(w)
            for c, w, to_right in zip(cells, widths, right, strict=True)
        )
        return "  ".join(padded).rstrip()

    return [line(columns), *(line(t) for t in texts)]


def _is_number(cell: str) -> bool:
    return cell == "-" or cell.replace(".", "", 1).isdecimal()


def plural(count: int, noun: str) -> str:
    """`1 member`, `2 members`."""
    return f"{count} {noun}" + ("" if count == 1 else "s")


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return one_line(str(value))


def one_line(text: str) -> str:
    """Text of strangers in the place of one line: it cannot look like further lines of ours."""
    return plain(text).replace("\n", "\\n")


def pairs(values: Mapping[str, Any]) -> list[str]:
    """Lines of `name  value`."""
    width = max((len(k) for k in values), default=0)
    return [f"{k.ljust(width)}  {_cell(v)}" for k, v in values.items()]
