"""`train`: several members of one run in one process, without a chain and without a network."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated

import typer

from psyche_train.cli import exit_codes, output
from psyche_train.cli.options import (
    ConfigArg,
    DeviceOpt,
    JsonOpt,
    SetOpt,
    ThreadsOpt,
    check_device,
    parse_tiers,
)
from psyche_train.cli.shell import add_commands
from psyche_train.errors import PsycheError


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    add_commands(app, ("train", train, "train config/demo.toml --tiers 0,1,1 --steps 20 --out runs/local"))


def train(
    config: ConfigArg,
    tiers: Annotated[
        str, typer.Option("--tiers", metavar="T,T,..", help="The members: a tier for each.")
    ] = "0",
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="Train until this step; else config.total_steps.")
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option("--samples", min=1, help="Samples of a round; else as [config] ramps them."),
    ] = None,
    every: Annotated[int, typer.Option("--every", min=1, help="Steps between validations.")] = 20,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Keep checkpoints, curves and a summary there; goes on from it."
        ),
    ] = None,
    device: DeviceOpt = "auto",
    threads: ThreadsOpt = None,
    set_: SetOpt = None,
    json: JsonOpt = False,
) -> None:
    """Train a run's model with several members in this process: trainer, updates and fold are the real ones.

    Shows losses, bytes per parameter and step, and the validation loss of every tier. With --json: one object
    a line. Ctrl-C ends after the round under way, and keeps what was trained if there is --out.
    """
    members = parse_tiers(tiers)
    from psyche_train.run_file import load_run_file

    run_file, warnings = load_run_file(config, set_ or ())
    for warning in warnings:
        output.warn(warning)
    highest = run_file.spec.matformer.max_tier
    if wrong := [tier for tier in members if tier > highest]:
        raise PsycheError(
            f"--tiers: {config} has tiers 0 to {highest} (matformer.max_tier), not {wrong[0]}",
            "give other tiers, or add --set matformer.max_tier=2",
            exit_codes.USAGE,
        )
    table = run_file.config
    if table is None and (steps is None or samples is None):
        missing = "--steps" if steps is None else "--samples"
        raise PsycheError(
            f"{config} has no [config] that says how long to train", f"add {missing} N", exit_codes.USAGE
        )
    check_device(device)

    from psyche_train.cli.train_session import TrainSession

    with ExitStack() as stack:
        folder = out or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="psyche-train-")))
        assert table is not None or (steps is not None and samples is not None)
        session = TrainSession(
            run_file.spec.resolve(),
            name=run_file.run_id,
            tiers=members,
            until=steps if steps is not None else table.total_steps,  # type: ignore[union-attr]
            samples=samples if samples is not None else table,  # type: ignore[arg-type]
            folder=folder,
            keep=out is not None,
            every=every,
            device=device,
            threads=threads,
            json=json,
        )
        with _interruptible(session):
            session.run()
    if session.interrupted:
        raise typer.Exit(exit_codes.INTERRUPTED)


@contextmanager
def _interruptible(session: object) -> Iterator[None]:
    """The first Ctrl-C asks the session to stop, the second one ends it at once."""

    def stop(number: int, frame: object) -> None:
        del number, frame
        session.interrupted = True  # type: ignore[attr-defined]
        output.note("ending after this round; Ctrl-C once more ends at once")
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
