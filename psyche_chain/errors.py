"""Errors that a user sees.

    PsycheError
    ├── ConfigError          a configuration or key file
    ├── NotFoundError        run, account or member
    ├── FundsError           SOL or tokens are missing
    ├── VersionError         this client is too old for the run
    ├── ClusterError         the cluster lacks the programs, or holds another version of them
    ├── RefusedError         the command makes no sense in the present state of the run
    └── ChainError           see psyche_chain.chain.errors
        ├── RpcError         an endpoint answered with an error
        │   └── RpcUnavailable   no endpoint answered
        ├── TransactionExpired
        ├── DecodeError      account bytes that are not what they should be
        └── ProgramError     a program refused

The first two branches and the base are `psyche_train.errors`. Each error carries one sentence that says what
happened and where, a hint that says what to do next, and the exit status of the command. They are rendered in
one place, `psyche_train.cli.shell.run_app`.
"""

from psyche_chain.cli import exit_codes
from psyche_train.errors import ConfigError, NotFoundError, PsycheError

__all__ = [
    "ClusterError",
    "ConfigError",
    "FundsError",
    "NotFoundError",
    "PsycheError",
    "RefusedError",
    "VersionError",
]


class FundsError(PsycheError):
    """A wallet lacks the SOL or the tokens for what was asked."""

    exit_code = exit_codes.NO_FUNDS


class VersionError(PsycheError):
    """This client is older than the run allows."""

    exit_code = exit_codes.VERSION


class RefusedError(PsycheError):
    """What was asked makes no sense in the present state of the run; nothing was sent."""

    exit_code = exit_codes.PROGRAM


class ClusterError(PsycheError):
    """The cluster lacks one of the three programs, or holds another version of it."""

    exit_code = exit_codes.CLUSTER
