"""Expected bytes of accounts: Borsh by the IDL, and the log's structs by the frozen layout."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.programs.borsh_idl import Idl
from tests.programs.fuzz.names import Keyring

LAYOUT = json.loads((Path(__file__).parents[3] / "programs/coordinator/layout.json").read_text())
SIGNED = {"phase_start", "epoch_start", "opened_at"}
CODES = {1: "B", 2: "H", 4: "I", 8: "Q"}
INTEGERS = {"u8": "B", "u16": "H", "u32": "I", "u64": "Q", "i64": "q"}


class Layout:
    """One struct of the log: packs a list of values in the order of `fields`."""

    def __init__(self, name: str) -> None:
        spec = LAYOUT[name]
        placed = sorted((at, size, field) for field, (at, size) in spec["fields"].items())
        self.size = spec["size"]
        self.fields = [field for _, _, field in placed if field != "_pad"]
        self.offsets = {field: at for at, _, field in placed}
        fmt, end = "<", 0
        for at, size, field in placed:
            fmt += "x" * (at - end)
            fmt += f"{size}x" if field == "_pad" else _code(field, size)
            end = at + size
        self._struct = struct.Struct(fmt + "x" * (self.size - end))
        assert self._struct.size == self.size, name
        self.pack = self._struct.pack

    def unpack(self, data: bytes, at: int) -> dict[str, Any]:
        """The fields of the struct at an offset."""
        return dict(zip(self.fields, self._struct.unpack_from(data, at), strict=True))


def _code(field: str, size: int) -> str:
    if size in CODES and field not in ("start", "pay_per_tier"):
        return "q" if field in SIGNED else CODES[size]
    return f"{size}s"


CONFIG, CHECKPOINT, ROUND, SLOT, HEADER = (
    Layout(n) for n in ("Config", "Checkpoint", "Round", "Slot", "Header")
)


class Borsh:
    """Packs the attributes of an object as an account of an IDL; keys are names."""

    def __init__(self, idl: Idl, name: str) -> None:
        self.discriminator = idl.accounts[name]
        self.fields = [f["name"] for f in idl.types[name]["fields"]]
        self._packers = [(f["name"], _packer(f["type"])) for f in idl.types[name]["fields"]]

    def pack(self, account: Any, keys: Keyring) -> bytes:
        """The account's bytes, without what may trail them."""
        parts = [pack(getattr(account, field), keys) for field, pack in self._packers]
        return self.discriminator + b"".join(parts)


def _packer(kind: Any) -> Callable[[Any, Keyring], bytes]:
    if isinstance(kind, str) and kind in INTEGERS:
        number = struct.Struct("<" + INTEGERS[kind])
        return lambda value, _keys: number.pack(value)
    if kind == "bool":
        return lambda value, _keys: bytes([value])
    if kind == "pubkey":
        return lambda value, keys: keys.raw(value)
    if kind == "string":
        return lambda value, _keys: struct.pack("<I", len(value.encode())) + value.encode()
    if kind == "bytes":
        return lambda value, _keys: struct.pack("<I", len(value)) + value
    if "array" in kind:
        return lambda value, _keys: value
    inner = _packer(kind["vec"])
    return lambda value, keys: struct.pack("<I", len(value)) + b"".join(inner(v, keys) for v in value)


def rent(size: int) -> int:
    """Lamports that keep an account of `size` data bytes."""
    return (size + 128) * 3480 * 2
