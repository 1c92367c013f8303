"""Accounts that look like the right one: forged beside it, or in its place with a part changed."""

import hashlib
from collections.abc import Iterator

from solders.account import Account
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.system_program import ID as SYSTEM
from solders.token import ID as TOKEN

from tests.programs.adversary.mutation import Mutation, Mutations, replaced
from tests.programs.adversary.scenes import Scene
from tests.programs.adversary.world import PROGRAMS, SYSVARS, World
from tests.programs.chain_harness import AUTHORIZER, COORDINATOR, TOKEN_2022, TREASURER

FORGED = Keypair.from_seed(hashlib.sha256(b"forged").digest()).pubkey()
OWNERS = {
    "the system program": SYSTEM,
    "the coordinator": COORDINATOR.program,
    "the authorizer": AUTHORIZER.program,
    "the treasurer": TREASURER.program,
    "the token program": TOKEN,
    "the token-2022 program": TOKEN_2022,
    "an unknown program": Pubkey.from_bytes(hashlib.sha256(b"unknown program").digest()),
}
TOKEN_FIELDS = {82: {4: "authority", 50: "freeze authority"}, 165: {0: "mint", 32: "owner"}}
"""By size of the account: mints and token accounts."""
LOG_NAMES_RUN_AT = 24
"""In a `RunState`, which the IDL does not describe; the other keys in it are those of its slots."""
FIXED = {*PROGRAMS.values(), *SYSVARS.values()}
PLENTY = 10**9
DISCRIMINATORS = {
    bytes(d): name for idl in (COORDINATOR, AUTHORIZER, TREASURER) for name, d in idl.accounts.items()
}


def lookalikes(world: World, scene: Scene) -> Mutations:
    """For every position that holds data, forgeries of it; for every position that is empty, what may lie there."""
    call = scene.call
    for n, (name, meta) in enumerate(call.accounts):
        account = world.state.get(meta.pubkey)
        if meta.pubkey in FIXED:
            continue
        if account is None:
            empty = {
                "lamports of somebody": Account(1, b"", SYSTEM, False, 0),
                "many lamports of somebody": Account(PLENTY, b"", SYSTEM, False, 0),
                "another program's account": Account(
                    PLENTY, bytes(100), OWNERS["an unknown program"], False, 0
                ),
                "an empty account of the program": Account(PLENTY, b"", call.idl.program, False, 0),
                "a zeroed account of the program": Account(PLENTY, bytes(600), call.idl.program, False, 0),
                "an empty account of the coordinator": Account(PLENTY, b"", COORDINATOR.program, False, 0),
                "a zeroed account of the coordinator": Account(
                    PLENTY, bytes(600), COORDINATOR.program, False, 0
                ),
            }
            for kind, there in empty.items():
                yield Mutation(
                    call.scene, name, "taken before", kind, call.instruction(), [(meta.pubkey, there)]
                )
            continue
        if not account.data:
            continue
        for kind, detail, forged in forgeries(account):
            instruction = replaced(call, n, FORGED)
            yield Mutation(call.scene, name, f"forged, {kind}", detail, instruction, [(FORGED, forged)])
        for kind, detail, forged in forgeries(account):
            if kind != "a copy":
                instruction = call.instruction()
                yield Mutation(
                    call.scene, name, f"spoilt, {kind}", detail, instruction, [(meta.pubkey, forged)]
                )
        twin = world.state.get(scene.twin.metas[n].pubkey)
        for field, other, changed in other_keys(world, account, twin):
            instruction = call.instruction()
            yield Mutation(
                call.scene, f"{name}.{field}", "names another", other, instruction, [(meta.pubkey, changed)]
            )


def forgeries(account: Account) -> Iterator[tuple[str, str, Account]]:
    """The account with another owner, another discriminator, another size, or nothing in it."""
    data = bytes(account.data)

    def of(data: bytes, owner: Pubkey = account.owner) -> Account:
        return Account(max(account.lamports, PLENTY), data, owner, False, 0)

    yield "a copy", "at another address", of(data)
    for name, owner in OWNERS.items():
        if owner != account.owner:
            yield "owner", name, of(data, owner)
    yield "discriminator", "one bit", of(bytes([data[0] ^ 1]) + data[1:])
    for discriminator, name in DISCRIMINATORS.items():
        if discriminator != data[:8]:
            yield "discriminator", name, of(discriminator + data[8:])
    yield "zeroed", "all of it", of(bytes(len(data)))
    yield "zeroed", "behind the discriminator", of(data[:8] + bytes(len(data) - 8))
    yield "ones", "behind the discriminator", of(data[:8] + b"\xff" * (len(data) - 8))
    for size in sorted({0, 7, 8, 9, len(data) // 2, len(data) - 1}):
        yield "truncated", f"{size} of {len(data)} bytes", of(data[:size])
    for more in (1, 8, 300):
        yield "grown", f"by {more} bytes", of(data + bytes(more))


def other_keys(world: World, account: Account, twin: Account | None) -> Iterator[tuple[str, str, Account]]:
    """The account with one of the keys in it exchanged: by a stranger's, by none, and by the twin's."""
    data = bytes(account.data)
    for at, field in key_fields(world, account):
        others = {"a stranger": bytes(FORGED), "none": bytes(32)}
        if twin is not None and len(twin.data) == len(data):
            others["the twin's"] = bytes(twin.data)[at : at + 32]
        for name, key in others.items():
            if key != data[at : at + 32]:
                changed = data[:at] + key + data[at + 32 :]
                yield field, name, Account(account.lamports, changed, account.owner, False, 0)


def key_fields(world: World, account: Account) -> Iterator[tuple[int, str]]:
    """Where the account holds a public key: by the IDL, or where the bytes are a key of the world."""
    data = bytes(account.data)
    for idl in (COORDINATOR, AUTHORIZER, TREASURER):
        for name, discriminator in idl.accounts.items():
            if account.owner == idl.program and data[:8] == discriminator:
                at = 8
                for field in idl.types[name]["fields"]:
                    if field["type"] == "pubkey":
                        yield at, field["name"]
                    at = idl.decode(field["type"], data, at)[1]
                return
    names = TOKEN_FIELDS.get(len(data), {}) if account.owner == TOKEN else {LOG_NAMES_RUN_AT: "run"}
    for key in world.state:
        at = data.find(bytes(key)) if key != SYSTEM else -1
        while at >= 0:
            yield at, names.get(at, f"slot key at {at}")
            at = data.find(bytes(key), at + 32)
