"""Questions with transactions in them: good ones, and everything that can be wrong with one."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator
from typing import Any

from base58 import b58encode
from solders.compute_budget import set_compute_unit_limit
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.message import Message
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from .question import Question, method
from .world import SOL, TOKEN, TOKEN_2022, World, encoded, pay, token, versioned

Json = Any


def transactions(world: World) -> dict[str, Callable[[], VersionedTransaction]]:
    """Transactions by what is wrong with them; each is made when it is used."""
    payer, target = world.payer, world.key("target").pubkey()
    second, nobody = world.key("second"), world.key("nobody")

    def by(
        signer: Keypair, *instructions: Instruction, blockhash: Hash | None = None
    ) -> VersionedTransaction:
        message = Message.new_with_blockhash(
            list(instructions), signer.pubkey(), blockhash or world.blockhash()
        )
        return VersionedTransaction(message, [signer])

    def bad_signature() -> VersionedTransaction:
        good = world.tx(pay(payer, target, SOL))
        return VersionedTransaction.populate(good.message, [Keypair().sign_message(b"x")])

    def readonly_payer() -> VersionedTransaction:
        meta = AccountMeta(target, False, False)
        return world.tx(
            Instruction(
                Pubkey.default(),
                bytes(pay(payer, target, 1).data),
                [AccountMeta(payer.pubkey(), True, True), meta],
            )
        )

    def unit_limit() -> VersionedTransaction:
        mint = token(b"\x14\x06" + bytes(32) + b"\x00", TOKEN, (target, False, True))
        return world.tx(set_compute_unit_limit(200), mint)

    budget = set_compute_unit_limit(10_000)
    mint = world.key("mint").pubkey()
    minter = (payer.pubkey(), True, False)
    mint_to_mint = token(b"\x07" + bytes(8), TOKEN, (mint, False, True), (mint, False, True), minter)
    return {
        "good": lambda: world.tx(pay(payer, target, SOL)),
        "versioned": lambda: versioned(world),
        "insufficient funds": lambda: world.tx(pay(payer, target, 10_000 * SOL)),
        "unknown program": lambda: world.tx(Instruction(world.key("program").pubkey(), b"", [])),
        "custom error": lambda: world.tx(Instruction(TOKEN, b"\xff", [AccountMeta(payer.pubkey(), True, True)])),
        "logged error": lambda: world.tx(mint_to_mint),
        "program of another kind": lambda: world.tx(Instruction(world.key("owned0").pubkey(), b"", [])),
        "too little for rent": lambda: world.tx(pay(payer, world.key("new").pubkey(), 1)),
        "unfunded payer": lambda: by(nobody, pay(nobody, target, 1)),
        "another payer": lambda: by(second, pay(second, target, SOL)),
        "payer of another owner": lambda: by(world.key("nonce"), budget),
        "unknown blockhash": lambda: by(payer, pay(payer, target, 1), blockhash=Hash.new_unique()),
        "bad signature": bad_signature,
        "duplicate budget": lambda: world.tx(budget, budget, pay(payer, target, 1)),
        "unit limit": unit_limit,
        "readonly target": readonly_payer,
        "no instructions": lambda: world.tx(),
        "wrong system data": lambda: world.tx(Instruction(Pubkey.default(), b"\x63\x00\x00\x00", [])),
        "missing accounts": lambda: world.tx(Instruction(Pubkey.default(), bytes(pay(payer, target, 1).data), [])),
        "existing account": lambda: world.tx(world.create("owned0", 10, TOKEN), signers=(world.key("owned0"),)),
    }  # fmt: skip


def simulations(world: World) -> Iterator[Question]:
    name = "simulateTransaction"
    base = {"encoding": "base64", "commitment": "confirmed"}

    def simulate(label: str, make: Callable[[], VersionedTransaction], **options: Json) -> Question:
        return Question(
            f"simulate {label}", lambda world: world.rpc.ask(name, encoded(make()), {**base, **options})
        )

    made = transactions(world)
    for label, make in made.items():
        yield simulate(label, make)
        yield simulate(f"{label} verified", make, sigVerify=True)
    good = made["good"]
    yield simulate("replaced blockhash", made["unknown blockhash"], replaceRecentBlockhash=True)
    yield simulate("verified and replaced", good, sigVerify=True, replaceRecentBlockhash=True)
    yield simulate("inner", good, innerInstructions=True)
    yield simulate("of no commitment", good, commitment="sure")
    yield simulate("minContextSlot", good, minContextSlot=1 << 40)
    keys = [world.address(key) for key in ("target", "nobody", "tokens")]
    for encoding in ("base64", "jsonParsed", "base58", "base64+zstd", "binary"):
        accounts = {"encoding": encoding, "addresses": keys}
        yield simulate(f"accounts {encoding}", good, accounts=accounts)
    yield simulate("accounts default", good, accounts={"addresses": keys})
    yield simulate(
        "accounts of a failure",
        made["insufficient funds"],
        accounts={"addresses": keys, "encoding": "base64"},
    )
    yield simulate("accounts bad key", good, accounts={"addresses": ["x"], "encoding": "base64"})
    yield simulate("accounts too many", good, accounts={"addresses": keys * 2, "encoding": "base64"})
    yield simulate("accounts without addresses", good, accounts={"encoding": "base64"})
    pausable = world.key("pausable")
    newest = token(b"\x2c\x00" + bytes(32), TOKEN_2022, (pausable.pubkey(), False, True))
    yield simulate(
        "newest extension",
        lambda: world.tx(world.create("pausable", 203, TOKEN_2022), newest, signers=(pausable,)),
    )
    yield from _undecodable(world, name)


def _undecodable(world: World, name: str) -> Iterator[Question]:
    def ask(label: str, data: Json, encoding: Json) -> Question:
        return method(f"{name} {label}", name, data, {"encoding": encoding})

    yield ask("no base64", "!!!", "base64")
    yield ask("no base58", "0OIl", "base58")
    yield ask("no transaction", "AAAA", "base64")
    yield ask("empty", "", "base64")
    yield ask("oversized base64", "A" * 1648, "base64")
    yield ask("oversized base58", "1" * 1700, "base58")
    yield ask("raw too large", b64encode(b"\x01" * 1233).decode(), "base64")
    yield ask("as jsonParsed", "AAAA", "jsonParsed")
    yield ask("as base32", "AAAA", "base32")
    yield Question(
        f"{name} trailing bytes",
        lambda w: w.rpc.ask(
            name,
            b64encode(bytes(w.tx(pay(w.payer, w.key("target").pubkey(), 1))) + b"\x00").decode(),
            {"encoding": "base64", "commitment": "confirmed", "preflightCommitment": "confirmed"},
        ),
    )
    yield Question(
        f"{name} without encoding",
        lambda w: w.rpc.ask(name, b58encode(bytes(w.tx(pay(w.payer, w.key("target").pubkey(), 2)))).decode()),
    )

    def cut(world: World) -> Json:
        data = bytes(world.tx(pay(world.payer, world.key("target").pubkey(), 1)))[:-3]
        return world.rpc.ask(name, b64encode(data).decode(), {"encoding": "base64"})

    def no_signature(world: World) -> Json:
        tx = world.tx(pay(world.payer, world.key("target").pubkey(), 1))
        data = b"\x00" + bytes(tx.message)
        return world.rpc.ask(name, b64encode(data).decode(), {"encoding": "base64"})

    def bad_index(world: World) -> Json:
        data = bytearray(bytes(world.tx(pay(world.payer, world.key("target").pubkey(), 1))))
        data[-17] = 99  # the program's index
        return world.rpc.ask(name, b64encode(bytes(data)).decode(), {"encoding": "base64"})

    yield Question(f"{name} cut", cut)
    yield Question(f"{name} without signatures", no_signature)
    yield Question(f"{name} bad program index", bad_index)


def sends(world: World) -> Iterator[Question]:
    name = "sendTransaction"
    base = {"encoding": "base64", "preflightCommitment": "confirmed"}

    def send(label: str, make: Callable[[], VersionedTransaction], **options: Json) -> Question:
        return Question(
            f"send {label}", lambda world: world.rpc.ask(name, encoded(make()), {**base, **options})
        )

    made = transactions(world)
    for label, make in made.items():
        if label not in ("good", "versioned", "no instructions"):
            yield send(label, make)
            yield send(f"{label} without preflight", make, skipPreflight=True)
    yield send("minContextSlot", made["good"], minContextSlot=1 << 40)
    yield send("minContextSlot without preflight", made["good"], minContextSlot=1 << 40, skipPreflight=True)
    yield send("retries text", made["good"], maxRetries="x")
    yield send("unknown commitment", made["good"], preflightCommitment="sure")

    def twice(world: World, **options: Json) -> Json:
        # Another amount each time: with the same blockhash it would be the same transaction.
        amount = SOL + 7 + len(options)
        tx = encoded(world.tx(pay(world.payer, world.key("target").pubkey(), amount)))
        world.confirmed(world.rpc.result(name, tx, base))
        return world.rpc.ask(name, tx, {**base, **options})

    yield Question("send twice", twice)
    yield Question("send twice without preflight", lambda world: twice(world, skipPreflight=True))
    yield from _undecodable(world, name)
