"""Borsh by an Anchor IDL: instructions, accounts, events and errors of one program, for the tests.

Written apart from the client on purpose: what the client encodes and what these tests encode must agree
because both follow the IDL, not because they share code.
"""

import base64
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey

INTEGERS = {"u8": "B", "u16": "H", "u32": "I", "u64": "Q", "i64": "q"}


@dataclass(frozen=True)
class Claimed:
    """In the place of a string or list: a length, and nothing of that length."""

    length: int


class Idl:
    """One program's interface description."""

    def __init__(self, path: Path) -> None:
        idl = json.loads(path.read_text())
        self.program = Pubkey.from_string(idl["address"])
        self.instructions = {i["name"]: i for i in idl["instructions"]}
        self.accounts = {a["name"]: bytes(a["discriminator"]) for a in idl.get("accounts", [])}
        self.events = {bytes(e["discriminator"]): e["name"] for e in idl.get("events", [])}
        self.errors = {e["code"]: e["name"] for e in idl.get("errors", [])}
        self.types = {t["name"]: t["type"] for t in idl.get("types", [])}

    def instruction(self, name: str, accounts: dict[str, Pubkey | None], /, **args: Any) -> Instruction:
        """Build an instruction; an optional account that is None becomes the program's id."""
        ix = self.instructions[name]
        expected = {a["name"] for a in ix["accounts"]} | {a["name"] for a in ix["args"]}
        given = {a for a in accounts if a in expected} | set(args)
        assert given == expected, f"{name}: missing {expected - given}, unknown {given - expected}"
        metas = [
            AccountMeta(
                accounts[a["name"]] or self.program,
                a.get("signer", False),
                a.get("writable", False) and accounts[a["name"]] is not None,
            )
            for a in ix["accounts"]
        ]
        data = bytes(ix["discriminator"]) + b"".join(
            self.encode(a["type"], args[a["name"]]) for a in ix["args"]
        )
        return Instruction(self.program, data, metas)

    def decode_account(self, name: str, data: bytes) -> dict[str, Any]:
        assert data[:8] == self.accounts[name], f"not a {name}"
        return self.decode({"defined": {"name": name}}, data, 8)[0]

    def decode_events(self, logs: list[str]) -> list[tuple[str, dict[str, Any]]]:
        found = []
        for line in logs:
            if line.startswith("Program data: "):
                data = base64.b64decode(line.split()[-1])
                if name := self.events.get(data[:8]):
                    found.append((name, self.decode({"defined": {"name": name}}, data, 8)[0]))
        return found

    def encode(self, kind: Any, value: Any) -> bytes:
        if isinstance(value, Claimed):
            return struct.pack("<I", value.length)
        if isinstance(kind, str):
            return _encode_plain(kind, value)
        if "array" in kind:
            inner, length = kind["array"]
            assert len(value) == length
            return bytes(value) if inner == "u8" else b"".join(self.encode(inner, v) for v in value)
        if "vec" in kind:
            return struct.pack("<I", len(value)) + b"".join(self.encode(kind["vec"], v) for v in value)
        defined = self.types[kind["defined"]["name"]]
        if defined["kind"] == "struct":
            return b"".join(self.encode(f["type"], value[f["name"]]) for f in defined["fields"])
        variant, fields = value  # an enum: (name, fields)
        names = [v["name"] for v in defined["variants"]]
        chosen = defined["variants"][names.index(variant)]
        body = b"".join(self.encode(f["type"], fields[f["name"]]) for f in chosen.get("fields", []))
        return bytes([names.index(variant)]) + body

    def decode(self, kind: Any, data: bytes, at: int) -> tuple[Any, int]:
        if isinstance(kind, str):
            return _decode_plain(kind, data, at)
        if "array" in kind:
            inner, length = kind["array"]
            if inner == "u8":
                return data[at : at + length], at + length
            return self._decode_many(inner, length, data, at)
        if "vec" in kind:
            (length,) = struct.unpack_from("<I", data, at)
            return self._decode_many(kind["vec"], length, data, at + 4)
        defined = self.types[kind["defined"]["name"]]
        if defined["kind"] == "enum":
            return defined["variants"][data[at]]["name"], at + 1
        value = {}
        for field in defined["fields"]:
            value[field["name"]], at = self.decode(field["type"], data, at)
        return value, at

    def _decode_many(self, kind: Any, length: int, data: bytes, at: int) -> tuple[list[Any], int]:
        values = []
        for _ in range(length):
            value, at = self.decode(kind, data, at)
            values.append(value)
        return values, at


def _encode_plain(kind: str, value: Any) -> bytes:
    if kind in INTEGERS:
        return struct.pack("<" + INTEGERS[kind], value)
    if kind == "bool":
        return bytes([value])
    if kind == "pubkey":
        return bytes(value)
    data = value.encode() if kind == "string" else bytes(value)
    return struct.pack("<I", len(data)) + data


def _decode_plain(kind: str, data: bytes, at: int) -> tuple[Any, int]:
    if kind in INTEGERS:
        code = "<" + INTEGERS[kind]
        return struct.unpack_from(code, data, at)[0], at + struct.calcsize(code)
    if kind == "bool":
        return bool(data[at]), at + 1
    if kind == "pubkey":
        return Pubkey.from_bytes(data[at : at + 32]), at + 32
    (length,) = struct.unpack_from("<I", data, at)
    value = data[at + 4 : at + 4 + length]
    return (value.decode() if kind == "string" else value), at + 4 + length
