"""Errors of the chain client; the tree is drawn in `psyche_chain.errors`."""

from psyche_chain.cli import exit_codes
from psyche_chain.errors import FundsError, NotFoundError, PsycheError

__all__ = [
    "ChainError",
    "DecodeError",
    "FundsError",
    "NotFoundError",
    "ProgramError",
    "PsycheError",
    "RpcError",
    "RpcUnavailable",
    "TransactionExpired",
]


class ChainError(PsycheError):
    """Talking to the chain failed."""

    exit_code = exit_codes.CHAIN


class RpcError(ChainError):
    """An endpoint answered with a JSON-RPC error that another try would not change."""

    def __init__(self, message: str, *, code: int = 0, data: object = None, hint: str = "") -> None:
        super().__init__(message, hint)
        self.code = code
        self.data = data


class RpcUnavailable(RpcError):
    """No endpoint gave a usable answer before the deadline."""


class TransactionExpired(ChainError):
    """A transaction was not seen to land before the deadline."""


class DecodeError(ChainError):
    """Account bytes are not what they should be (wrong owner, discriminator, version or size)."""

    exit_code = exit_codes.ERROR


class ProgramError(ChainError):
    """A program on chain refused an instruction.

    Attributes:
        program: name of the program (`coordinator`, `token`, …) or its address.
        code: the number on chain, or None where the runtime itself refused.
        name: the error's name in the IDL, or the runtime's name for it.
        logs: the transaction's log lines, where they are known.
    """

    exit_code = exit_codes.PROGRAM

    def __init__(
        self,
        program: str,
        code: int | None,
        name: str,
        message: str,
        *,
        label: str = "",
        hint: str = "",
        logs: tuple[str, ...] = (),
    ) -> None:
        what = f"{label}: " if label else ""
        detail = f" {message}" if message else ""
        super().__init__(f"{what}{program} refused with {name}.{detail}", hint)
        self.program = program
        self.code = code
        self.name = name
        self.detail = message
        self.logs = logs
