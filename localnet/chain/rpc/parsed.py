"""`jsonParsed` accounts: token programs, lookup tables, upgradeable programs, nonces, sysvars."""

from __future__ import annotations

import struct
from base64 import b64encode

from localnet.chain.ids import (
    ADDRESS_LOOKUP_TABLE,
    BPF_LOADER_UPGRADEABLE,
    SYSTEM,
    SYSVAR_OWNER,
    TOKEN,
    TOKEN_PROGRAMS,
)
from localnet.chain.records import AccountRecord, Json
from localnet.chain.rpc.parsed_extensions import extensions
from localnet.chain.rpc.parsed_sysvars import parse_sysvar
from localnet.chain.txmeta import is_mint, is_token_account, text, ui_amount
from localnet.chain.view import View

_STATES = {1: "initialized", 2: "frozen"}
_TABLE_META = 56


def parse_account(view: View, address: bytes, record: AccountRecord) -> dict[str, Json] | None:
    """An account's content as fields, or None where its form is not known (it is then shown in base64)."""
    try:
        found = _parse(view, address, record)
    except (struct.error, IndexError, UnicodeDecodeError):
        return None
    if found is None:
        return None
    program, parsed = found
    return {"program": program, "parsed": parsed, "space": len(record.data)}


def _parse(view: View, address: bytes, record: AccountRecord) -> tuple[str, Json] | None:
    if record.owner in TOKEN_PROGRAMS:
        parsed = _token(view, record)
        name = "spl-token" if record.owner == TOKEN else "spl-token-2022"
        return None if parsed is None else (name, parsed)
    if record.owner == BPF_LOADER_UPGRADEABLE:
        parsed = _program(record.data)
        return None if parsed is None else ("bpf-upgradeable-loader", parsed)
    if record.owner == ADDRESS_LOOKUP_TABLE and len(record.data) >= _TABLE_META:
        return "address-lookup-table", _lookup_table(record.data)
    if record.owner == SYSTEM and len(record.data) == 80:
        return "nonce", _nonce(record.data)
    if record.owner == SYSVAR_OWNER:
        parsed = parse_sysvar(address, record.data)
        return None if parsed is None else ("sysvar", parsed)
    return None


def _option(data: bytes, offset: int) -> str | None:
    """A COption<Pubkey>: four bytes of tag, then the key."""
    return text(data[offset + 4 : offset + 36]) if data[offset] else None


def _token(view: View, record: AccountRecord) -> Json:
    data = record.data
    if is_token_account(record):
        return {"type": "account", "info": token_account(view, record)}
    if is_mint(record):
        (supply,) = struct.unpack_from("<Q", data, 36)
        mint: dict[str, Json] = {
            "mintAuthority": _option(data, 0),
            "supply": str(supply),
            "decimals": data[44],
            "isInitialized": bool(data[45]),
            "freezeAuthority": _option(data, 46),
        }
        return {"type": "mint", "info": _extended(mint, data)}
    if len(data) == 355:
        return {
            "type": "multisig",
            "info": {
                "numRequiredSigners": data[0],
                "numValidSigners": data[1],
                "isInitialized": bool(data[2]),
                "signers": [text(data[3 + 32 * i : 35 + 32 * i]) for i in range(data[1])],
            },
        }
    return None


def token_account(view: View, record: AccountRecord) -> dict[str, Json]:
    """A token account's fields; its mint's decimals are taken from the chain."""
    data = record.data
    decimals = view.get(data[:32]).data[44]
    (amount,) = struct.unpack_from("<Q", data, 64)
    info: dict[str, Json] = {
        "mint": text(data[:32]),
        "owner": text(data[32:64]),
        "tokenAmount": ui_amount(amount, decimals),
        "state": _STATES.get(data[108], "uninitialized"),
        "isNative": bool(data[109]),
    }
    if data[72]:
        (delegated,) = struct.unpack_from("<Q", data, 121)
        info["delegate"] = _option(data, 72)
        info["delegatedAmount"] = ui_amount(delegated, decimals)
    if data[109]:
        (reserve,) = struct.unpack_from("<Q", data, 113)
        info["rentExemptReserve"] = ui_amount(reserve, decimals)
    if data[129]:
        info["closeAuthority"] = _option(data, 129)
    return _extended(info, data)


def _extended(info: dict[str, Json], data: bytes) -> dict[str, Json]:
    found = extensions(data)
    return {**info, "extensions": found} if found else info


def _program(data: bytes) -> Json:
    (kind,) = struct.unpack_from("<I", data)
    if kind == 1:
        return {
            "type": "buffer",
            "info": {
                "authority": text(data[5:37]) if data[4] else None,
                "data": [b64encode(data[37:]).decode(), "base64"],
            },
        }
    if kind == 2:
        return {"type": "program", "info": {"programData": text(data[4:36])}}
    if kind == 3:
        (slot,) = struct.unpack_from("<Q", data, 4)
        return {
            "type": "programData",
            "info": {
                "slot": slot,
                "authority": text(data[13:45]) if data[12] else None,
                "data": [b64encode(data[45:]).decode(), "base64"],
            },
        }
    return {"type": "uninitialized"} if kind == 0 else None


def _lookup_table(data: bytes) -> Json:
    kind, deactivation, extended, start = struct.unpack_from("<IQQB", data)
    if kind != 1:
        return {"type": "uninitialized"}
    info: dict[str, Json] = {
        "deactivationSlot": str(deactivation),
        "lastExtendedSlot": str(extended),
        "lastExtendedSlotStartIndex": start,
        "addresses": [text(data[i : i + 32]) for i in range(_TABLE_META, len(data) - 31, 32)],
    }
    if data[21]:
        info["authority"] = text(data[22:54])
    return {"type": "lookupTable", "info": info}


def _nonce(data: bytes) -> Json:
    (state,) = struct.unpack_from("<I", data, 4)
    if state != 1:
        return {"type": "uninitialized"}
    (fee,) = struct.unpack_from("<Q", data, 72)
    return {
        "type": "initialized",
        "info": {
            "authority": text(data[8:40]),
            "blockhash": text(data[40:72]),
            "feeCalculator": {"lamportsPerSignature": str(fee)},
        },
    }
