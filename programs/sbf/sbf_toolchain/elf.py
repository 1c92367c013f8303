"""Turn one relocatable BPF object into the SBPF v0 shared object that the Solana loader takes.

The loader wants: text first and read-only data behind it, at equal addresses and file offsets; every address
that is stored in the program as a relocation that adds the load address; every syscall as a relocation by
symbol name.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from .errors import ToolchainError

# Relocation types: of the input object (LLVM's BPF target) and, for the last two, of the output as well.
R_64_64 = 1  # a 64-bit immediate load (`lddw`) of an address
R_64_ABS64 = 2  # an address stored in data
R_64_RELATIVE = 8  # output only: add the load address
R_64_32 = 10  # a call

SHT_PROGBITS, SHT_SYMTAB, SHT_NOBITS, SHT_REL = 1, 2, 8, 9
SHF_ALLOC, SHF_EXECINSTR = 2, 4
STT_SECTION = 3

OP_LDDW, OP_CALLX = 0x18, 0x8D
CALL_RELATIVE = 1  # source register of a call within the program; the loader resolves it by offset

EHDR, PHDR, SHDR, SYM, REL, DYN = "<16sHHIQQQIHHHHHH", "<IIQQQQQQ", "<IIQQQQIIQQ", "<IBBHQQ", "<QQ", "<QQ"
EM_BPF = 247
TEXT_OFFSET = 64 + 4 * 56  # behind the file header and four program headers


class LinkError(ToolchainError):
    """The object cannot become a Solana program."""


@dataclass(frozen=True, slots=True)
class Section:
    """One section header of the input, with its name and bytes."""

    name: str
    type: int
    flags: int
    link: int
    info: int
    align: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Symbol:
    """One symbol of the input; `section` 0 means undefined."""

    name: str
    type: int
    section: int
    value: int


@dataclass(slots=True)
class Segment:
    """Consecutive bytes of the output, and where each input section lies in them."""

    data: bytearray = field(default_factory=bytearray)
    address: int = 0
    offsets: dict[int, int] = field(default_factory=dict)

    def append(self, index: int, section: Section) -> None:
        """Place a section at its alignment, at least 8."""
        self.data.extend(bytes(-len(self.data) % max(section.align, 8)))
        self.offsets[index] = len(self.data)
        self.data.extend(section.data)


@dataclass(frozen=True, slots=True, order=True)
class Relocation:
    """One relocation of the output; `symbol` is empty unless it is a call of a syscall."""

    address: int
    type: int
    symbol: str


def link(obj: bytes, entry: str) -> bytes:
    """Link an object whose entry point is the function `entry`.

    Raises:
        LinkError: there is no such function, a data symbol is undefined, or a relocation is of an unknown
        type.
    """
    sections = read_sections(obj)
    symbols = read_symbols(sections)
    text, rodata = place(sections)
    linker = _Linker(sections, symbols, text, rodata)
    linker.relocate()
    name_callx_register_in_immediate(text.data)
    return write_program(
        text, rodata, entry, linker.entry_address(entry), linker.syscalls, linker.relocations
    )


def read_sections(obj: bytes) -> list[Section]:
    """Read the section table of a 64-bit little-endian ELF file."""
    header = struct.unpack_from(EHDR, obj)
    table, count, names_index = header[6], header[12], header[13]
    raw = [struct.unpack_from(SHDR, obj, table + 64 * i) for i in range(count)]
    names = obj[raw[names_index][4] :][: raw[names_index][5]]
    return [
        Section(
            name=_string(names, name),
            type=kind,
            flags=flags,
            link=link_index,
            info=info,
            align=align,
            data=bytes(size) if kind == SHT_NOBITS else obj[offset : offset + size],
        )
        for name, kind, flags, _, offset, size, link_index, info, align, _ in raw
    ]


def read_symbols(sections: Sequence[Section]) -> list[Symbol]:
    """Read the symbol table."""
    table = next(section for section in sections if section.type == SHT_SYMTAB)
    names = sections[table.link].data
    return [
        Symbol(_string(names, name), info & 15, section, value)
        for name, info, _, section, value, _ in struct.iter_unpack(SYM, table.data)
    ]


def place(sections: Sequence[Section]) -> tuple[Segment, Segment]:
    """Collect the sections with code, then those with data, and give both their addresses."""
    text, rodata = Segment(), Segment()
    for index, section in enumerate(sections):
        if section.flags & SHF_EXECINSTR and section.type == SHT_PROGBITS:
            text.append(index, section)
    for index, section in enumerate(sections):
        is_data = section.flags & SHF_ALLOC and not section.flags & SHF_EXECINSTR
        if is_data and section.name != ".eh_frame":
            rodata.append(index, section)
    text.data.extend(bytes(-len(text.data) % 8))
    text.address = TEXT_OFFSET
    rodata.address = _align(TEXT_OFFSET + len(text.data), 16)
    return text, rodata


class _Linker:
    """Applies the relocations of the input to the two segments and collects those of the output."""

    def __init__(
        self, sections: Sequence[Section], symbols: Sequence[Symbol], text: Segment, rodata: Segment
    ) -> None:
        self.sections = sections
        self.symbols = symbols
        self.segment_of = {index: segment for segment in (text, rodata) for index in segment.offsets}
        self.syscalls: list[str] = []
        self.relocations: list[Relocation] = []

    def entry_address(self, entry: str) -> int:
        found = [s for s in self.symbols if s.name == entry and s.section in self.segment_of]
        if not found:
            raise LinkError(
                f"no function `{entry}`: the program needs an entry point (feature no-entrypoint is off?)"
            )
        return self._address(found[-1])

    def relocate(self) -> None:
        for section in self.sections:
            if section.type != SHT_REL or section.info not in self.segment_of:
                continue
            segment = self.segment_of[section.info]
            for offset, info in struct.iter_unpack(REL, section.data):
                at = segment.offsets[section.info] + offset
                kind, symbol = info & 0xFFFFFFFF, self.symbols[info >> 32]
                if kind == R_64_32 and symbol.section == 0:
                    self._call_syscall(segment, at, symbol)
                elif kind == R_64_32:
                    self._call(segment, at, symbol)
                elif kind == R_64_64:
                    self._load_address(segment, at, symbol)
                elif kind == R_64_ABS64:
                    self._store_address(segment, at, symbol)
                else:
                    raise LinkError(
                        f"relocation of type {kind} in {section.name} for {symbol.name} is not known"
                    )
        self.relocations.sort()

    def _address(self, symbol: Symbol) -> int:
        segment = self.segment_of.get(symbol.section)
        if segment is None:
            raise LinkError(f"undefined data symbol {symbol.name}")
        return segment.address + segment.offsets[symbol.section] + symbol.value

    def _call_syscall(self, segment: Segment, at: int, symbol: Symbol) -> None:
        if symbol.name not in self.syscalls:
            self.syscalls.append(symbol.name)
        _set_call(segment.data, at, -1)
        self.relocations.append(Relocation(segment.address + at, R_64_32, symbol.name))

    def _call(self, segment: Segment, at: int, symbol: Symbol) -> None:
        target = self._address(symbol)
        if (
            symbol.type == STT_SECTION
        ):  # then the immediate is the function's instruction index in it, minus 1
            (index,) = struct.unpack_from("<i", segment.data, at + 4)
            target += (index + 1) * 8
        _set_call(segment.data, at, (target - segment.address - at) // 8 - 1)

    def _load_address(self, segment: Segment, at: int, symbol: Symbol) -> None:
        low, high = (struct.unpack_from("<I", segment.data, at + o)[0] for o in (4, 12))
        target = self._address(symbol) + (high << 32 | low)
        struct.pack_into("<I", segment.data, at + 4, target & 0xFFFFFFFF)
        struct.pack_into("<I", segment.data, at + 12, target >> 32)
        self.relocations.append(Relocation(segment.address + at, R_64_RELATIVE, ""))

    def _store_address(self, segment: Segment, at: int, symbol: Symbol) -> None:
        target = self._address(symbol) + struct.unpack_from("<Q", segment.data, at)[0]
        struct.pack_into("<II", segment.data, at, 0, target)  # the loader reads the upper half
        self.relocations.append(Relocation(segment.address + at, R_64_RELATIVE, ""))


def name_callx_register_in_immediate(text: bytearray) -> None:
    """Rewrite indirect calls: LLVM names the register in the destination field, SBPF v0 in the immediate."""
    at = 0
    while at < len(text):
        if text[at] == OP_CALLX:
            struct.pack_into("<i", text, at + 4, text[at + 1] & 15)
            text[at + 1] = 0
        at += 16 if text[at] == OP_LDDW else 8


def write_program(
    text: Segment,
    rodata: Segment,
    entry: str,
    entry_address: int,
    syscalls: Sequence[str],
    relocations: Sequence[Relocation],
) -> bytes:
    """Lay out the file: headers, text, read-only data, dynamic table with its parts, section headers."""
    names = [entry, *syscalls]
    dynstr = b"\0" + b"".join(name.encode() + b"\0" for name in names)
    name_offsets = list(accumulate((len(name) + 1 for name in names), initial=1))
    dynsym = bytes(24) + struct.pack(SYM, name_offsets[0], 0x12, 0, 1, entry_address, 0)
    for offset in name_offsets[1:-1]:
        dynsym += struct.pack(SYM, offset, 0x10, 0, 0, 0, 0)
    symbol_index = {name: 2 + k for k, name in enumerate(syscalls)}
    rel = b"".join(
        struct.pack(REL, r.address, (symbol_index[r.symbol] << 32 | r.type) if r.symbol else r.type)
        for r in relocations
    )

    num_relative = sum(r.type == R_64_RELATIVE for r in relocations)
    dynamic_at = _align(rodata.address + len(rodata.data), 8)
    dynsym_at = dynamic_at + 11 * 16
    dynstr_at = dynsym_at + len(dynsym)
    rel_at = _align(dynstr_at + len(dynstr), 8)
    end = rel_at + len(rel)
    entries = [
        (0x1E, 4),  # DT_FLAGS: DF_TEXTREL
        (0x11, rel_at if rel else 0),  # DT_REL; the loader takes a table without entries for an error
        (0x12, len(rel)),  # DT_RELSZ
        (0x13, 16),  # DT_RELENT
        (0x6FFFFFFA, num_relative),  # DT_RELCOUNT
        (6, dynsym_at),  # DT_SYMTAB
        (0xB, 24),  # DT_SYMENT
        (5, dynstr_at),  # DT_STRTAB
        (0xA, len(dynstr)),  # DT_STRSZ
        (0x16, 0),  # DT_TEXTREL
        (0, 0),  # DT_NULL
    ]
    dynamic = b"".join(struct.pack(DYN, *item) for item in entries)

    shstrtab = b"\0.text\0.rodata\0.dynamic\0.dynsym\0.dynstr\0.rel.dyn\0.shstrtab\0"
    # name, type, flags, address (0: not loaded), offset, bytes, link, info, alignment, entry size
    sections: list[tuple[bytes, int, int, int, int, bytes | bytearray, int, int, int, int]] = [
        (b".text", 1, 6, text.address, text.address, text.data, 0, 0, 8, 0),
        (b".rodata", 1, 2, rodata.address, rodata.address, rodata.data, 0, 0, 16, 0),
        (b".dynamic", 6, 3, dynamic_at, dynamic_at, dynamic, 5, 0, 8, 16),
        (b".dynsym", 11, 2, dynsym_at, dynsym_at, dynsym, 5, 1, 8, 24),
        (b".dynstr", 3, 2, dynstr_at, dynstr_at, dynstr, 0, 0, 1, 0),
        (b".rel.dyn", 9, 2, rel_at, rel_at, rel, 4, 0, 8, 16),
        (b".shstrtab", 3, 0, 0, end, shstrtab, 0, 0, 1, 0),
    ]
    table_at = _align(end + len(shstrtab), 8)
    segments = [  # type, flags, offset, size
        (1, 5, text.address, len(text.data)),
        (1, 4, rodata.address, len(rodata.data)),
        (1, 6, dynamic_at, end - dynamic_at),
        (2, 6, dynamic_at, len(dynamic)),
    ]

    out = bytearray(table_at + 64 * (len(sections) + 1))
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    counts = (64, 56, len(segments), 64, len(sections) + 1, len(sections))
    struct.pack_into(EHDR, out, 0, ident, 3, EM_BPF, 1, entry_address, 64, table_at, 0, *counts)
    for k, (kind, flags, at, size) in enumerate(segments):
        align = 0x1000 if kind == 1 else 8
        struct.pack_into(PHDR, out, 64 + 56 * k, kind, flags, at, at, at, size, size, align)
    for k, (name, kind, flags, address, at, data, link_index, info, align, entry_size) in enumerate(
        sections, 1
    ):
        out[at : at + len(data)] = data
        name_at = shstrtab.index(b"\0" + name + b"\0") + 1
        fields = (name_at, kind, flags, address, at, len(data), link_index, info, align, entry_size)
        struct.pack_into(SHDR, out, table_at + 64 * k, *fields)
    return bytes(out)


def _set_call(code: bytearray, at: int, immediate: int) -> None:
    struct.pack_into("<i", code, at + 4, immediate)
    code[at + 1] = (code[at + 1] & 0x0F) | CALL_RELATIVE << 4


def _string(table: bytes, offset: int) -> str:
    return table[offset : table.index(b"\0", offset)].decode()


def _align(value: int, to: int) -> int:
    return -(-value // to) * to
