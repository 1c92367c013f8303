"""Instructions sent through another program: `caller/`, which calls the program that it is given."""

from pathlib import Path

from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey

from tests.programs.chain_harness import Chain

CALLER = Pubkey(b"a program that calls another one")
UNDONE = 77
"""The caller's own error, after calls that it undoes."""
_SO = Path(__file__).with_name("caller") / "caller.so"


def install(chain: Chain) -> None:
    """Put the caller on the chain."""
    chain.svm.add_program(CALLER, _SO.read_bytes())


def through_caller(*instructions: Instruction, undo: bool = False) -> Instruction:
    """One instruction of the caller, which makes these calls in order; they share program and accounts.

    With `undo` the caller fails after the calls: it has seen what they did and does not like it.
    """
    first = instructions[0]
    assert all((i.program_id, i.accounts) == (first.program_id, first.accounts) for i in instructions)
    data = b"".join(len(i.data).to_bytes(2, "little") + bytes(i.data) for i in instructions)
    metas = [AccountMeta(first.program_id, False, False), *first.accounts]
    return Instruction(CALLER, data + b"\0" * undo, metas)
