"""What the pages of both programs' commands are made of: options, sections, exit statuses, real output."""

from __future__ import annotations

import contextlib
import difflib
import io
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import typer

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Shown:
    """A command line and what it printed, standard output and errors as a terminal shows them."""

    line: str
    output: str
    status: int


def output_of(main: Callable[[list[str]], int], words: list[str]) -> tuple[str, int]:
    """Run a command line in this process: what it printed, and its exit status."""
    both = io.StringIO()
    with contextlib.redirect_stdout(both), contextlib.redirect_stderr(both):
        status = main(words)
    return both.getvalue(), status


def commands_of(app: typer.Typer) -> dict[str, Any]:
    """Every command by its name, in the order of the help; those of a group with the group's."""
    root: Any = typer.main.get_command(app)
    found: dict[str, Any] = {}
    for name, command in root.commands.items():
        inner = getattr(command, "commands", None)
        found |= {name: command} if inner is None else {f"{name} {n}": c for n, c in inner.items()}
    return found


def options(command: Any) -> list[tuple[str, str]]:
    """An option's or argument's words, and what it means."""
    rows = []
    for param in command.params:
        if param.param_type_name == "argument":
            words = param.metavar or param.name.upper()
        else:
            kind = (
                ""
                if param.is_flag
                else f" {param.metavar or ('TEXT' if getattr(param, 'min', None) is None else 'N')}"
            )
            words = ", ".join([*param.opts, *param.secondary_opts]) + kind
        default = param.default if isinstance(param.default, int | float | str | Path) else None
        shown = "" if default in (None, False, True, "") or param.required else f" [{default}]"
        rows.append((words, (param.help or "") + shown))
    return rows


def common_rows(commands: dict[str, Any], names: Sequence[str]) -> list[str]:
    """Rows of a table of the options that are told of once."""
    known = {words.split()[0]: (words, text) for c in commands.values() for words, text in options(c)}
    return [row(f"`{words}`", text) for words, text in (known[name] for name in names if name in known)]


def section(
    program: str, name: str, command: Any, shown: Sequence[Shown], *, hidden: Collection[str], epilog: bool
) -> list[str]:
    """One command: its help, its options but `hidden` ones, and what it printed."""
    text = re.sub(r"\s*\n\s*", "\n", (command.help or "").strip()).replace("\n\n", "\n")
    lines = [f"### `{name}`", "", *text.split("\n"), ""]
    rows = [(f"`{words}`", text) for words, text in options(command) if words.split()[0] not in hidden]
    lines += [*table(rows, ("", "")), ""] if rows else []
    lines += [command.epilog, ""] if epilog else []
    for example in shown:
        printed = [f"$ {program} {example.line}", *example.output.rstrip("\n").split("\n")]
        status = [f"(exit status {example.status})"] if example.status else []
        lines += ["```console", *printed, *status, "```", ""]
    return lines


def statuses(*modules: ModuleType) -> list[str]:
    """The table of exit statuses that modules document."""
    source = "".join(Path(str(module.__file__)).read_text() for module in modules)
    rows = re.findall(r'^\w+: Final = (\d+)\n"""(.*?)"""', source, re.MULTILINE | re.DOTALL)
    return table(sorted(rows, key=lambda found: int(found[0])), ("status", "meaning"))


def table(rows: Sequence[Sequence[str]], head: Sequence[str]) -> list[str]:
    """A table's lines."""
    first = "| | |" if not any(head) else "| " + " | ".join(head) + " |"
    return [first, "|" + "---|" * len(head), *(row(*cells) for cells in rows)]


def row(*cells: str) -> str:
    """One line of a table."""
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def write_or_check(
    path: Path,
    page: str,
    arguments: Sequence[str],
    comparable: Callable[[str], list[str]] = str.splitlines,
) -> int:
    """Write a page, or with ``--check`` compare it; the exit status."""
    name = str(path.relative_to(ROOT))
    if "--check" not in arguments:
        path.write_text(page)
        print(f"wrote {name}")
        return 0
    old = path.read_text() if path.exists() else ""
    lines = list(difflib.unified_diff(comparable(old), comparable(page), name, "now", lineterm=""))
    print("\n".join(lines) or f"{name} is what the commands print")
    return 1 if lines else 0
