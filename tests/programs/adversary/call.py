"""An instruction as data that can be changed piece by piece: named accounts, and arguments cut into leaves."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from solders.instruction import AccountMeta, Instruction
from solders.pubkey import Pubkey

from tests.programs.borsh_idl import Idl


@dataclass(frozen=True)
class Leaf:
    """One argument, or a field of one: `path` as in `args.rate`, its IDL type, its bytes."""

    path: str
    kind: Any
    data: bytes


@dataclass(frozen=True)
class Call:
    """One instruction with its accounts by name. `scene` is the instruction's name, or that and a variant."""

    scene: str
    idl: Idl
    name: str
    accounts: tuple[tuple[str, AccountMeta], ...]
    leaves: tuple[Leaf, ...]

    @property
    def discriminator(self) -> bytes:
        return bytes(self.idl.instructions[self.name]["discriminator"])

    @property
    def data(self) -> bytes:
        return self.discriminator + b"".join(leaf.data for leaf in self.leaves)

    @property
    def metas(self) -> list[AccountMeta]:
        return [meta for _, meta in self.accounts]

    def key(self, account: str) -> Pubkey:
        return dict(self.accounts)[account].pubkey

    def instruction(self, metas: list[AccountMeta] | None = None, data: bytes | None = None) -> Instruction:
        return Instruction(
            self.idl.program,
            self.data if data is None else data,
            self.metas if metas is None else metas,
        )

    def value(self, path: str) -> bytes:
        """The bytes of an argument."""
        return next(leaf.data for leaf in self.leaves if leaf.path == path)

    def with_keys(self, **keys: Pubkey) -> "Call":
        """Other accounts, with the rights of the old ones."""
        accounts = [
            (name, AccountMeta(keys.get(name, m.pubkey), m.is_signer, m.is_writable))
            for name, m in self.accounts
        ]
        return replace(self, accounts=tuple(accounts))

    def with_leaf(self, index: int, data: bytes) -> "Call":
        leaves = list(self.leaves)
        leaves[index] = replace(leaves[index], data=data)
        return replace(self, leaves=tuple(leaves))


def make_call(scene: str, idl: Idl, accounts: Mapping[str, Pubkey | None], /, **args: Any) -> Call:
    """The call that the IDL describes, for the instruction that `scene` begins with.

    Addresses that the IDL fixes need not be given; an optional account that is not given is absent.
    """
    name = scene.split(":")[0]
    described = idl.instructions[name]
    named = []
    for account in described["accounts"]:
        key = accounts.get(account["name"])
        if "address" in account:
            key = Pubkey.from_string(account["address"])
        absent = key is None
        assert not absent or account.get("optional"), f"{scene}: no key for {account['name']}"
        writable = account.get("writable", False) and not absent
        meta = AccountMeta(idl.program if absent else key, account.get("signer", False), writable)
        named.append((account["name"], meta))
    leaves = [
        leaf for arg in described["args"] for leaf in cut(idl, arg["name"], arg["type"], args[arg["name"]])
    ]
    return Call(scene, idl, name, tuple(named), tuple(leaves))


def cut(idl: Idl, path: str, kind: Any, value: Any) -> Iterator[Leaf]:
    """The leaves of a value: structs and enums are taken apart, an enum's first leaf is its variant's number."""
    if isinstance(kind, dict) and "defined" in kind:
        defined = idl.types[kind["defined"]["name"]]
        if defined["kind"] == "struct":
            fields = defined["fields"]
        else:
            variant, value = value
            names = [v["name"] for v in defined["variants"]]
            yield Leaf(path, {"enum": len(names)}, bytes([names.index(variant)]))
            path = f"{path}.{variant}"
            fields = defined["variants"][names.index(variant)].get("fields", [])
        for inner in fields:
            yield from cut(idl, f"{path}.{inner['name']}", inner["type"], value[inner["name"]])
    elif isinstance(kind, dict) and "array" in kind and kind["array"][0] != "u8":
        inner, _ = kind["array"]
        for i, element in enumerate(value):
            yield from cut(idl, f"{path}[{i}]", inner, element)
    else:
        yield Leaf(path, kind, idl.encode(kind, value))
