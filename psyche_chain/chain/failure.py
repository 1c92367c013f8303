"""From a transaction error, as the JSON-RPC gives it, to an error with a name and a next step."""

import re
from collections.abc import Sequence
from typing import Any, Final

from solders.instruction import Instruction
from solders.pubkey import Pubkey

from psyche_chain.chain.errors import FundsError, ProgramError, PsycheError
from psyche_chain.chain.programs import describe_error, program_name

_FAILED: Final = re.compile(r"^Program (\w{32,44}) failed: (?:custom program error: 0x([0-9a-fA-F]+)|(.*))$")
_LACKS: Final = re.compile(r"insufficient lamports (\d+), need (\d+)")

_RUNTIME_HINTS: Final = {
    "AccountNotFound": "",
    "BlockhashNotFound": "the transaction expired before it landed; run the command again",
    "AlreadyProcessed": "the same transaction landed before; look at the run with: psyche-chain status RUN",
    "ComputationalBudgetExceeded": "run the command again; if it stays, report it with --debug",
    "ProgramFailedToComplete": "run the command again; if it stays, report it with --debug",
    "InvalidProgramForExecution": "the program is not deployed on this cluster; check --rpc",
    "ProgramAccountNotFound": "the program is not deployed on this cluster; check --rpc",
    "UnsupportedProgramId": "the program is not deployed on this cluster; check --rpc",
    "MissingRequiredSignature": "sign with the wallet that owns the account: --keypair",
}
_NO_SOL: Final = frozenset({"AccountNotFound", "InsufficientFundsForFee", "InsufficientFundsForRent"})


def explain(
    err: Any,
    *,
    instructions: Sequence[Instruction],
    logs: Sequence[str] = (),
    label: str = "",
    payer: str = "",
) -> PsycheError:
    """Name a transaction error.

    Args:
        err: `err` of a signature status or a simulation.
        instructions: the transaction's instructions, to name the program of a failed one.
        logs: its log lines; they tell which program failed inside another.
        label: what was being done, for the message.
        payer: the wallet that pays, for the message.

    Returns:
        `FundsError` when SOL is missing, else `ProgramError`.
    """
    wallet = f"wallet {payer}" if payer else "the wallet"
    for line in logs:
        if lacks := _LACKS.search(line):
            have, need = int(lacks[1]), int(lacks[2])
            return FundsError(
                f"{label}: {wallet} has {have / 1e9:.9f} SOL, {need / 1e9:.9f} SOL is needed".removeprefix(
                    ": "
                ),
                "send SOL to it; on a test cluster: psyche-chain wallet airdrop 5",
            )
    kind, detail = _split(err)
    if kind == "InstructionError" and isinstance(detail, list) and len(detail) == 2:
        return _instruction_error(detail[0], detail[1], instructions, logs, label)
    if kind in _NO_SOL:
        return FundsError(
            f"{label}: {wallet} has no SOL for the fee or for rent ({kind})".removeprefix(": "),
            "send SOL to it; on a test cluster: psyche-chain wallet airdrop 5",
        )
    return ProgramError("the runtime", None, kind, "", label=label, hint=_RUNTIME_HINTS.get(kind, ""))


def _split(err: Any) -> tuple[str, Any]:
    if isinstance(err, dict) and len(err) == 1:
        kind, detail = next(iter(err.items()))
        return str(kind), detail
    return str(err), None


def _instruction_error(
    index: Any, detail: Any, instructions: Sequence[Instruction], logs: Sequence[str], label: str
) -> PsycheError:
    inside = isinstance(index, int) and 0 <= index < len(instructions)
    program = instructions[index].program_id if inside else None
    for line in logs:  # the first failure in the log is the innermost program's
        if found := _FAILED.match(line):
            program = Pubkey.from_string(found[1])
            break
    where = "a program" if program is None else program_name(program)
    kind, code = _split(detail)
    if program is None or kind != "Custom" or not isinstance(code, int):
        hint = _RUNTIME_HINTS.get(kind, "")
        return ProgramError(where, None, kind, "", label=label, hint=hint, logs=tuple(logs))
    name, message, hint = describe_error(program, code)
    if where in ("token", "token-2022") and name == "InsufficientFunds":
        return FundsError(
            f"{label}: {message}".removeprefix(": "),
            "look with: spl-token balance, or psyche-chain wallet balance",
        )
    return ProgramError(where, code, name, message, label=label, hint=hint, logs=tuple(logs))
