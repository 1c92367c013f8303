"""Reading a request's parameters with Solana's error texts."""

from __future__ import annotations

from typing import Any

from base58 import b58decode
from solders.pubkey import Pubkey

from localnet.chain.errors import invalid_params
from localnet.chain.records import Json

_MISSING = object()
COMMITMENTS = ("processed", "recent", "single", "singleGossip", "confirmed", "finalized", "max", "root")
_FINALIZED = ("finalized", "max", "root")


class Params:
    """Positional parameters of one request."""

    def __init__(self, values: Json) -> None:
        if values is None:
            values = []
        if not isinstance(values, list):
            raise invalid_params("Invalid params: expected an array of positional parameters")
        self._values = values

    def __len__(self) -> int:
        return len(self._values)

    def _get(self, index: int, kind: type | tuple[type, ...], name: str, default: Any) -> Any:
        value = self._values[index] if index < len(self._values) else None
        if value is None:
            if default is _MISSING:
                raise invalid_params(f"`params` should have at least {index + 1} argument(s)")
            return default
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
            raise invalid_params(f"Invalid params: invalid type: {_name(value)}, expected {name}.")
        return value

    def peek(self, index: int) -> Json:
        """A value as it came."""
        return self._values[index] if index < len(self._values) else None

    def string(self, index: int, default: Any = _MISSING) -> str:
        value: str = self._get(index, str, "a string", default)
        return value

    def integer(self, index: int, default: Any = _MISSING) -> int:
        value: int = self._get(index, int, "u64", default)
        if value is not None and not 0 <= value < 1 << 64:
            raise invalid_params(f"Invalid params: invalid value: integer `{value}`, expected u64.")
        return value

    def array(self, index: int, default: Any = _MISSING) -> list[Json]:
        value: list[Json] = self._get(index, list, "a sequence", default)
        return value

    def config(self, index: int) -> Config:
        """An optional configuration object; a bare commitment object is one as well."""
        return Config(self._get(index, dict, "a configuration object", {}))

    def address(self, index: int) -> bytes:
        return address(self.string(index))


class Config:
    """An optional configuration object; fields that Solana does not know are ignored, as Solana does."""

    def __init__(self, values: dict[str, Json]) -> None:
        self._values = values
        commitment = self.get("commitment", str, None)
        if commitment is not None and commitment not in COMMITMENTS:
            raise invalid_params(
                f"Invalid params: unknown variant `{commitment}`, expected one of "
                + ", ".join(f"`{name}`" for name in ("processed", "confirmed", "finalized"))
                + "."
            )
        self.commitment: str | None = commitment

    def __contains__(self, name: str) -> bool:
        return self._values.get(name) is not None

    def get(self, name: str, kind: type | tuple[type, ...], default: Any) -> Any:
        """A field, or the default where it is missing or null."""
        value = self._values.get(name)
        if value is None:
            return default
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is int):
            raise invalid_params(f"Invalid params: invalid type: {_name(value)}, expected `{name}`.")
        return value

    @property
    def finalized(self) -> bool:
        """Whether the finalized state is asked for; Solana's default where nothing is said."""
        return self.commitment is None or self.commitment in _FINALIZED


def _name(value: Json) -> str:
    names: dict[type, str] = {str: "string", int: "integer", bool: "boolean", list: "sequence", dict: "map"}
    kind = names.get(type(value), "floating point")
    return f'{kind} "{value}"' if isinstance(value, str) else kind


def address(text: str) -> bytes:
    """The bytes of a base58 address."""
    try:
        return bytes(Pubkey.from_string(text))
    except ValueError:
        reason = "WrongSize" if _is_base58(text) else "Invalid"
        raise invalid_params(f"Invalid param: {reason}") from None


def signature(text: str) -> bytes:
    """The 64 bytes of a base58 signature."""
    raw = _decode(text) if len(text) <= 90 else b""
    if raw is None:
        raise invalid_params("Invalid param: Invalid")
    if len(raw) != 64:
        raise invalid_params("Invalid param: WrongSize")
    return raw


def _is_base58(text: str) -> bool:
    return len(text) > 90 or _decode(text) is not None


def _decode(text: str) -> bytes | None:
    try:
        return b58decode(text)
    except ValueError:
        return None
