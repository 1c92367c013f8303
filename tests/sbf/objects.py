"""Relocatable BPF objects made by hand, so that the ELF writer is tested without LLVM."""

import struct
from dataclasses import dataclass, field

from sbf_toolchain.elf import EHDR, EM_BPF, REL, SHDR, SYM

NOTYPE, SECTION = 0, 3
UNDEFINED, TEXT, RODATA = 0, 1, 2


def insn(op: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    """Encode one instruction."""
    return struct.pack("<BBhi", op, src << 4 | dst, off, imm)


def lddw(dst: int, value: int = 0) -> bytes:
    """Encode a 64-bit immediate load: two instruction slots."""
    return insn(0x18, dst, imm=value & 0xFFFFFFFF) + insn(0, imm=value >> 32)


EXIT = insn(0x95)
CALL = insn(0x85, src=1, imm=-1)


def mov(dst: int, value: int) -> bytes:
    """Encode `dst = value`."""
    return insn(0xB7, dst, imm=value)


@dataclass
class Object:
    """Sections `.text` (index 1) and `.rodata` (index 2), symbols, and relocations of both sections."""

    text: bytes
    rodata: bytes = b""
    symbols: list[tuple[str, int, int, int]] = field(default_factory=list)
    """name, type, section, value"""
    text_relocations: list[tuple[int, int, str]] = field(default_factory=list)
    """offset, type, symbol"""
    rodata_relocations: list[tuple[int, int, str]] = field(default_factory=list)

    def to_bytes(self) -> bytes:
        """Lay the object out as llc does."""
        strtab, symtab, index = b"\0", bytes(24), {}
        for k, (name, kind, section, value) in enumerate(self.symbols, 1):
            symtab += struct.pack(SYM, len(strtab), 0x10 | kind, 0, section, value, 0)
            strtab += name.encode() + b"\0"
            index[name] = k
        relocations = [
            b"".join(struct.pack(REL, at, index[symbol] << 32 | kind) for at, kind, symbol in table)
            for table in (self.text_relocations, self.rodata_relocations)
        ]
        names = b"\0.text\0.rodata\0.symtab\0.strtab\0.rel.text\0.rel.rodata\0.shstrtab\0"
        # name, type, flags, data, link, info, alignment, entry size
        sections = [
            (b".text", 1, 6, self.text, 0, 0, 8, 0),
            (b".rodata", 1, 2, self.rodata, 0, 0, 8, 0),
            (b".symtab", 2, 0, symtab, 4, 0, 8, 24),
            (b".strtab", 3, 0, strtab, 0, 0, 1, 0),
            (b".rel.text", 9, 0, relocations[0], 3, TEXT, 8, 16),
            (b".rel.rodata", 9, 0, relocations[1], 3, RODATA, 8, 16),
            (b".shstrtab", 3, 0, names, 0, 0, 1, 0),
        ]
        body, headers = bytearray(64), [bytes(64)]
        for name, kind, flags, data, link, info, align, entry_size in sections:
            body.extend(bytes(-len(body) % 8))
            name_at = names.index(b"\0" + name + b"\0") + 1
            fields = (name_at, kind, flags, 0, len(body), len(data), link, info, align, entry_size)
            headers.append(struct.pack(SHDR, *fields))
            body.extend(data)
        body.extend(bytes(-len(body) % 8))
        ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
        counts = (64, 0, 0, 64, len(headers), len(headers) - 1)
        struct.pack_into(EHDR, body, 0, ident, 1, EM_BPF, 1, 0, 0, len(body), 0, *counts)
        return bytes(body) + b"".join(headers)


MESSAGE = b"linked by hand"


def logging_program() -> Object:
    """A program that logs `MESSAGE` by way of a pointer in data, a local function and an indirect call."""
    return Object(
        # entrypoint: r1 = &pointer; r1 = *r1; r2 = len; call helper; r0 = 0; exit
        text=lddw(1)
        + insn(0x79, 1, 1)
        + mov(2, len(MESSAGE))
        + CALL
        + mov(0, 0)
        + EXIT
        # helper: r3 = &logger; callx r3 (LLVM's form); exit     logger: call sol_log_; exit
        + lddw(3)
        + insn(0x8D, 3)
        + EXIT
        + CALL
        + EXIT,
        rodata=MESSAGE.ljust(16, b"\0") + bytes(8),
        symbols=[
            ("entrypoint", NOTYPE, TEXT, 0),
            ("helper", NOTYPE, TEXT, 56),
            ("logger", NOTYPE, TEXT, 88),
            ("sol_log_", NOTYPE, UNDEFINED, 0),
            ("message", NOTYPE, RODATA, 0),
            ("pointer", NOTYPE, RODATA, 16),
        ],
        text_relocations=[(0, 1, "pointer"), (32, 10, "helper"), (56, 1, "logger"), (88, 10, "sol_log_")],
        rodata_relocations=[(16, 2, "message")],
    )
