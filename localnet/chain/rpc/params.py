"""Reading a request's parameters with Solana's error texts."""

from __future__ import annotations

import re
from base64 import b64decode
from typing import Any

from base58 import b58decode
from solders.pubkey import Pubkey

from localnet.chain.errors import RpcError, invalid_params
from localnet.chain.records import Json

_MISSING = object()
COMMITMENTS = ("processed", "recent", "single", "singleGossip", "confirmed", "finalized", "max", "root")
_FINALIZED = ("finalized", "max", "root")
_UNCONFIRMED = ("processed", "recent")
_EXPECTED: dict[Any, str] = {
    str: "string or map",
    int: "u64",
    bool: "a boolean",
    list: "a sequence",
    dict: "a map",
}
_BASE64 = re.compile(rb"[A-Za-z0-9+/]")


class Params:
    """Positional parameters of one request."""

    def __init__(self, values: Json) -> None:
        self._missing = values is None
        if values is None:
            values = []
        if not isinstance(values, list):
            raise invalid_params("`params` should be an array")
        self._values = values

    def __len__(self) -> int:
        return len(self._values)

    def _get(self, index: int, kind: type | tuple[type, ...], name: str, default: Any) -> Any:
        value = self._values[index] if index < len(self._values) else None
        if value is None and default is not _MISSING:
            return default
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
            raise wrong_type(value, name)
        return value

    def check_count(self, required: int, optional: int) -> None:
        """Refuse a wrong number of parameters, in the words that the kind of method has for it.

        Raises:
            RpcError: too few or too many.
        """
        given = len(self._values)
        if required and not optional:
            if given != required:
                for index in range(min(given, required)):
                    self.integer(index)  # all such methods take numbers, and their types come first
                what = "invalid type: null" if self._missing else f"invalid length {given}"
                raise invalid_params(f"Invalid params: {what}, expected a tuple of size {required}.")
        elif given < required:
            raise invalid_params(f"`params` should have at least {required} argument(s)")
        elif given > required + optional:
            expected = f"Expected from {required} to {required + optional} parameters."
            if not required and not optional:
                expected = "No parameters were expected"
            error = invalid_params(f"Invalid parameters: {expected}")
            error.data = f'"Got: {given}"'
            raise error

    def peek(self, index: int) -> Json:
        """A value as it came."""
        return self._values[index] if index < len(self._values) else None

    def string(self, index: int, default: Any = _MISSING) -> str:
        value: str = self._get(index, str, "a string", default)
        return value

    def integer(self, index: int, default: Any = _MISSING, kind: str = "u64") -> int:
        value: int = self._get(index, int, kind, default)
        if value is not None and not 0 <= value < 1 << 64:
            raise invalid_params(f"Invalid params: invalid value: integer `{value}`, expected {kind}.")
        return value

    def array(self, index: int, default: Any = _MISSING) -> list[Json]:
        value: list[Json] = self._get(index, list, "a sequence", default)
        return value

    def config(self, index: int, struct: str = "RpcContextConfig") -> Config:
        """An optional configuration object; a bare commitment object is one as well."""
        return Config(self._get(index, dict, f"struct {struct}", {}))

    def address(self, index: int) -> bytes:
        return address(self.string(index))


class Config:
    """An optional configuration object; fields that Solana does not know are ignored, as Solana does."""

    def __init__(self, values: dict[str, Json]) -> None:
        self._values = values
        commitment = self.get("commitment", str, None)
        if commitment is not None and commitment not in COMMITMENTS:
            raise unknown_variant(commitment, "processed", "confirmed", "finalized")
        self.commitment: str | None = commitment

    def __contains__(self, name: str) -> bool:
        return self._values.get(name) is not None

    def get(self, name: str, kind: type | tuple[type, ...], default: Any, expected: str | None = None) -> Any:
        """A field, or the default where it is missing or null."""
        value = self._values.get(name)
        if value is None:
            return default
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
            raise wrong_type(value, expected or _EXPECTED.get(kind, f"`{name}`"))
        return value

    def raw(self) -> dict[str, Json]:
        """All fields as they came."""
        return self._values

    @property
    def finalized(self) -> bool:
        """Whether the finalized state is asked for; Solana's default where nothing is said."""
        return self.commitment is None or self.commitment in _FINALIZED

    def need_confirmed(self) -> None:
        """Refuse a commitment that history is not kept for.

        Raises:
            RpcError: `processed` was asked for.
        """
        if self.commitment in _UNCONFIRMED:
            raise invalid_params("Method does not support commitment below `confirmed`")


def strict_commitment(config: Config, field: str) -> None:
    """Refuse a commitment that is none of today's three.

    Raises:
        RpcError: an older name, or none at all.
    """
    value = config.get(field, str, None)
    if value not in (None, "processed", "confirmed", "finalized"):
        raise unknown_variant(value, "processed", "confirmed", "finalized")


def wrong_type(value: Json, expected: str) -> RpcError:
    """The error of a value of a type that a parameter cannot have."""
    return invalid_params(f"Invalid params: invalid type: {_name(value)}, expected {expected}.")


def unknown_variant(value: str, *known: str) -> RpcError:
    """The error of a word that is none of the known ones."""
    names = " or ".join(f"`{name}`" for name in known)
    if len(known) > 2:
        names = "one of " + ", ".join(f"`{name}`" for name in known)
    return invalid_params(f"Invalid params: unknown variant `{value}`, expected {names}.")


def missing_field(name: str) -> RpcError:
    """The error of a configuration without a field that it needs."""
    return invalid_params(f"Invalid params: missing field `{name}`.")


def _name(value: Json) -> str:
    if isinstance(value, bool):
        return f"boolean `{str(value).lower()}`"
    if isinstance(value, str):
        return f'string "{value}"'
    if isinstance(value, (int, float)):
        return f"{'integer' if isinstance(value, int) else 'floating point'} `{value}`"
    if isinstance(value, list):
        return "sequence"
    return "map" if isinstance(value, dict) else "null"


def address(text: str, error: str = "Invalid param: {}") -> bytes:
    """The bytes of a base58 address; `error` takes the reason why it is none."""
    try:
        return bytes(Pubkey.from_string(text))
    except ValueError:
        reason = "WrongSize" if _is_base58(text) else "Invalid"
        raise invalid_params(error.format(reason)) from None


def signature(text: str, error: str = "Invalid param: {}") -> bytes:
    """The 64 bytes of a base58 signature."""
    raw = _decode(text) if len(text) <= 90 else b""
    if raw is None:
        raise invalid_params(error.format("Invalid"))
    if len(raw) != 64:
        raise invalid_params(error.format("WrongSize"))
    return raw


def base58_error(text: str) -> str:
    """What Solana says of a text that is not base58."""
    for index, char in enumerate(text):
        if not _is_base58(char):
            return f"InvalidCharacter {{ character: '{char}', index: {index} }}"
    return "BufferTooSmall"


def from_base64(text: str) -> bytes:
    """The bytes of a base64 text.

    Raises:
        ValueError: it is none; the text is what Solana says of it.
    """
    data = text.encode("utf-8", "surrogatepass")
    try:
        return b64decode(data, validate=True)
    except ValueError:
        stripped = data.rstrip(b"=")
        for index in range(len(stripped)):
            if not _BASE64.match(stripped, index):
                raise ValueError(f"InvalidByte({index}, {stripped[index]})") from None
        raise ValueError("InvalidPadding") from None


def _is_base58(text: str) -> bool:
    return len(text) > 90 or _decode(text) is not None


def _decode(text: str) -> bytes | None:
    try:
        return b58decode(text)
    except ValueError:
        return None
