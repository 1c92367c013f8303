"""The only module that touches anchorpy: Borsh by IDL, in and out, as plain values.

anchorpy (the `anchorpy3` distribution) reads the current IDL format. Its quirks stay here: arguments are
deep-copied, so keys must be picklable; structures may be given as dicts; enumerations need anchorpy's own
constructors.
"""

import base64
import binascii
import copyreg
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from anchorpy.coder.coder import Coder
from anchorpy.coder.idl import _idl_typedef_to_python_type
from anchorpy.error import LangErrorMessage, _LangErrorCode
from anchorpy.idl_adapter import Idl
from anchorpy.program.common import NamedInstruction
from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey

from psyche_chain.chain.errors import DecodeError

copyreg.pickle(Pubkey, lambda key: (Pubkey.from_bytes, (bytes(key),)))

FRAMEWORK_ERRORS: dict[int, tuple[str, str]] = {
    int(code): (code.name, LangErrorMessage.get(code, "")) for code in _LangErrorCode
}
"""Anchor's own error codes: number to (name, message)."""


@dataclass(frozen=True, slots=True)
class Event:
    """An event that a program emitted."""

    program: str
    name: str
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _AccountSpec:
    name: str
    writable: bool
    signer: bool
    optional: bool
    address: Pubkey | None


class AnchorProgram:
    """One program as its IDL describes it."""

    def __init__(self, name: str, idl_json: str) -> None:
        raw = json.loads(idl_json)
        idl = Idl.from_json(idl_json)
        self.name = name
        self.id = Pubkey.from_string(raw["address"])
        self._coder = Coder(idl)
        self._types = {t.name: t for t in idl.types}
        self._all_types = idl.types
        self._accounts: dict[str, list[_AccountSpec]] = {}
        self._arguments: dict[str, set[str]] = {}
        for ix in raw["instructions"]:
            self._accounts[ix["name"]] = [_account_spec(a) for a in ix["accounts"]]
            self._arguments[ix["name"]] = {a["name"] for a in ix["args"]}
        self.errors: dict[int, tuple[str, str]] = {
            int(e["code"]): (e["name"], e.get("msg", "")) for e in raw.get("errors", [])
        }
        self.discriminators: dict[str, bytes] = {
            a["name"]: bytes(a["discriminator"]) for a in raw.get("accounts", [])
        }
        self._events: dict[bytes, str] = {bytes(e["discriminator"]): e["name"] for e in raw.get("events", [])}

    @classmethod
    def load(cls, path: Path) -> "AnchorProgram":
        """Read `<name>.json`."""
        return cls(path.stem, path.read_text())

    def instruction(
        self, name: str, args: Mapping[str, Any], accounts: Mapping[str, Pubkey | None]
    ) -> Instruction:
        """Build an instruction. Absent optional accounts are None; those of fixed address may be left out.

        Raises:
            KeyError, ValueError: names or values do not fit the IDL (a bug of the caller).
        """
        if set(args) != self._arguments[name]:
            raise ValueError(f"{self.name}.{name} takes {sorted(self._arguments[name])}, not {sorted(args)}")
        metas = []
        for spec in self._accounts[name]:
            key = accounts.get(spec.name, spec.address)
            if key is None:
                if not spec.optional:
                    raise ValueError(f"{self.name}.{name} needs the account {spec.name}")
                metas.append(AccountMeta(self.id, is_signer=False, is_writable=False))
            else:
                metas.append(AccountMeta(key, is_signer=spec.signer, is_writable=spec.writable))
        if unknown := set(accounts) - {spec.name for spec in self._accounts[name]}:
            raise ValueError(f"{self.name}.{name} has no accounts {sorted(unknown)}")
        data = self._coder.instruction.build(NamedInstruction(name=name, data=dict(args)))
        return Instruction(self.id, data, metas)

    def variant(self, enum: str, name: str, /, *values: Any, **named: Any) -> Any:
        """A value of an enumeration, to be passed as an argument of `instruction`."""
        python_type = _idl_typedef_to_python_type(self._types[enum], self._all_types)
        return getattr(python_type, name)(*values, **named)

    def decode(self, name: str, data: bytes) -> dict[str, Any]:
        """Decode an account's bytes. Byte arrays come as `bytes`, structures as dicts.

        Raises:
            DecodeError: the bytes are not an account of that name.
        """
        expected = self.discriminators[name]
        if data[:8] != expected:
            raise DecodeError(
                f"a {name} account starts with {data[:8].hex() or 'nothing'}, not {expected.hex()}"
            )
        try:
            value = self._coder.accounts.decode(bytes(data))
        except Exception as exc:  # construct raises many kinds on bytes that do not fit
            raise DecodeError(f"a {name} account of {len(data)} bytes does not decode: {exc}") from exc
        decoded: dict[str, Any] = plain(value)
        return decoded

    def events(self, logs: Iterable[str]) -> list[Event]:
        """Events of this program in a transaction's logs; lines that do not decode are passed over."""
        found = []
        stack: list[str] = []
        for line in logs:
            words = line.split()
            if len(words) >= 3 and words[0] == "Program" and words[2] == "invoke":
                stack.append(words[1])
            elif len(words) >= 3 and words[0] == "Program" and words[2].rstrip(":") in ("success", "failed"):
                stack = stack[:-1]
            elif line.startswith("Program data: ") and stack and stack[-1] == str(self.id):
                found.append(self._event(line.removeprefix("Program data: ")))
        return [event for event in found if event is not None]

    def _event(self, text: str) -> Event | None:
        try:
            data = base64.b64decode(text, validate=True)
            if data[:8] not in self._events:
                return None
            parsed = self._coder.events.parse(data)
        except (binascii.Error, ValueError):
            return None
        except Exception:  # construct raises many kinds on bytes that do not fit
            return None
        return Event(self.name, parsed.name, plain(parsed.data))


def _account_spec(raw: Mapping[str, Any]) -> _AccountSpec:
    address = raw.get("address")
    return _AccountSpec(
        raw["name"],
        bool(raw.get("writable")),
        bool(raw.get("signer")),
        bool(raw.get("optional")),
        None if address is None else Pubkey.from_string(address),
    )


def plain(value: Any) -> Any:
    """Turn anchorpy's dataclasses and containers into dicts, lists, `bytes` and numbers."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name.rstrip("_"): plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items() if not str(k).startswith("_")}
    if isinstance(value, list):
        if value and all(isinstance(v, int) and not isinstance(v, bool) and 0 <= v < 256 for v in value):
            return bytes(value) if len(value) == 32 else list(value)
        return [plain(v) for v in value]
    return value
