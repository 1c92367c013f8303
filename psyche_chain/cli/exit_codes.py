"""Exit statuses of `psyche-chain`: those that all commands share, and its own; scripts may rely on them."""

from typing import Final

from psyche_train.cli.exit_codes import CONFIG, ERROR, INTERRUPTED, NOT_FOUND, OK, USAGE

__all__ = [
    "CHAIN",
    "CLUSTER",
    "CONFIG",
    "ERROR",
    "INTERRUPTED",
    "NOT_FOUND",
    "NO_FUNDS",
    "OK",
    "PROGRAM",
    "TERMINATED",
    "TRAINER",
    "USAGE",
    "VERSION",
]

NO_FUNDS: Final = 5
"""A wallet lacks the SOL or the tokens for what was asked."""
CHAIN: Final = 6
"""No RPC endpoint answered, or a transaction did not land in time."""
PROGRAM: Final = 7
"""A program on chain refused the instruction."""
CLUSTER: Final = 8
"""The cluster lacks the three programs, or holds another version of them."""
VERSION: Final = 10
"""This client is older than the run allows."""
TERMINATED: Final = 143
"""SIGTERM, before the command had begun what a signal ends in good order."""
TRAINER: Final = 11
"""A process that trains for this member has ended; the member left the run and can be started again."""
