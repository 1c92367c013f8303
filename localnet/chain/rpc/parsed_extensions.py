"""Token-2022 extensions of mints and token accounts, as `jsonParsed` shows them.

Behind an account's base (165 bytes) and its kind come entries: type and length (u16 each), then the data.
"""

from __future__ import annotations

import struct
from base64 import b64encode
from collections.abc import Callable

from localnet.chain.records import Json
from localnet.chain.txmeta import text

_FIRST_ENTRY = 166
_HEADER = struct.Struct("<HH")
_STATES = ("uninitialized", "initialized", "frozen")
Read = Callable[[bytes], dict[str, Json] | None]


def extensions(data: bytes) -> list[Json]:
    """All entries in their order; one that is not known is named so.

    Raises:
        struct.error, IndexError, UnicodeDecodeError: an entry is malformed.
    """
    found: list[Json] = []
    at = _FIRST_ENTRY
    while at + _HEADER.size <= len(data):
        kind, size = _HEADER.unpack_from(data, at)
        if kind == 0:
            break
        at += _HEADER.size
        name, read = _FORMS.get(kind, ("unparseableExtension", None))
        entry: dict[str, Json] = {"extension": name}
        if read is not None:
            entry["state"] = read(data[at : at + size])
        found.append(entry)
        at += size
    return found


def _key(data: bytes, offset: int) -> str | None:
    """A key that is none where it is all zeros."""
    value = data[offset : offset + 32]
    if len(value) != 32:
        raise IndexError(offset)
    return text(value) if any(value) else None


def _keys(*names: str) -> Read:
    """Optional keys, one after another."""
    return lambda data: {name: _key(data, 32 * index) for index, name in enumerate(names)}


def _flag(name: str) -> Read:
    return lambda data: {name: bool(data[0])}


def _fee(data: bytes, offset: int) -> dict[str, Json]:
    epoch, maximum, points = struct.unpack_from("<QQH", data, offset)
    return {"epoch": epoch, "maximumFee": maximum, "transferFeeBasisPoints": points}


def _transfer_fee_config(data: bytes) -> dict[str, Json]:
    return {
        "transferFeeConfigAuthority": _key(data, 0),
        "withdrawWithheldAuthority": _key(data, 32),
        "withheldAmount": struct.unpack_from("<Q", data, 64)[0],
        "olderTransferFee": _fee(data, 72),
        "newerTransferFee": _fee(data, 90),
    }


def _interest(data: bytes) -> dict[str, Json]:
    started, average, updated, rate = struct.unpack_from("<qhqh", data, 32)
    return {
        "rateAuthority": _key(data, 0),
        "initializationTimestamp": started,
        "preUpdateAverageRate": average,
        "lastUpdateTimestamp": updated,
        "currentRate": rate,
    }


def _scaled(data: bytes) -> dict[str, Json]:
    multiplier, since, following = struct.unpack_from("<dqd", data, 32)
    return {
        "authority": _key(data, 0),
        "multiplier": str(multiplier),
        "newMultiplierEffectiveTimestamp": since,
        "newMultiplier": str(following),
    }


def _metadata(data: bytes) -> dict[str, Json]:
    at = 64

    def string() -> str:
        nonlocal at
        (size,) = struct.unpack_from("<I", data, at)
        at += 4 + size
        return data[at - size : at].decode()

    name, symbol, uri = string(), string(), string()
    (count,) = struct.unpack_from("<I", data, at)
    at += 4
    return {
        "updateAuthority": _key(data, 0),
        "mint": text(data[32:64]),
        "name": name,
        "symbol": symbol,
        "uri": uri,
        "additionalMetadata": [[string(), string()] for _ in range(min(count, len(data)))],
    }


def _group(data: bytes) -> dict[str, Json]:
    size, most = struct.unpack_from("<QQ", data, 64)
    return {"updateAuthority": _key(data, 0), "mint": text(data[32:64]), "size": size, "maxSize": most}


def _member(data: bytes) -> dict[str, Json]:
    (number,) = struct.unpack_from("<Q", data, 64)
    return {"mint": text(data[:32]), "group": text(data[32:64]), "memberNumber": number}


def _confidential_mint(data: bytes) -> dict[str, Json]:
    auditor = data[33:65]
    return {
        "authority": _key(data, 0),
        "autoApproveNewAccounts": bool(data[32]),
        "auditorElgamalPubkey": b64encode(auditor).decode() if any(auditor) else None,
    }


_FORMS: dict[int, tuple[str, Read | None]] = {
    1: ("transferFeeConfig", _transfer_fee_config),
    2: ("transferFeeAmount", lambda data: {"withheldAmount": struct.unpack_from("<Q", data)[0]}),
    3: ("mintCloseAuthority", _keys("closeAuthority")),
    4: ("confidentialTransferMint", _confidential_mint),
    6: ("defaultAccountState", lambda data: {"accountState": _STATES[data[0]]}),
    7: ("immutableOwner", None),
    8: ("memoTransfer", _flag("requireIncomingTransferMemos")),
    9: ("nonTransferable", None),
    10: ("interestBearingConfig", _interest),
    11: ("cpiGuard", _flag("lockCpi")),
    12: ("permanentDelegate", _keys("delegate")),
    13: ("nonTransferableAccount", None),
    14: ("transferHook", _keys("authority", "programId")),
    15: ("transferHookAccount", _flag("transferring")),
    18: ("metadataPointer", _keys("authority", "metadataAddress")),
    19: ("tokenMetadata", _metadata),
    20: ("groupPointer", _keys("authority", "groupAddress")),
    21: ("tokenGroup", _group),
    22: ("groupMemberPointer", _keys("authority", "memberAddress")),
    23: ("tokenGroupMember", _member),
    25: ("scaledUiAmountConfig", _scaled),
    26: ("pausableConfig", lambda data: {"authority": _key(data, 0), "paused": bool(data[32])}),
    27: ("pausableAccount", None),
}
