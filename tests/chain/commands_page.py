"""The text of docs/commands.md around what the commands printed."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel

from psyche_chain.admin.report import ShowReport
from psyche_chain.cli import exit_codes
from psyche_chain.cli.main import app
from psyche_train.cli import exit_codes as shared_codes

COMMON = ("--rpc", "--keypair", "--priority-fee", "--max-fee", "--json", "--help")
"""Options that are told of once."""
SECTIONS: Mapping[str, Sequence[str]] = {
    "Wallet and cluster": ("wallet new", "wallet address", "wallet airdrop", "wallet balance", "doctor"),
    "A run": ("validate-config", "create-run", "update-run", "list-runs", "status", "show", "replay"),
    "Steering": ("pause", "resume", "set-rates", "set-authority", "tick"),
    "Who may join": (
        "authorize",
        "delegate",
        "list-authorizations",
        "revoke",
        "evict",
        "close-authorization",
    ),
    "Taking part": ("join", "identity", "leave", "close-membership"),
    "Money": ("rewards", "fund", "settle", "claim", "close-run"),
}
"""Every command, in the order of the page."""

HEAD = """# Commands of `psyche-chain`

Written by `python -m tests.chain.commands_doc`: all output below was printed by the commands, on an embedded chain
(`psyche-localnet up`). Hashes and signatures that differ each time are replaced by a word.

What a command found or did goes to standard output, everything else (progress, warnings, costs, errors) to standard
error. An error is one sentence and, where something can be done about it, a hint; `--debug` adds details.

## Options that many commands have

| option | meaning |
|---|---|
"""


def commands() -> dict[str, Any]:
    """Every command of the application by its name; those of a group with the group's."""
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
        default = "" if param.default in (None, False, True, ...) or param.required else f" [{param.default}]"
        rows.append((words, (param.help or "") + default))
    return rows


def _table(rows: Sequence[Sequence[str]], head: Sequence[str]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return [*lines, *("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)]


def _section(name: str, command: Any, shown: Sequence[Any]) -> list[str]:
    text = re.sub(r"\s*\n\s*", "\n", (command.help or "").strip()).replace("\n\n", "\n")
    lines = [f"### `{name}`", "", *text.split("\n"), ""]
    rows = [(f"`{words}`", text) for words, text in options(command) if words.split()[0] not in COMMON]
    if rows:
        lines += [*_table(rows, ("", "")), ""]
    for example in shown:
        printed = [f"$ psyche-chain {example.line}", *example.output.rstrip("\n").split("\n")]
        status = [f"(exit status {example.status})"] if example.status else []
        lines += ["```console", *printed, *status, "```", ""]
    return lines


def _exit_codes() -> list[str]:
    source = "".join(Path(module.__file__).read_text() for module in (shared_codes, exit_codes))
    rows = re.findall(r'^(\w+): Final = (\d+)\n"""(.*?)"""', source, re.MULTILINE | re.DOTALL)
    known = sorted((int(code), text) for _, code, text in rows)
    return _table([(str(code), text) for code, text in known], ("status", "meaning"))


def _schema(model: type[BaseModel], path: str = "") -> list[tuple[str, str, str]]:
    rows = []
    for name, spec in model.model_json_schema()["properties"].items():
        field = model.model_fields[name]
        here = f"{path}{name}"
        kind = field.annotation
        inner = _model_of(kind)
        many = "[]" if "list" in str(kind) else ""
        rows.append((f"`{here}{many}`", _json_type(spec), field.description or ""))
        if inner is not None:
            rows += _schema(inner, f"{here}{many}.")
    return rows


def _model_of(kind: Any) -> type[BaseModel] | None:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return kind
    for part in getattr(kind, "__args__", ()):
        if (found := _model_of(part)) is not None:
            return found
    return None


def _json_type(spec: Mapping[str, Any]) -> str:
    if "anyOf" in spec:
        return " or ".join(_json_type(s) for s in spec["anyOf"])
    if spec.get("type") == "array":
        return f"list of {_json_type(spec['items'])}"
    return "object" if "$ref" in spec else str(spec.get("type"))


def render(shown: Mapping[str, Sequence[Any]]) -> str:
    """The whole page."""
    known = commands()
    common = {words.split()[0]: (words, text) for c in known.values() for words, text in options(c)}
    lines = HEAD.rstrip("\n").split("\n")
    for option in COMMON[:-1]:
        words, text = common[option]
        lines.append("| `{}` | {} |".format(words.replace("|", "\\|"), text))
    lines += ["", *MONEY.strip().split("\n"), "", "## Exit status", "", *_exit_codes(), ""]
    for title, names in SECTIONS.items():
        lines += [f"## {title}", ""]
        for name in names:
            lines += _section(name, known[name], shown.get(name, ()))
    lines += ["## The shape of `show --json`", "", SCHEMA, ""]
    lines += _table(_schema(ShowReport), ("key", "type", "meaning"))
    return "\n".join(lines).rstrip("\n") + "\n"


MONEY = """
### What a command costs

Every transaction is simulated first. Its compute-unit limit is what the simulation used and a fifth more (200,000 where
it may have to carry out a whole chain of transitions). The priority fee is, per unit, the third quartile of what others
paid lately for the same accounts, and at most `--max-fee` for a transaction; it is offered only where others offer one.
A transaction whose blockhash expired is built anew and sent again; it can never land twice. Commands that send
something end with what the wallet paid, read from the balances that the chain recorded: fees are gone, rent lies in
accounts and comes back when they are closed. With `--json` the same stands under `cost`.

Commands that take several transactions (`create-run`, `update-run`, `settle`, `delegate`, `claim --all`, `close-run`)
look at the chain before each step. One that was interrupted, even with `kill -9`, is simply run again: it goes on where
it stopped. One that has nothing left to do says so and sends nothing. `fund` is the exception: it pays each time.
"""
SCHEMA = """Keys are only ever added; `schema_version` is raised when one changes its meaning or goes away. Keys and
hashes are texts (base58 and hexadecimal), points and tokens whole numbers of the smallest unit."""
