"""`eval`: multiple-choice tasks and validation loss of a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from psyche_train.cli import exit_codes, output
from psyche_train.cli.generate import CheckpointArg, TierOpt
from psyche_train.cli.options import DeviceOpt, JsonOpt, SetOpt, ThreadsOpt, check_device
from psyche_train.cli.shell import add_commands
from psyche_train.errors import PsycheError

VALIDATION_WINDOWS = 64


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    add_commands(
        app,
        (
            "eval",
            evaluate,
            "eval runs/local --tasks arc_easy,piqa --task-dir tasks --config config/demo.toml",
        ),
    )


def evaluate(
    checkpoint: CheckpointArg,
    tasks: Annotated[
        str,
        typer.Option(
            "--tasks",
            metavar="TASK,..",
            help="all, or of arc_easy, arc_challenge, boolq, hellaswag, mmlu, openbookqa, piqa.",
        ),
    ] = "",
    task_dir: Annotated[
        Path | None,
        typer.Option(
            "--task-dir", metavar="DIR", help="Folder of TASK.jsonl files; else the Hugging Face Hub."
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="First questions of each task; else all.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="A run's TOML: validation loss on its held-out data."),
    ] = None,
    windows: Annotated[
        int, typer.Option("--windows", min=1, help="Held-out samples of the validation.")
    ] = VALIDATION_WINDOWS,
    tier: TierOpt = None,
    device: DeviceOpt = "auto",
    threads: ThreadsOpt = None,
    set_: SetOpt = None,
    json: JsonOpt = False,
) -> None:
    """Measure a checkpoint: tasks as lm-evaluation-harness defines them, zero-shot, and the validation loss.

    With --config, the loss of every tier that the checkpoint holds; with --tier, of that one only.
    """
    from psyche_train.evals.load import load_questions, names_of, task_named
    from psyche_train.inference.find import find_checkpoint

    names = names_of(tasks)
    if not names and config is None:
        raise PsycheError(
            "there is nothing to measure", "give --tasks all, or --config with a run's TOML", exit_codes.USAGE
        )
    path = find_checkpoint(checkpoint)
    questions = {name: load_questions(task_named(name), task_dir, limit) for name in names}
    check_device(device)
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    results: list[dict[str, Any]] = []
    if config is not None:
        results += _validations(path, config, set_ or (), windows, tier, device)
    if questions:
        results += _tasks(path, questions, tier, device)
    if json:
        output.data_json({"checkpoint": str(path), "results": results})
        return
    output.note(str(path))
    cells = [[row["task"], row["tier"], *(_figure(row, key) for key in FIGURES)] for row in results]
    output.data("\n".join(output.table(["task", "tier", *FIGURES], cells)))


FIGURES = ("questions", "acc", "acc_norm", "acc_stderr", "loss")


def _figure(row: dict[str, Any], key: str) -> str | None:
    value = row.get(key)
    return None if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def _validations(
    path: Path, config: Path, changes: Any, count: int, tier: int | None, device: str
) -> Iterator[dict[str, Any]]:
    from psyche_train.data.dataset import Dataset
    from psyche_train.devices import choose_device
    from psyche_train.evals.validation import ValidationRun
    from psyche_train.inference.checkpoint import open_checkpoint
    from psyche_train.run_file import load_run_file

    run_file, _ = load_run_file(config, changes)
    spec = run_file.spec
    opened = open_checkpoint(path, tier=tier, device=choose_device(device))
    held_out = Dataset(spec, opened.vocab_size).validation(count)
    last = opened.tier if tier is not None or opened.is_export else max(opened.tier, spec.matformer.max_tier)
    for one in range(opened.tier, last + 1):
        if one != opened.tier:
            opened = open_checkpoint(path, tier=one, device=choose_device(device))
        run = ValidationRun(held_out)
        for _ in run.slices(opened.model):
            pass
        yield {"task": "validation", "tier": one, "loss": run.loss()}


def _tasks(path: Path, questions: dict[str, Any], tier: int | None, device: str) -> Iterator[dict[str, Any]]:
    from rich.console import Console
    from rich.progress import Progress

    from psyche_train.devices import choose_device
    from psyche_train.evals.load import task_named
    from psyche_train.evals.score import TaskRun
    from psyche_train.inference.checkpoint import open_checkpoint

    opened = open_checkpoint(path, tier=tier, device=choose_device(device))
    tokens = opened.tokens()
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as bars:
        for name, asked in questions.items():
            run = TaskRun(
                name,
                asked,
                tokens,
                context=opened.context,
                vocab_size=opened.vocab_size,
                normed=task_named(name).normed,
            )
            bar = bars.add_task(name, total=run.total)
            for _ in run.slices(opened.model):
                bars.update(bar, completed=run.asked)
            yield {**asdict(run.score()), "tier": opened.tier}
