"""The same accounts and transactions on every chain that is asked."""

from __future__ import annotations

import hashlib
import struct
import time
from base64 import b64encode
from dataclasses import dataclass, field
from typing import Any

from solders.address_lookup_table_account import AddressLookupTableAccount
from solders.compute_budget import set_compute_unit_limit, set_compute_unit_price
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.message import Message, MessageV0
from solders.pubkey import Pubkey
from solders.system_program import (
    CreateAccountParams,
    InitializeNonceAccountParams,
    TransferParams,
    create_account,
    initialize_nonce_account,
    transfer,
)
from solders.transaction import VersionedTransaction

from .node import Rpc

Json = Any
SOL = 1_000_000_000
SYSTEM = Pubkey.default()
TOKEN = Pubkey.from_string("TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA")
TOKEN_2022 = Pubkey.from_string("TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb")
MEMO = Pubkey.from_string("MemoSq4gqABAXKb96qnH8TysNcWxMyWCqXgDLGmfcHr")
TABLES = Pubkey.from_string("AddressLookupTab1e1111111111111111111111111")
RENT = Pubkey.from_string("SysvarRent111111111111111111111111111111111")
TRANSFER_FEE = 55_000
"""What the transaction named `transfer` pays, and no other."""
CONFIRMED = {"commitment": "confirmed"}


def pay(source: Keypair, target: Pubkey, lamports: int) -> Instruction:
    return transfer(TransferParams(from_pubkey=source.pubkey(), to_pubkey=target, lamports=lamports))


def token(data: bytes, program: Pubkey, *accounts: tuple[Pubkey, bool, bool]) -> Instruction:
    """A token instruction; accounts as (key, signer, writable)."""
    return Instruction(program, data, [AccountMeta(*account) for account in accounts])


def option(key: Pubkey) -> bytes:
    return b"\x01" + bytes(key)


def encoded(tx: VersionedTransaction) -> str:
    return b64encode(bytes(tx)).decode()


@dataclass
class World:
    """Keys by name, and signatures of what was sent."""

    rpc: Rpc
    payer: Keypair = field(default_factory=Keypair)
    keys: dict[str, Keypair] = field(default_factory=dict)
    sent: dict[str, str] = field(default_factory=dict)
    slots: dict[str, int] = field(default_factory=dict)
    table: Pubkey = SYSTEM
    table_addresses: list[Pubkey] = field(default_factory=list)

    def key(self, name: str) -> Keypair:
        return self.keys.setdefault(name, Keypair())

    def address(self, name: str) -> str:
        return str(self.key(name).pubkey())

    def blockhash(self) -> Hash:
        return Hash.from_string(self.rpc.result("getLatestBlockhash", CONFIRMED)["value"]["blockhash"])

    def tx(self, *instructions: Instruction, signers: tuple[Keypair, ...] = ()) -> VersionedTransaction:
        message = Message.new_with_blockhash(list(instructions), self.payer.pubkey(), self.blockhash())
        return VersionedTransaction(message, [self.payer, *signers])

    def send(self, name: str, tx: VersionedTransaction, **options: Json) -> None:
        """Send a transaction and wait until it is confirmed."""
        params = {"encoding": "base64", "preflightCommitment": "confirmed", **options}
        signature = self.rpc.result("sendTransaction", encoded(tx), params)
        self.sent[name] = signature
        self.slots[name] = self.confirmed(signature, encoded(tx))

    def confirmed(self, signature: str, again: str | None = None) -> int:
        """The slot of a transaction, once it is confirmed; a validator may drop it, so it is sent `again`."""
        end = time.monotonic() + 120
        resend = time.monotonic() + 3
        while time.monotonic() < end:
            if again is not None and time.monotonic() > resend:
                self.rpc.ask("sendTransaction", again, {"encoding": "base64", "skipPreflight": True})
                resend += 3
            status = self.rpc.result("getSignatureStatuses", [signature])["value"][0]
            if status is not None and status["confirmationStatus"] in ("confirmed", "finalized"):
                return int(status["slot"])
            time.sleep(0.05)
        raise AssertionError(f"{signature} was not confirmed")

    def create(self, name: str, size: int, owner: Pubkey, lamports: int = 0) -> Instruction:
        rent = (size + 128) * 6960
        return create_account(
            CreateAccountParams(
                from_pubkey=self.payer.pubkey(),
                to_pubkey=self.key(name).pubkey(),
                lamports=lamports or rent,
                space=size,
                owner=owner,
            )
        )


def build(rpc: Rpc) -> World:
    """Make everything that the questions ask about, and wait until all of it is finalized."""
    world = World(rpc)
    world.sent["airdrop"] = rpc.result("requestAirdrop", str(world.payer.pubkey()), 100 * SOL, CONFIRMED)
    world.confirmed(world.sent["airdrop"])
    _plain(world)
    _tokens(world)
    _extensions(world)
    _failures(world)
    last = _lookup_table(world)
    end = time.monotonic() + 90
    while rpc.result("getSlot", {"commitment": "finalized"}) <= last:
        assert time.monotonic() < end, "nothing is finalized"
        time.sleep(0.1)
    return world


def _plain(world: World) -> None:
    payer = world.payer
    target = world.key("target").pubkey()
    memo = Instruction(MEMO, b"hello", [])
    budget = [set_compute_unit_limit(50_000), set_compute_unit_price(1_000_000)]
    world.send("transfer", world.tx(*budget, pay(payer, target, SOL), memo))
    world.send("another payer", world.tx(pay(payer, world.key("second").pubkey(), 2 * SOL)))
    owned = [
        world.create(f"owned{n}", size, world.key("program").pubkey()) for n, size in enumerate((10, 10, 200))
    ]
    nonce = initialize_nonce_account(
        InitializeNonceAccountParams(nonce_pubkey=world.key("nonce").pubkey(), authority=payer.pubkey())
    )
    signers = tuple(world.key(name) for name in ("owned0", "owned1", "owned2", "nonce"))
    world.send("accounts", world.tx(*owned, world.create("nonce", 80, SYSTEM), nonce, signers=signers))


def _tokens(world: World) -> None:
    payer = world.payer.pubkey()
    mint, account, other = (world.key(name).pubkey() for name in ("mint", "tokens", "tokens2"))
    world.send(
        "mint",
        world.tx(
            world.create("mint", 82, TOKEN),
            token(b"\x14\x06" + bytes(payer) + option(payer), TOKEN, (mint, False, True)),
            world.create("tokens", 165, TOKEN),
            token(b"\x12" + bytes(payer), TOKEN, (account, False, True), (mint, False, False)),
            world.create("tokens2", 165, TOKEN),
            token(
                b"\x12" + bytes(world.key("holder").pubkey()),
                TOKEN,
                (other, False, True),
                (mint, False, False),
            ),
            signers=(world.key("mint"), world.key("tokens"), world.key("tokens2")),
        ),
    )
    amount = struct.pack("<Q", 1_500_000)
    delegate = world.key("delegate").pubkey()
    world.send(
        "tokens",
        world.tx(
            token(b"\x07" + amount, TOKEN, (mint, False, True), (account, False, True), (payer, True, False)),
            token(
                b"\x03" + struct.pack("<Q", 5),
                TOKEN,
                (account, False, True),
                (other, False, True),
                (payer, True, False),
            ),
            token(
                b"\x04" + struct.pack("<Q", 77),
                TOKEN,
                (account, False, True),
                (delegate, False, False),
                (payer, True, False),
            ),
            token(
                b"\x06\x03" + option(world.key("closer").pubkey()),
                TOKEN,
                (account, False, True),
                (payer, True, False),
            ),
        ),
    )
    signers = [world.key(f"signer{n}").pubkey() for n in range(3)]
    world.send(
        "multisig",
        world.tx(
            world.create("multisig", 355, TOKEN),
            token(
                b"\x13\x02",
                TOKEN,
                (world.key("multisig").pubkey(), False, True),
                *((s, False, False) for s in signers),
            ),
            world.create("native", 165, TOKEN, 3_000_000_000),
            token(
                b"\x12" + bytes(payer),
                TOKEN,
                (world.key("native").pubkey(), False, True),
                (Pubkey.from_string("So11111111111111111111111111111111111111112"), False, False),
            ),
            signers=(world.key("multisig"), world.key("native")),
        ),
    )


def _extensions(world: World) -> None:
    """Token-2022: two mints with most extensions between them, and accounts of the first."""
    payer = world.payer.pubkey()
    key = bytes(payer)
    mint = world.key("mint2022").pubkey()
    parts = [
        b"\x19" + option(payer),  # mint close authority
        b"\x1a\x00" + option(payer) + option(payer) + struct.pack("<HQ", 25, 1_000),  # transfer fee
        b"\x1c\x00\x01",  # default account state
        b"\x23" + key,  # permanent delegate
        b"\x24\x00" + key + bytes(world.key("hook").pubkey()),  # transfer hook
        b"\x27\x00" + key + bytes(mint),  # metadata pointer
        b"\x28\x00" + key + key,  # group pointer
        b"\x29\x00" + key + key,  # group member pointer
    ]
    size = 166 + 36 + 112 + 5 + 36 + 68 + 68 + 68 + 68
    world.send(
        "mint2022",
        world.tx(
            world.create("mint2022", size, TOKEN_2022, 20_000_000),
            *(token(part, TOKEN_2022, (mint, False, True)) for part in parts),
            token(b"\x14\x02" + key + option(payer), TOKEN_2022, (mint, False, True)),
            signers=(world.key("mint2022"),),
        ),
    )
    metadata = hashlib.sha256(b"spl_token_metadata_interface:initialize_account").digest()[:8]
    for text in ("Name", "SYM", "https://example.org/token.json"):
        metadata += struct.pack("<I", len(text)) + text.encode()
    account = world.key("tokens2022").pubkey()
    written, signs = (mint, False, True), (payer, True, False)
    world.send(
        "metadata",
        world.tx(
            token(metadata, TOKEN_2022, written, (payer, False, False), (mint, False, False), signs),
            world.create("tokens2022", 166 + 12 + 5 + 5 + 5 + 4 + 4, TOKEN_2022, 20_000_000),
            token(b"\x16", TOKEN_2022, (account, False, True)),  # immutable owner
            token(b"\x12" + key, TOKEN_2022, (account, False, True), (mint, False, False)),
            token(b"\x1e\x00", TOKEN_2022, (account, False, True), (payer, True, False)),  # required memos
            token(b"\x22\x00", TOKEN_2022, (account, False, True), (payer, True, False)),  # CPI guard
            token(b"\x07" + struct.pack("<Q", 50), TOKEN_2022, written, (account, False, True), signs),
            signers=(world.key("tokens2022"),),
        ),
    )  # fmt: skip
    second = world.key("mint2022b").pubkey()
    parts = [
        b"\x20",  # non-transferable
    ]
    third = world.key("mint2022c").pubkey()
    world.send(
        "mint2022b",
        world.tx(
            world.create("mint2022b", 166 + 4, TOKEN_2022, 20_000_000),
            *(token(part, TOKEN_2022, (second, False, True)) for part in parts),
            token(b"\x14\x02" + key + b"\x00", TOKEN_2022, (second, False, True)),
            world.create("mint2022c", 166 + 56, TOKEN_2022, 20_000_000),
            token(b"\x21\x00" + key + struct.pack("<h", 500), TOKEN_2022, (third, False, True)),  # interest
            token(b"\x14\x02" + key + b"\x00", TOKEN_2022, (third, False, True)),
            signers=(world.key("mint2022b"), world.key("mint2022c")),
        ),
    )


def _failures(world: World) -> None:
    """Transactions that were included and failed."""
    target = world.key("target").pubkey()
    skip = {"skipPreflight": True}
    world.send("poor", world.tx(pay(world.payer, target, 1), pay(world.payer, target, 10_000 * SOL)), **skip)
    custom = Instruction(TOKEN, b"\xff", [AccountMeta(world.payer.pubkey(), True, True)])
    world.send("custom", world.tx(custom), **skip)
    unknown = Instruction(world.key("program").pubkey(), b"", [])
    world.sent["unknown"] = world.rpc.result(
        "sendTransaction", encoded(world.tx(unknown)), {"encoding": "base64", **skip}
    )


def _lookup_table(world: World) -> int:
    """A table with two addresses, and a versioned transaction that uses it; the last slot used."""
    payer = world.payer.pubkey()
    recent = world.rpc.result("getSlot", {"commitment": "finalized"})
    end = time.monotonic() + 60
    while recent < 2:
        assert time.monotonic() < end, "no slot is finalized"
        time.sleep(0.1)
        recent = world.rpc.result("getSlot", {"commitment": "finalized"})
    table, bump = Pubkey.find_program_address([bytes(payer), struct.pack("<Q", recent)], TABLES)
    create = struct.pack("<IQB", 0, recent, bump)
    world.table = table
    world.table_addresses = [world.key("target").pubkey(), world.key("looked").pubkey()]
    extend = struct.pack("<IQ", 2, len(world.table_addresses)) + b"".join(
        bytes(a) for a in world.table_addresses
    )
    accounts = ((table, False, True), (payer, True, False), (payer, True, True), (SYSTEM, False, False))
    world.send("table", world.tx(token(create, TABLES, *accounts), token(extend, TABLES, *accounts)))
    end = time.monotonic() + 60
    while world.rpc.result("getSlot", CONFIRMED) <= world.slots["table"] + 2:
        assert time.monotonic() < end, "the chain stands still"
        time.sleep(0.05)
    world.send("versioned", versioned(world))
    return world.slots["versioned"]


def versioned(world: World) -> VersionedTransaction:
    """A transfer whose target comes from the lookup table."""
    table = AddressLookupTableAccount(world.table, world.table_addresses)
    message = MessageV0.try_compile(
        world.payer.pubkey(), [pay(world.payer, world.table_addresses[0], SOL)], [table], world.blockhash()
    )
    return VersionedTransaction(message, [world.payer])
