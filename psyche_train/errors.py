"""Errors that a user of a command sees.

    PsycheError
    ├── ConfigError          a configuration or key file
    ├── NotFoundError        what was named does not exist
    └── ...                  those of the chain: see psyche_chain.errors

Each carries one sentence that says what happened and where, a hint that says what to do next, and the exit
status of the command. They are rendered in one place, `psyche_train.cli.shell.run_app`.
"""

from psyche_train.cli import exit_codes


class PsycheError(Exception):
    """A failure with a sentence for the user, a hint and an exit status."""

    exit_code: int = exit_codes.ERROR

    def __init__(self, message: str, hint: str = "", exit_code: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if exit_code is not None:
            self.exit_code = exit_code

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class ConfigError(PsycheError):
    """A configuration or key file is missing, malformed or breaks a rule."""

    exit_code = exit_codes.CONFIG


class NotFoundError(PsycheError):
    """What was named does not exist."""

    exit_code = exit_codes.NOT_FOUND
