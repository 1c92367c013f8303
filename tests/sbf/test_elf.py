"""The ELF writer: what it makes runs in Solana's virtual machine; what it cannot make is refused by name."""

import struct

import pytest
from sbf_toolchain import elf
from sbf_toolchain.elf import LinkError
from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.litesvm import LiteSVM
from solders.message import Message
from solders.transaction import Transaction
from solders.transaction_metadata import TransactionMetadata

from .objects import CALL, EXIT, MESSAGE, NOTYPE, SECTION, TEXT, UNDEFINED, Object, logging_program, mov


def run(program: bytes) -> list[str]:
    """Load a program into LiteSVM, call it and return its log."""
    svm, payer, address = LiteSVM(), Keypair(), Keypair().pubkey()
    svm.airdrop(payer.pubkey(), 10**9)
    svm.add_program(address, program)
    blockhash = svm.latest_blockhash()
    message = Message.new_with_blockhash([Instruction(address, b"", [])], payer.pubkey(), blockhash)
    result = svm.send_transaction(Transaction([payer], message, blockhash))
    assert isinstance(result, TransactionMetadata), result
    return result.logs()


def test_link_program_with_every_kind_of_relocation_runs() -> None:
    program = elf.link(logging_program().to_bytes(), "entrypoint")
    assert f"Program log: {MESSAGE.decode()}" in run(program)


def test_link_is_deterministic() -> None:
    obj = logging_program().to_bytes()
    assert elf.link(obj, "entrypoint") == elf.link(obj, "entrypoint")


def test_link_call_by_section_symbol_reaches_the_function() -> None:
    # the immediate of a call through a section symbol is the instruction's index in the section, minus 1
    call = CALL[:4] + struct.pack("<i", 2)
    obj = Object(
        text=call + mov(0, 0) + EXIT + mov(0, 7) + EXIT,
        symbols=[("entrypoint", NOTYPE, TEXT, 0), (".text", SECTION, TEXT, 0)],
        text_relocations=[(0, 10, ".text")],
    )
    program = elf.link(obj.to_bytes(), "entrypoint")
    assert struct.unpack_from("<i", program, elf.TEXT_OFFSET + 4) == (2,)  # slot 3 = 0 + 1 + 2
    assert run(program)


def test_link_without_entry_point_is_refused() -> None:
    obj = Object(text=EXIT, symbols=[("main", NOTYPE, TEXT, 0)])
    with pytest.raises(LinkError, match="no function `entrypoint`"):
        elf.link(obj.to_bytes(), "entrypoint")
    obj.symbols = [("entrypoint", NOTYPE, TEXT, 0)]
    assert elf.link(obj.to_bytes(), "entrypoint")


def test_link_undefined_data_symbol_is_refused_by_name() -> None:
    obj = logging_program()
    obj.symbols[5] = ("pointer", NOTYPE, UNDEFINED, 0)
    with pytest.raises(LinkError, match="undefined data symbol pointer"):
        elf.link(obj.to_bytes(), "entrypoint")


def test_link_unknown_relocation_is_refused() -> None:
    obj = logging_program()
    obj.text_relocations[0] = (0, 3, "pointer")
    with pytest.raises(LinkError, match=r"type 3 in \.rel\.text for pointer"):
        elf.link(obj.to_bytes(), "entrypoint")


def test_link_lists_each_syscall_once() -> None:
    obj = Object(
        text=CALL + CALL + mov(0, 0) + EXIT,
        symbols=[("entrypoint", NOTYPE, TEXT, 0), ("sol_log_compute_units_", NOTYPE, UNDEFINED, 0)],
        text_relocations=[(0, 10, "sol_log_compute_units_"), (8, 10, "sol_log_compute_units_")],
    )
    program = elf.link(obj.to_bytes(), "entrypoint")
    assert program.count(b"sol_log_compute_units_") == 1
    assert sum("consumption" in line for line in run(program)) == 2
