"""Exit statuses of `psyche-chain`; scripts may rely on them."""

from typing import Final

OK: Final = 0
"""The command did what it was asked to do."""
ERROR: Final = 1
"""Something failed that no other status names."""
USAGE: Final = 2
"""The command line itself is wrong."""
CONFIG: Final = 3
"""A configuration or key file is missing, malformed or breaks a rule."""
NOT_FOUND: Final = 4
"""The run, account or member that was named does not exist."""
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
INTERRUPTED: Final = 130
"""Ctrl-C."""
