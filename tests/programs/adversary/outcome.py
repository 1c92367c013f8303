"""What became of a transaction: accepted, or refused with an error that has a name; anything else is a fault."""

import re
from dataclasses import dataclass, field
from typing import Any

from solders.system_program import ID as SYSTEM
from solders.token import ID as TOKEN
from solders.transaction_metadata import FailedTransactionMetadata
from solders.transaction_status import (
    InstructionErrorCustom,
    InstructionErrorFieldless,
    TransactionErrorInstructionError,
)

from tests.programs.chain_harness import ASSOCIATED, AUTHORIZER, COORDINATOR, TOKEN_2022, TREASURER

IDLS = {str(idl.program): idl for idl in (COORDINATOR, AUTHORIZER, TREASURER)}
SYSTEM_ERRORS = {0: "AccountAlreadyInUse", 1: "ResultWithNegativeLamports"}
TOKEN_ERRORS = {
    0: "NotRentExempt",
    1: "InsufficientFunds",
    2: "InvalidMint",
    3: "MintMismatch",
    4: "OwnerMismatch",
}
OTHER_ERRORS = {
    str(SYSTEM): SYSTEM_ERRORS,
    str(TOKEN): TOKEN_ERRORS,
    str(TOKEN_2022): TOKEN_ERRORS,
    str(ASSOCIATED): {0: "InvalidOwner"},
}
# What the runtime, a built-in program or Anchor says by itself. Not here: what only the runtime's last line of defence
# notices (ReadonlyDataModified, ExternalAccountLamportSpend, UnbalancedInstruction), and crashes.
RUNTIME_ERRORS = {
    "InvalidAccountData",
    "InvalidArgument",
    "InvalidInstructionData",
    "IllegalOwner",
    "IncorrectProgramId",
    "InsufficientFunds",
    "InvalidSeeds",
    "MissingAccount",
    "MissingRequiredSignature",
    "NotEnoughAccountKeys",
    "PrivilegeEscalation",
    "UninitializedAccount",
    "InvalidAccountOwner",
}
CRASH = re.compile(
    r"[Pp]anicked|failed to complete|exceeded CUs|ccess violation|out of memory|Unsupported sysvar"
)
ANCHOR = re.compile(r"Error Code: (\w+)\. Error Number: (\d+)\.")


@dataclass
class Outcome:
    """`error` is None when the transaction was accepted."""

    error: str | None
    own: bool = False
    """The error is the program's own, with a message that says what to do; not Anchor's or the runtime's."""
    faults: list[str] = field(default_factory=list)
    """What is wrong with the refusal itself: it has no name, or the program crashed."""
    damage: list[str] = field(default_factory=list)
    """What was changed by a refused transaction; money from nowhere. Nothing excuses it."""
    logs: list[str] = field(default_factory=list)

    @property
    def accepted(self) -> bool:
        return self.error is None


def judge(result: Any) -> Outcome:
    """Name a result, and note as faults errors without a name, crashes and an exhausted budget."""
    if not isinstance(result, FailedTransactionMetadata):
        outcome = Outcome(None, logs=result.logs())
    else:
        logs, error = result.meta().logs(), result.err()
        if isinstance(error, TransactionErrorInstructionError):
            outcome = _instruction_error(error.err, logs)
        else:
            outcome = Outcome(type(error).__name__.removeprefix("TransactionError"), logs=logs)
            if outcome.error != "InsufficientFundsForRent":
                outcome.faults.append(f"the transaction was refused as a whole: {error}")
    outcome.faults += [f"log: {line}" for line in outcome.logs if CRASH.search(line)]
    return outcome


def _instruction_error(error: Any, logs: list[str]) -> Outcome:
    if isinstance(error, InstructionErrorFieldless):
        name = str(error).removeprefix("InstructionErrorFieldless.")
        faults = [] if name in RUNTIME_ERRORS else [f"refused by the runtime: {name}"]
        return Outcome(name, faults=faults, logs=logs)
    if not isinstance(error, InstructionErrorCustom):
        return Outcome(str(error), faults=[f"an error without a name: {error}"], logs=logs)
    code = error.code
    failing = next((line.split()[1] for line in logs if " failed: custom program error" in line), "")
    if failing in IDLS and code in IDLS[failing].errors:
        return Outcome(IDLS[failing].errors[code], own=True, logs=logs)
    named = next((m[1] for line in logs if (m := ANCHOR.search(line)) and int(m[2]) == code), None)
    name = named or OTHER_ERRORS.get(failing, {}).get(code)
    faults = [] if name else [f"an error without a name: {code} of {failing}"]
    return Outcome(name or str(code), faults=faults, logs=logs)
