"""Questions of a task: from a file of JSON lines, or from the Hugging Face Hub."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from psyche_train.cli import exit_codes
from psyche_train.errors import ConfigError, NotFoundError, PsycheError
from psyche_train.evals.tasks import TASKS, Question, Task, check


def task_named(name: str) -> Task:
    """The task of a name.

    Raises:
        PsycheError: there is none; says which ones there are.
    """
    if name not in TASKS:
        raise PsycheError(f"there is no task {name!r}", f"there are {', '.join(TASKS)}", exit_codes.USAGE)
    return TASKS[name]


def load_questions(task: Task, folder: Path | None, limit: int | None) -> list[Question]:
    """Return a task's first questions, in the data set's order.

    Args:
        folder: holds `<task>.jsonl`; None takes the data set from the Hub, or from its cache.
        limit: None takes all.

    Raises:
        NotFoundError: there is no such file or data set.
        ConfigError: a row is not one of the data set's; names file and line.
    """
    if folder is None:
        rows: Iterable[tuple[str, Any]] = _from_hub(task)
    else:
        rows = _from_file(folder / f"{task.name}.jsonl", task)
    found = [_question(task, row, where) for where, row in islice(rows, limit)]
    if not found:
        raise ConfigError(f"{task.name}: there are no questions" + (f" in {folder}" if folder else ""))
    return found


def _question(task: Task, row: Any, where: str) -> Question:
    try:
        return check(task.question(row))
    except KeyError as error:
        raise ConfigError(f"{where}: {error} is missing", _example(task)) from error
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{where}: not a row of {task.dataset}: {error}", _example(task)) from error


def _from_file(path: Path, task: Task) -> Iterator[tuple[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        raise NotFoundError(f"{path} does not exist", _example(task)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise ConfigError(f"{path}:{number}: not JSON: {error}", _example(task)) from error
            if not isinstance(row, dict):
                raise ConfigError(f"{path}:{number}: not a table", _example(task))
            yield f"{path}:{number}", row


def _from_hub(task: Task) -> Iterator[tuple[str, Any]]:
    from datasets import load_dataset
    from huggingface_hub.errors import HfHubHTTPError

    try:
        rows = load_dataset(task.dataset, task.subset, split=task.split)
    except (OSError, ValueError, HfHubHTTPError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise NotFoundError(
            f"{task.dataset} cannot be had from the Hugging Face Hub: {first}",
            f"give --task-dir a folder with {task.name}.jsonl",
        ) from error
    for number, row in enumerate(rows, 1):
        yield f"{task.dataset} {task.split}:{number}", row


def _example(task: Task) -> str:
    subset = f", {task.subset}" if task.subset else ""
    return f"each line is a row of {task.dataset}{subset} ({task.split}) as JSON"


def names_of(text: str) -> Sequence[str]:
    """The tasks of `--tasks a,b`; `all` stands for every one.

    Raises:
        PsycheError: one of them does not exist.
    """
    names = list(TASKS) if text == "all" else [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        task_named(name)
    return list(dict.fromkeys(names))
