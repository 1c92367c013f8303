"""`jsonParsed` instructions of the programs that wallets and explorers show by name."""

from __future__ import annotations

import struct

from localnet.chain.records import Json
from localnet.chain.txmeta import text, ui_amount

_AUTHORITIES = ("mintTokens", "freezeAccount", "accountOwner", "closeAccount")


def parse_instruction(program: str, accounts: list[str], data: bytes) -> Json:
    """An instruction's type and fields; None where it is not known.

    Raises:
        struct.error, IndexError, UnicodeDecodeError: it is malformed.
    """
    if program == "spl-memo":
        return data.decode()
    if program == "system":
        return _system(accounts, data)
    if program == "spl-token":
        return _token(accounts, data)
    if program == "address-lookup-table":
        return _lookup_table(accounts, data)
    kinds = {b"": "create", b"\x00": "create", b"\x01": "createIdempotent"}
    if data not in kinds:
        return None
    names = ("source", "account", "wallet", "mint", "systemProgram", "tokenProgram")
    return {"type": kinds[data], "info": dict(zip(names, accounts, strict=False))}


def _system(accounts: list[str], data: bytes) -> Json:
    (kind,) = struct.unpack_from("<I", data)
    if kind == 0:
        lamports, space = struct.unpack_from("<QQ", data, 4)
        info = {
            "source": accounts[0],
            "newAccount": accounts[1],
            "lamports": lamports,
            "space": space,
            "owner": text(data[20:52]),
        }
        return {"type": "createAccount", "info": info}
    if kind == 1:
        return {"type": "assign", "info": {"account": accounts[0], "owner": text(data[4:36])}}
    if kind == 2:
        (lamports,) = struct.unpack_from("<Q", data, 4)
        info = {"source": accounts[0], "destination": accounts[1], "lamports": lamports}
        return {"type": "transfer", "info": info}
    if kind == 4:
        info = {
            "nonceAccount": accounts[0],
            "recentBlockhashesSysvar": accounts[1],
            "nonceAuthority": accounts[2],
        }
        return {"type": "advanceNonce", "info": info}
    if kind == 6:
        info = {
            "nonceAccount": accounts[0],
            "recentBlockhashesSysvar": accounts[1],
            "rentSysvar": accounts[2],
            "nonceAuthority": text(data[4:36]),
        }
        return {"type": "initializeNonce", "info": info}
    if kind == 8:
        (space,) = struct.unpack_from("<Q", data, 4)
        return {"type": "allocate", "info": {"account": accounts[0], "space": space}}
    return None


def _lookup_table(accounts: list[str], data: bytes) -> Json:
    (kind,) = struct.unpack_from("<I", data)
    info: dict[str, Json] = {"lookupTableAccount": accounts[0], "lookupTableAuthority": accounts[1]}
    if kind == 0:
        slot, bump = struct.unpack_from("<QB", data, 4)
        info |= {
            "payerAccount": accounts[2],
            "systemProgram": accounts[3],
            "recentSlot": slot,
            "bumpSeed": bump,
        }
        return {"type": "createLookupTable", "info": info}
    if kind == 2:
        (count,) = struct.unpack_from("<Q", data, 4)
        info["newAddresses"] = [text(data[12 + 32 * i : 44 + 32 * i]) for i in range(min(count, len(data)))]
        if len(accounts) > 3:
            info |= {"payerAccount": accounts[2], "systemProgram": accounts[3]}
        return {"type": "extendLookupTable", "info": info}
    if kind == 4:
        return {"type": "closeLookupTable", "info": {**info, "recipient": accounts[2]}}
    names = {1: "freezeLookupTable", 3: "deactivateLookupTable"}
    return {"type": names[kind], "info": info} if kind in names else None


def _authority(accounts: list[str], index: int, name: str) -> dict[str, Json]:
    """The single authority, or the multisig with its signers."""
    if len(accounts) == index + 1:
        return {name: accounts[index]}
    multisig = "multisig" + name[0].upper() + name[1:]
    return {multisig: accounts[index], "signers": accounts[index + 1 :]}


def _token(accounts: list[str], data: bytes) -> Json:
    kind = data[0]
    if kind in (0, 20):
        info: dict[str, Json] = {
            "mint": accounts[0],
            "decimals": data[1],
            "mintAuthority": text(data[2:34]),
        }
        if kind == 0:
            info["rentSysvar"] = accounts[1]
        if data[34]:
            info["freezeAuthority"] = text(data[35:67])
        return {"type": "initializeMint" if kind == 0 else "initializeMint2", "info": info}
    if kind == 1:
        names = ("account", "mint", "owner", "rentSysvar")
        return {"type": "initializeAccount", "info": dict(zip(names, accounts, strict=False))}
    if kind == 18:
        info = {"account": accounts[0], "mint": accounts[1], "owner": text(data[1:33])}
        return {"type": "initializeAccount3", "info": info}
    if kind == 9:
        info = {"account": accounts[0], "destination": accounts[1], **_authority(accounts, 2, "owner")}
        return {"type": "closeAccount", "info": info}
    if kind == 22:
        return {"type": "initializeImmutableOwner", "info": {"account": accounts[0]}}
    if kind == 21:
        return {"type": "getAccountDataSize", "info": {"mint": accounts[0]}}
    if kind in (3, 7, 8, 12, 14, 15):
        return _amounts(kind, accounts, data)
    return _permission(kind, accounts, data)


def _permission(kind: int, accounts: list[str], data: bytes) -> Json:
    """Multisigs, delegates, authorities, freezing."""
    if kind == 19:
        info: dict[str, Json] = {"multisig": accounts[0], "signers": accounts[1:], "m": data[1]}
        return {"type": "initializeMultisig2", "info": info}
    if kind == 4:
        (amount,) = struct.unpack_from("<Q", data, 1)
        info = {"source": accounts[0], "delegate": accounts[1], **_authority(accounts, 2, "owner")}
        return {"type": "approve", "info": {**info, "amount": str(amount)}}
    if kind == 5:
        return {"type": "revoke", "info": {"source": accounts[0], **_authority(accounts, 1, "owner")}}
    if kind == 6 and data[1] < len(_AUTHORITIES):
        owned = "mint" if data[1] < 2 else "account"
        info = {
            owned: accounts[0],
            "authorityType": _AUTHORITIES[data[1]],
            "newAuthority": text(data[3:35]) if data[2] else None,
            **_authority(accounts, 1, "authority"),
        }
        return {"type": "setAuthority", "info": info}
    if kind in (10, 11):
        info = {"account": accounts[0], "mint": accounts[1], **_authority(accounts, 2, "freezeAuthority")}
        return {"type": "freezeAccount" if kind == 10 else "thawAccount", "info": info}
    return {"type": "syncNative", "info": {"account": accounts[0]}} if kind == 17 else None


def _amounts(kind: int, accounts: list[str], data: bytes) -> Json:
    """Transfers, mints and burns; the checked ones carry the decimals."""
    (amount,) = struct.unpack_from("<Q", data, 1)
    checked = kind >= 12
    shown: dict[str, Json] = (
        {"tokenAmount": ui_amount(amount, data[9])} if checked else {"amount": str(amount)}
    )
    if kind == 3:
        info = {"source": accounts[0], "destination": accounts[1], **_authority(accounts, 2, "authority")}
        return {"type": "transfer", "info": {**info, **shown}}
    if kind == 12:
        info = {"source": accounts[0], "mint": accounts[1], "destination": accounts[2]}
        info |= _authority(accounts, 3, "authority")
        return {"type": "transferChecked", "info": {**info, **shown}}
    if kind in (7, 14):
        info = {"mint": accounts[0], "account": accounts[1], **_authority(accounts, 2, "mintAuthority")}
        return {"type": "mintToChecked" if checked else "mintTo", "info": {**info, **shown}}
    info = {"account": accounts[0], "mint": accounts[1], **_authority(accounts, 2, "authority")}
    return {"type": "burnChecked" if checked else "burn", "info": {**info, **shown}}
