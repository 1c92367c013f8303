"""Every account that the model knows: its lamports, its owner, and what its bytes must be."""

import struct
from dataclasses import dataclass
from typing import Any

from tests.programs.chain_harness import AUTHORIZER, COORDINATOR, TREASURER
from tests.programs.fuzz.log import Log
from tests.programs.fuzz.names import Keyring
from tests.programs.fuzz.packing import Borsh

BORSH = {
    **{name: Borsh(COORDINATOR, name) for name in ("Run", "Membership", "Spec")},
    "Authorization": Borsh(AUTHORIZER, "Authorization"),
    **{name: Borsh(TREASURER, name) for name in ("Pool", "Claim")},
}
OWNERS = {
    "Run": "COORDINATOR",
    "Membership": "COORDINATOR",
    "Spec": "COORDINATOR",
    "Authorization": "AUTHORIZER",
    "Pool": "TREASURER",
    "Claim": "TREASURER",
}
TEXTS = {"run_id": 32, "name": 64, "description": 280, "min_client_version": 32, "contact": 128}
WIDTHS = {"u8": 1, "bool": 1, "u16": 2, "u32": 4, "u64": 8, "i64": 8, "pubkey": 32}


def space(kind: str) -> int:
    """Bytes that an account of a fixed size is created with."""
    idl = TREASURER if kind in ("Pool", "Claim") else COORDINATOR
    total = 8
    for f in idl.types[kind]["fields"]:
        if f["type"] == "string":
            total += 4 + TEXTS[f["name"]]
        else:
            total += WIDTHS[f["type"]] if isinstance(f["type"], str) else 32
    return total


# A specification's bytes follow its account's head and are not in the IDL.
SPACE = {kind: space(kind) for kind in ("Run", "Membership", "Spec", "Pool", "Claim")}
AUTHORIZATION_FIXED = 8 + 32 + 32 + 1 + 2 + 1 + 1 + 8 + 4 + 4


def authorization_space(scope: int, delegates: int) -> int:
    """Bytes of an authorization; beyond what is ever accepted it does not grow."""
    return AUTHORIZATION_FIXED + min(scope, 32) + 32 * min(delegates, 64)


class Record:
    """A Borsh account; its attributes are the fields of the IDL, with names for keys."""

    def __init__(self, kind: str, size: int = 0, tail: bytes = b"", **fields: Any) -> None:
        self.kind = kind
        self.size = size or SPACE[kind]
        self.tail = tail
        self.__dict__.update(fields)

    def __getattr__(self, name: str) -> Any:  # for type checkers: fields come from the IDL
        raise AttributeError(name)

    def differs(self, data: bytes, keys: Keyring) -> str | None:
        """What is not as in the account, or None."""
        mine = BORSH[self.kind].pack(self, keys) + self.tail
        if len(data) != self.size:
            return f"{self.kind}: size {len(data)}, expected {self.size}"
        if data[: len(mine)] == mine:
            return None
        return f"{self.kind}: chain {data[: len(mine)].hex()}, model {mine.hex()} ({self.fields()})"

    def fields(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in BORSH[self.kind].fields}


@dataclass(slots=True)
class Zeros:
    """An account that was created and not yet used."""

    size: int

    def differs(self, data: bytes, _keys: Keyring) -> str | None:
        return None if data == bytes(self.size) else "not zeroed"


@dataclass(slots=True)
class Token:
    """A token account; those of Token-2022 carry the extension for an owner that stays."""

    mint: str
    owner: str
    amount: int
    frozen: bool
    extended: bool

    @property
    def size(self) -> int:
        return 170 if self.extended else 165

    def pack(self, keys: Keyring) -> bytes:
        head = keys.raw(self.mint) + keys.raw(self.owner) + self.amount.to_bytes(8, "little")
        body = head + bytes(36) + bytes([1 + self.frozen]) + bytes(12 + 8 + 36)
        return body + (b"\x02\x07\x00\x00\x00" if self.extended else b"")

    def differs(self, data: bytes, keys: Keyring) -> str | None:
        if data == self.pack(keys):
            return None
        amount = int.from_bytes(data[64:72], "little")
        return f"token account: chain has {amount} units ({data.hex()}), model {self}"


@dataclass(slots=True)
class Mint:
    """A mint with 6 decimals; `freezer` may be empty."""

    supply: int
    issuer: str
    freezer: str
    size: int = 82

    def pack(self, keys: Keyring) -> bytes:
        freezer = struct.pack("<I", 1) + keys.raw(self.freezer) if self.freezer else bytes(36)
        head = struct.pack("<I", 1) + keys.raw(self.issuer)
        return head + struct.pack("<QBB", self.supply, 6, 1) + freezer

    def differs(self, data: bytes, keys: Keyring) -> str | None:
        return None if data == self.pack(keys) else f"mint, expected {self}"


@dataclass(slots=True)
class Account:
    """One account; wallets have no data."""

    lamports: int
    owner: str = "SYSTEM"
    data: "Record | Log | Zeros | Token | Mint | None" = None

    @property
    def size(self) -> int:
        return 0 if self.data is None else self.data.size
