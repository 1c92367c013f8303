"""Entry point of `psyche-chain`: puts the commands together."""

from collections.abc import Sequence
from typing import Annotated

import typer

from psyche_chain import __version__
from psyche_chain.cli import access, doctor, look, member, pay, runs, steer, wallets
from psyche_train.cli import output
from psyche_train.cli.shell import run_app

app = typer.Typer(
    name="psyche-chain",
    help="Create, join and steer training runs on Solana. Add --debug anywhere for details and tracebacks.",
    epilog="Exit status: 0 done, 1 failed, 2 wrong usage, 3 bad file, 4 not found, 5 no funds, "
    "6 chain unreachable, 7 refused by a program, 8 programs missing or of another version, "
    "10 client too old, 130 interrupted.",
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


for module in (runs, steer, member, look, pay, access, doctor):
    module.register(app)
app.add_typer(wallets.app, name="wallet")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; return its exit status."""
    return run_app(app, argv)
