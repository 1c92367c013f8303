"""Entry point of `psyche-train`: puts the commands together.

Each command is a module with `register(app)`. The modules import torch and transformers inside their
functions, so that `psyche-train --help` answers at once.
"""

from collections.abc import Sequence

from psyche_train import __version__
from psyche_train.cli import (
    bench,
    evaluate,
    export,
    generate,
    memory,
    plot_schedule,
    prepare_data,
    slice,
    train,
    transfer,
)
from psyche_train.cli.failures import translate
from psyche_train.cli.shell import new_app, run_app

app = new_app(
    "psyche-train",
    __version__,
    help="Train, cut, convert, measure and try models without a chain.",
    epilog="Exit status: 0 done, 1 failed, 2 wrong usage, 3 bad file, 4 not found, 130 interrupted.",
)
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
