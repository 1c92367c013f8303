"""Included transactions in the encodings that clients ask for."""

from __future__ import annotations

import struct
from base64 import b64encode

from base58 import b58decode, b58encode
from solders.transaction import VersionedTransaction

from localnet.chain.errors import UNSUPPORTED_VERSION, RpcError, invalid_params
from localnet.chain.ids import (
    ADDRESS_LOOKUP_TABLE,
    ASSOCIATED_TOKEN,
    MEMO,
    MEMO_V1,
    SYSTEM,
    TOKEN,
    TOKEN_2022,
)
from localnet.chain.message import Parsed, parse
from localnet.chain.records import Json
from localnet.chain.rpc.params import Config
from localnet.chain.rpc.parsed_instructions import parse_instruction
from localnet.chain.txmeta import text

UNKNOWN_ENCODING = "Invalid params: data did not match any variant of untagged enum RpcEncodingConfigWrapper."
ENCODINGS = ("json", "jsonParsed", "base64", "base58", "binary")
_NAMES = {
    SYSTEM: "system",
    TOKEN: "spl-token",
    TOKEN_2022: "spl-token",
    ADDRESS_LOOKUP_TABLE: "address-lookup-table",
    ASSOCIATED_TOKEN: "spl-associated-token-account",
    MEMO: "spl-memo",
    MEMO_V1: "spl-memo",
}


def encoding_of(config: Config, default: str = "json") -> str:
    """The transaction encoding asked for."""
    name: str = config.get("encoding", str, default)
    if name not in ENCODINGS:
        raise invalid_params(UNKNOWN_ENCODING)
    return name


def encode(raw: bytes, meta: dict[str, Json], encoding: str, max_version: int | None) -> dict[str, Json]:
    """A transaction with its meta, and its version where the client knows of versions.

    Raises:
        RpcError: it is versioned and the client did not say that it takes that.
    """
    message = parse(VersionedTransaction.from_bytes(raw))
    if message.version is not None and (max_version is None or max_version < message.version):
        raise RpcError(
            UNSUPPORTED_VERSION,
            f"Transaction version ({message.version}) is not supported by the requesting client. "
            "Please try the request again with the following configuration parameter: "
            f'"maxSupportedTransactionVersion": {message.version}',
        )
    shown = {name: value for name, value in meta.items() if name != "memo"}
    if shown.get("returnData") is None:
        shown.pop("returnData", None)
    transaction: Json
    if encoding == "base64":
        transaction = [b64encode(raw).decode(), "base64"]
    elif encoding in ("base58", "binary"):
        data = b58encode(raw).decode()
        transaction = data if encoding == "binary" else [data, "base58"]
    else:
        tx = VersionedTransaction.from_bytes(raw)
        parsed = encoding == "jsonParsed"
        body = _parsed_message(message, meta) if parsed else _message(message)
        transaction = {"signatures": [str(signature) for signature in tx.signatures], "message": body}
        if parsed:
            shown = _parsed_meta(shown, message)
    result: dict[str, Json] = {"transaction": transaction, "meta": shown}
    if max_version is not None:
        result["version"] = "legacy" if message.version is None else message.version
    return result


def _lookups(message: Parsed) -> list[Json]:
    return [
        {
            "accountKey": text(table),
            "writableIndexes": list(writable),
            "readonlyIndexes": list(readonly),
        }
        for table, writable, readonly in message.lookups
    ]


def _message(message: Parsed) -> dict[str, Json]:
    body: dict[str, Json] = {
        "header": {
            "numRequiredSignatures": message.num_signers,
            "numReadonlySignedAccounts": message.num_readonly_signed,
            "numReadonlyUnsignedAccounts": message.num_readonly_unsigned,
        },
        "accountKeys": [text(key) for key in message.static_keys],
        "recentBlockhash": text(message.blockhash),
        "instructions": [
            {
                "programIdIndex": message.static_keys.index(ix.program),
                "accounts": list(ix.accounts),
                "data": b58encode(ix.data).decode(),
                "stackHeight": 1,
            }
            for ix in message.instructions
        ],
    }
    if message.version is not None:
        body["addressTableLookups"] = _lookups(message)
    return body


def account_keys(message: Parsed, meta: dict[str, Json]) -> list[dict[str, Json]]:
    """All keys with their roles, loaded ones last."""
    keys = [
        {
            "pubkey": text(key),
            "signer": index < message.num_signers,
            "writable": message.static_writable(index),
            "source": "transaction",
        }
        for index, key in enumerate(message.static_keys)
    ]
    loaded = meta["loadedAddresses"]
    for role in ("writable", "readonly"):
        keys += [
            {"pubkey": key, "signer": False, "writable": role == "writable", "source": "lookupTable"}
            for key in loaded[role]
        ]
    return keys


def _parsed_message(message: Parsed, meta: dict[str, Json]) -> dict[str, Json]:
    keys = account_keys(message, meta)
    names = [str(key["pubkey"]) for key in keys]
    body: dict[str, Json] = {
        "accountKeys": keys,
        "recentBlockhash": text(message.blockhash),
        "instructions": [
            _instruction(names, text(ix.program), list(ix.accounts), ix.data, 1)
            for ix in message.instructions
        ],
    }
    if message.version is not None:
        body["addressTableLookups"] = _lookups(message)
    return body


def _parsed_meta(meta: dict[str, Json], message: Parsed) -> dict[str, Json]:
    names = [str(key["pubkey"]) for key in account_keys(message, meta)]
    if meta["innerInstructions"] is None:
        return {name: value for name, value in meta.items() if name != "loadedAddresses"}
    groups = [
        {
            "index": group["index"],
            "instructions": [
                _instruction(
                    names,
                    names[ix["programIdIndex"]],
                    ix["accounts"],
                    b58decode(ix["data"]),
                    ix["stackHeight"],
                )
                for ix in group["instructions"]
            ],
        }
        for group in meta["innerInstructions"]
    ]
    shown = {name: value for name, value in meta.items() if name != "loadedAddresses"}
    return {**shown, "innerInstructions": groups}


def _instruction(names: list[str], program: str, accounts: list[int], data: bytes, height: int) -> Json:
    """An instruction as fields, or partly decoded where its program is not known."""
    involved = [names[index] for index in accounts]
    for address, name in _NAMES.items():
        if text(address) != program:
            continue
        try:
            parsed = parse_instruction(name, involved, data)
        except (IndexError, struct.error, UnicodeDecodeError):
            parsed = None
        if parsed is not None:
            return {"program": name, "programId": program, "parsed": parsed, "stackHeight": height}
    return {
        "programId": program,
        "accounts": involved,
        "data": b58encode(data).decode(),
        "stackHeight": height,
    }
