"""Entry point of `psyche-train`: puts the commands together.

Each command is a module with `register(app)`. The modules import torch and transformers inside their
functions, so that `psyche-train --help` answers at once.
"""

from collections.abc import Sequence
from typing import Annotated

import typer

from psyche_train import __version__
from psyche_train.cli import (
    bench,
    evaluate,
    export,
    generate,
    memory,
    output,
    plot_schedule,
    prepare_data,
    slice,
    train,
    transfer,
)
from psyche_train.cli.failures import translate
from psyche_train.cli.shell import run_app

app = typer.Typer(
    name="psyche-train",
    help="Train, cut, convert, measure and try models without a chain. "
    "Add --debug anywhere for details and tracebacks.",
    epilog="Exit status: 0 done, 1 failed, 2 wrong usage, 3 bad file, 4 not found, 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(shown: bool) -> None:
    if shown:
        output.data(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


for module in (
    train,
    prepare_data,
    plot_schedule,
    generate,
    evaluate,
    memory,
    slice,
    export,
    transfer,
    bench,
):
    module.register(app)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; return its exit status."""
    return run_app(app, argv, translate)
