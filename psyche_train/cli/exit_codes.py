"""Exit statuses that all commands of the project share; scripts may rely on them."""

from typing import Final

OK: Final = 0
"""The command did what it was asked to do."""
ERROR: Final = 1
"""Something failed that no other status names."""
USAGE: Final = 2
"""The command line itself is wrong."""
CONFIG: Final = 3
"""A configuration, checkpoint or key file is missing, malformed or breaks a rule."""
NOT_FOUND: Final = 4
"""The run, account, member, checkpoint or file that was named does not exist."""
INTERRUPTED: Final = 130
"""Ctrl-C."""
