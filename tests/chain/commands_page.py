"""The text of docs/commands.md around what the commands printed."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from psyche_chain.admin.report import ShowReport
from psyche_chain.cli import exit_codes
from psyche_chain.cli.main import app
from psyche_train.cli import exit_codes as shared_codes
from tests.commands_page import Shown, commands_of, common_rows, section, statuses, table

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
    """Every command of the application by its name."""
    return commands_of(app)


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


def render(shown: Mapping[str, Sequence[Shown]]) -> str:
    """The whole page."""
    known = commands()
    lines = [*HEAD.rstrip("\n").split("\n"), *common_rows(known, COMMON)]
    lines += [
        "",
        *MONEY.strip().split("\n"),
        "",
        "## Exit status",
        "",
        *statuses(shared_codes, exit_codes),
        "",
    ]
    for title, names in SECTIONS.items():
        lines += [f"## {title}", ""]
        for name in names:
            lines += section(
                "psyche-chain", name, known[name], shown.get(name, ()), hidden=COMMON, epilog=False
            )
    lines += ["## The shape of `show --json`", "", SCHEMA, ""]
    lines += table(_schema(ShowReport), ("key", "type", "meaning"))
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
