"""Entry point of `psyche-chain`: puts the commands together."""

from collections.abc import Sequence

from psyche_chain import __version__
from psyche_chain.cli import access, doctor, look, member, pay, peers, replay, runs, steer, wallets
from psyche_train.cli.shell import new_app, run_app

app = new_app(
    "psyche-chain",
    __version__,
    help="Create, join and steer training runs on Solana.",
    epilog="Exit status: 0 done, 1 failed, 2 wrong usage, 3 bad file, 4 not found, 5 no funds, "
    "6 chain unreachable, 7 refused by a program, 8 programs missing or of another version, "
    "10 client too old, 11 a training process ended, 130 interrupted, 143 terminated.",
)
for module in (runs, steer, member, look, pay, access, peers, replay, doctor):
    module.register(app)
app.add_typer(wallets.app, name="wallet")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; return its exit status."""
    return run_app(app, argv)
