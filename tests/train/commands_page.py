"""The text of docs/training-commands.md around what the commands printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from psyche_train.cli import exit_codes
from psyche_train.cli.main import app
from tests.commands_page import Shown, commands_of, common_rows, row, section, statuses

COMMON = ("--json", "--device", "--threads", "--set", "--help")
"""Options that are told of once."""

HEAD = """# Commands of `psyche-train`

Written by `python -m tests.train.commands_doc`: all output below was printed by the commands. Seconds and hashes are
replaced by a word; losses and drawn texts are those of one machine and one short training.

`psyche-train` knows models, data and checkpoints, and nothing of a chain: with it a configuration is tried before a
run is created, and a run's checkpoints are measured, cut, converted and asked afterwards. What a command found goes to
standard output, everything else (progress, warnings, errors) to standard error. An error is one sentence and, where
something can be done about it, a hint; `--debug` adds details.

A CHECKPOINT is a directory with a `config.json`; a member's state folder, of which the newest checkpoint is taken; or
what `psyche-train train --out` left. Models of the Hugging Face Hub are read as files only: no code of theirs is run.

## Options that many commands have

| option | meaning |
|---|---|
"""

EVALS = """
## Evaluation

The tasks are those of lm-evaluation-harness (0.4), zero-shot: the context, a space and each choice; the choice with the
highest log-likelihood is the answer. `acc` counts right answers, `acc_norm` those by log-likelihood divided by the
choice's characters, `acc_stderr` is the standard error of `acc`. mmlu and boolq have no `acc_norm`, as there. A task's
questions come from `TASK.jsonl` in `--task-dir`, one row of the data set a line, or from the data set on the Hugging
Face Hub:

| task | data set | subset | split |
|---|---|---|---|
{tasks}

The harness itself is no dependency: it brings 38 packages, and answers all requests of a task in one call, which a
member could not interrupt.

A member evaluates its own weights while it takes part (`psyche-chain join --eval-every 100 --eval-tasks piqa`): in
slices of one forward pass of at most {tokens} tokens, none of which begins once a duty needs the model. Results are
`eval` events in `events.jsonl` and lines on standard error. The weights go on meanwhile, so each result names the
step at which it began (`first_step`) and the one at which it ended (`step`). The validation loss is measured for every
tier that the member holds: a full member's for all of them, each with its slice of the weights.
"""


def commands() -> dict[str, Any]:
    """Every command of the application by its name, in the order of its help."""
    return commands_of(app)


def render(shown: Mapping[str, Sequence[Shown]]) -> str:
    """The whole page."""
    from psyche_train.evals.options import SLICE_TOKENS
    from psyche_train.evals.tasks import TASKS

    known = commands()
    lines = [*HEAD.rstrip("\n").split("\n"), *common_rows(known, COMMON)]
    lines += ["", "## Exit status", "", *statuses(exit_codes), "", "## Commands", ""]
    for name, command in known.items():
        lines += section("psyche-train", name, command, shown.get(name, []), hidden=COMMON, epilog=True)
    tasks = (row(t.name, f"`{t.dataset}`", t.subset or "", t.split) for t in TASKS.values())
    lines += EVALS.format(tasks="\n".join(tasks), tokens=f"{SLICE_TOKENS:,}").strip().split("\n")
    return "\n".join(lines) + "\n"
