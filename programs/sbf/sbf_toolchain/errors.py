"""The one error that the tools of this folder report to a user."""

import sys
from collections.abc import Callable
from typing import NoReturn


class ToolchainError(Exception):
    """Something a user can act on: says what failed, where, and what to do next."""

    def __init__(self, message: str, status: int = 1) -> None:
        """Keep the message and the exit status that the process should end with."""
        super().__init__(message)
        self.status = status


def run_main(tool: str, main: Callable[[], None]) -> NoReturn:
    """Run a tool's main function and exit: 0, or the error's status after `tool: message` on stderr."""
    try:
        main()
    except ToolchainError as error:
        print(f"{tool}: {error}", file=sys.stderr)
        sys.exit(error.status)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)
