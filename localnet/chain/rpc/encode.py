"""Accounts in the encodings that clients ask for, and the filters of getProgramAccounts."""

from __future__ import annotations

import struct
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass

from base58 import b58decode, b58encode

from localnet.chain.errors import INVALID_REQUEST, RpcError, invalid_params
from localnet.chain.records import AccountRecord, Json
from localnet.chain.rpc.params import (
    Config,
    base58_error,
    from_base64,
    missing_field,
    unknown_variant,
    wrong_type,
)
from localnet.chain.rpc.parsed import parse_account
from localnet.chain.txmeta import text
from localnet.chain.view import View

ENCODINGS = ("binary", "base58", "base64", "jsonParsed", "base64+zstd")
_MAX_BASE58_BYTES = 128
_RENT_EPOCH = (1 << 64) - 1
"""What a rent-exempt account shows, and all accounts are."""
_ZSTD_BLOCK = 128 * 1024


@dataclass(frozen=True, slots=True)
class Encoding:
    """How an account's data is to be shown."""

    name: str = "binary"
    offset: int = 0
    length: int | None = None

    @classmethod
    def from_config(cls, config: Config, default: str = "binary") -> Encoding:
        name = config.get("encoding", str, default)
        if name not in ENCODINGS:
            raise unknown_variant(name, *ENCODINGS)
        part = config.get("dataSlice", dict, None, "struct UiDataSliceConfig")
        if part is None:
            return cls(name)
        return cls(name, usize(part, "offset"), usize(part, "length"))

    def cut(self, data: bytes) -> bytes:
        return data if self.length is None else data[self.offset : self.offset + self.length]


def account(view: View, address: bytes, record: AccountRecord, encoding: Encoding) -> dict[str, Json]:
    """An account in Solana's form."""
    return {
        "lamports": record.lamports,
        "data": _data(view, address, record, encoding),
        "owner": text(record.owner),
        "executable": record.executable,
        "rentEpoch": _RENT_EPOCH,
        "space": len(record.data),
    }


def _data(view: View, address: bytes, record: AccountRecord, encoding: Encoding) -> Json:
    if encoding.name == "jsonParsed":
        parsed = parse_account(view, address, record)
        if parsed is not None:
            return parsed
        return [b64encode(encoding.cut(record.data)).decode(), "base64"]
    data = encoding.cut(record.data)
    if encoding.name in ("binary", "base58"):
        if len(data) > _MAX_BASE58_BYTES:
            raise RpcError(
                INVALID_REQUEST,
                "Encoded binary (base 58) data should be less than 128 bytes, please use Base64 encoding.",
            )
        shown = b58encode(data).decode()
        return shown if encoding.name == "binary" else [shown, "base58"]
    if encoding.name == "base64+zstd":
        return [b64encode(zstd_frame(data)).decode(), "base64+zstd"]
    return [b64encode(data).decode(), "base64"]


def zstd_frame(data: bytes) -> bytes:
    """A Zstandard frame (RFC 8878) of raw blocks; a block of one repeated byte is a run-length block."""
    out = bytearray(struct.pack("<IBQ", 0xFD2FB528, 0xE0, len(data)))
    blocks = [data[i : i + _ZSTD_BLOCK] for i in range(0, len(data), _ZSTD_BLOCK)] or [b""]
    for index, block in enumerate(blocks):
        last = index == len(blocks) - 1
        run = len(block) > 1 and block.count(block[0]) == len(block)
        header = last | (1 << 1 if run else 0) | len(block) << 3
        out += header.to_bytes(3, "little") + (block[:1] if run else block)
    return bytes(out)


def usize(values: dict[str, Json], name: str) -> int:
    """A field that must be there and be a whole number of 0 or more."""
    if name not in values:
        raise missing_field(name)
    value = values[name]
    if not isinstance(value, int) or isinstance(value, bool):
        raise wrong_type(value, "usize")
    if not 0 <= value < 1 << 64:
        raise invalid_params(f"Invalid params: invalid value: integer `{value}`, expected usize.")
    return value


Filter = Callable[[bytes], bool]
MAX_FILTERS = 4
_FILTERS = ("dataSize", "memcmp", "tokenAccountState")
_MAX_TEXT = (175, 172)
"""Characters in which 128 bytes fit in base58, and in base64."""


def filters(values: list[Json]) -> list[Filter]:
    """Compile dataSize, memcmp and tokenAccountState filters.

    Raises:
        RpcError: too many, or one that Solana would refuse.
    """
    if len(values) > MAX_FILTERS:
        raise invalid_params(f"Too many filters provided; max {MAX_FILTERS}")
    return [_filter(value) for value in values]


def _filter(value: Json) -> Filter:
    if value == "tokenAccountState":
        return lambda data: len(data) >= 165 and data[108] != 0
    if isinstance(value, str):
        raise unknown_variant(value, *_FILTERS)
    if not isinstance(value, dict):
        raise wrong_type(value, "string or map")
    if len(value) != 1:
        raise invalid_params("Invalid params: invalid value: map, expected map with a single key.")
    (kind,) = value
    if kind == "dataSize":
        size = usize(value, kind)
        return lambda data: len(data) == size
    if kind != "memcmp":
        raise unknown_variant(kind, *_FILTERS)
    if not isinstance(value[kind], dict):
        raise wrong_type(value[kind], "struct Memcmp")
    return _memcmp(value[kind])


def _memcmp(value: dict[str, Json]) -> Filter:
    offset = usize(value, "offset")
    if "bytes" not in value:
        raise missing_field("bytes")
    wanted = _memcmp_bytes(value["bytes"], value.get("encoding") or "base58")
    if len(wanted) > _MAX_BASE58_BYTES:
        raise invalid_params("Invalid param: DataTooLarge")
    return lambda data: data[offset : offset + len(wanted)] == wanted


def _memcmp_bytes(given: Json, encoding: Json) -> bytes:
    """The bytes to compare with; lists of numbers need no encoding."""
    if encoding not in ("base58", "binary", "base64", "bytes"):
        raise unknown_variant(str(encoding), "base58", "base64", "bytes")
    if isinstance(given, list):
        try:
            return bytes(given)
        except (ValueError, TypeError):
            raise wrong_type(given, "a list of bytes") from None
    if not isinstance(given, str):
        raise wrong_type(given, "a string")
    if len(given) > _MAX_TEXT[encoding == "base64"]:
        raise invalid_params("Invalid param: DataTooLarge")
    if encoding == "base64":
        try:
            return from_base64(given)
        except ValueError as exc:
            raise invalid_params(f"Invalid param: Base64DecodeError({exc})") from None
    try:
        return b58decode(given)
    except ValueError:
        raise invalid_params(f"Invalid param: Base58DecodeError({base58_error(given)})") from None
