"""Accounts in the encodings that clients ask for, and the filters of getProgramAccounts."""

from __future__ import annotations

import struct
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass

from base58 import b58decode, b58encode

from localnet.chain.errors import INVALID_REQUEST, RpcError, invalid_params
from localnet.chain.records import AccountRecord, Json
from localnet.chain.rpc.params import Config
from localnet.chain.rpc.parsed import parse_account
from localnet.chain.txmeta import text
from localnet.chain.view import View

ENCODINGS = ("binary", "base58", "base64", "base64+zstd", "jsonParsed")
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
            known = ", ".join(f"`{encoding}`" for encoding in ENCODINGS)
            raise invalid_params(f"Invalid params: unknown variant `{name}`, expected one of {known}.")
        part = config.get("dataSlice", dict, None)
        if part is None:
            return cls(name)
        offset, length = part.get("offset"), part.get("length")
        if not isinstance(offset, int) or not isinstance(length, int) or offset < 0 or length < 0:
            raise invalid_params("Invalid params: dataSlice takes `offset` and `length`, both usize.")
        return cls(name, offset, length)

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


Filter = Callable[[bytes], bool]
_MAX_FILTERS = 4


def filters(values: list[Json]) -> list[Filter]:
    """Compile dataSize, memcmp and tokenAccountState filters.

    Raises:
        RpcError: too many, or one that Solana would refuse.
    """
    if len(values) > _MAX_FILTERS:
        raise invalid_params(f"Too many filters provided; max {_MAX_FILTERS}")
    return [_filter(value) for value in values]


def _filter(value: Json) -> Filter:
    if value == "tokenAccountState":
        return lambda data: len(data) >= 165 and data[108] != 0
    if isinstance(value, dict) and isinstance(value.get("dataSize"), int):
        size = value["dataSize"]
        return lambda data: len(data) == size
    if isinstance(value, dict) and isinstance(value.get("memcmp"), dict):
        return _memcmp(value["memcmp"])
    raise invalid_params("Invalid params: a filter is `memcmp`, `dataSize` or `tokenAccountState`.")


def _memcmp(value: dict[str, Json]) -> Filter:
    offset, given = value.get("offset", 0), value.get("bytes")
    if not isinstance(offset, int) or isinstance(offset, bool) or offset < 0:
        raise invalid_params("Invalid params: memcmp takes an `offset` of 0 or more.")
    encoding = value.get("encoding") or "base58"
    try:
        if isinstance(given, list):
            wanted = bytes(given)
        elif isinstance(given, str) and encoding in ("base58", "binary") and len(given) <= 175:
            wanted = b58decode(given)
        elif isinstance(given, str) and encoding == "base64" and len(given) <= 172:
            wanted = b64decode(given, validate=True)
        else:
            raise ValueError
    except (ValueError, TypeError):
        raise invalid_params("Invalid param: Data too large or not in its encoding") from None
    if len(wanted) > _MAX_BASE58_BYTES:
        raise invalid_params("Invalid param: Data too large")
    return lambda data: data[offset : offset + len(wanted)] == wanted
