"""Every question that both chains are asked over HTTP. Names are stable: the golden file goes by them."""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

from base58 import b58encode
from solders.hash import Hash
from solders.keypair import Keypair
from solders.message import Message

from .names import NEEDS, NO_PARAMS, REMOVED, SYSVARS, WITH_CONFIG
from .question import Question, method
from .sent import sends, simulations
from .world import SOL, TOKEN, TOKEN_2022, TRANSFER_FEE, World, pay

Json = Any


def questions(world: World) -> Iterator[Question]:
    """All of them, in an order in which none changes what a later one sees."""
    yield from _bare()
    yield from _accounts(world)
    yield from _multiple(world)
    yield from _program(world)
    yield from _tokens(world)
    yield from _blocks(world)
    yield from _history(world)
    yield from _fees(world)
    yield from simulations(world)
    yield from sends(world)
    yield from _http()
    yield _once_there("getRecentPerformanceSamples", "getRecentPerformanceSamples")
    yield _once_there("getRecentPerformanceSamples 2", "getRecentPerformanceSamples", 2)


def _once_there(name: str, method: str, *params: Json) -> Question:
    """A list that is empty until the chain is some minutes old."""

    def ask(world: World) -> Json:
        end = time.monotonic() + 90
        while time.monotonic() < end:
            answer = world.rpc.ask(method, *params)
            if answer.get("result"):
                return answer
            time.sleep(0.2)
        return answer

    return Question(name, ask)


def _bare() -> Iterator[Question]:
    for name in NO_PARAMS:
        yield method(name, name)
    for name in REMOVED:
        yield method(f"{name} is refused", name)
    for name in NEEDS:
        yield method(f"{name} without params", name)
        if name not in ("getBlock", "getBlockTime", "getBlockCommitment"):  # slot 7 may be there or not
            yield method(f"{name} of a number", name, 7)
        yield method(f"{name} of text", name, "text")
        yield method(f"{name} of an object", name, {})
        yield method(f"{name} of null", name, None)
    for name in WITH_CONFIG:
        for commitment in ("processed", "confirmed", "finalized", "recent", "max", "singleGossip", "sure"):
            yield method(f"{name} {commitment}", name, {"commitment": commitment})
        yield method(f"{name} commitment 5", name, {"commitment": 5})
        yield method(f"{name} minContextSlot of the future", name, {"minContextSlot": 1 << 40})
        yield method(f"{name} minContextSlot -1", name, {"minContextSlot": -1})
        yield method(f"{name} minContextSlot text", name, {"minContextSlot": "1"})
        yield method(f"{name} unknown field", name, {"unknown": 1})
        yield method(f"{name} text for a config", name, "text")
        yield method(f"{name} too many params", name, {}, 1, 2, 3)
    yield method("getLargestAccounts circulating", "getLargestAccounts", {"filter": "circulating"})
    yield method("getLargestAccounts bad filter", "getLargestAccounts", {"filter": "x"})
    yield method("getSupply without list", "getSupply", {"excludeNonCirculatingAccountsList": True})
    yield method("getRecentPerformanceSamples 721", "getRecentPerformanceSamples", 721)
    yield method("getRecentPerformanceSamples text", "getRecentPerformanceSamples", "x")
    yield method("getSlotLeaders", "getSlotLeaders", 1, 2)
    yield method("getSlotLeaders none", "getSlotLeaders", 1, 0)
    yield method("getSlotLeaders many", "getSlotLeaders", 1, 5001)
    yield method("getSlotLeaders of the future", "getSlotLeaders", 1 << 40, 1)
    yield method("getLeaderSchedule config", "getLeaderSchedule", None, {"commitment": "confirmed"})
    yield method("getLeaderSchedule commitment first", "getLeaderSchedule", {"commitment": "sure"})
    yield method("getLeaderSchedule of the future", "getLeaderSchedule", 1 << 40)
    yield method("getLeaderSchedule bad identity", "getLeaderSchedule", None, {"identity": "x"})
    yield method("getBlockProduction bad identity", "getBlockProduction", {"identity": "x"})
    yield method("getBlockProduction bad range", "getBlockProduction", {"range": {"firstSlot": 1 << 40}})
    yield method("getBlockCommitment of the future", "getBlockCommitment", 1 << 40)
    yield method("rent 165", "getMinimumBalanceForRentExemption", 165)
    yield method("rent -1", "getMinimumBalanceForRentExemption", -1)
    yield method("rent 1.5", "getMinimumBalanceForRentExemption", 1.5)
    yield method("getInflationReward none", "getInflationReward", [])
    yield method("getInflationReward bad", "getInflationReward", ["x"])
    yield method("getVoteAccounts bad key", "getVoteAccounts", {"votePubkey": "x"})


def _accounts(world: World) -> Iterator[Question]:
    name = "getAccountInfo"
    yield method("account", name, world.address("target"))
    yield method("account unknown", name, world.address("nobody"))
    for encoding in ("base58", "base64", "base64+zstd", "jsonParsed", "binary", "base32", 5):
        yield method(f"account as {encoding}", name, world.address("owned0"), {"encoding": encoding})
        yield method(f"large account as {encoding}", name, world.address("owned2"), {"encoding": encoding})
    for label, part in {
        "slice": {"offset": 2, "length": 3},
        "slice beyond": {"offset": 500, "length": 3},
        "slice negative": {"offset": -1, "length": 3},
        "slice half": {"offset": 1},
        "slice text": "x",
    }.items():
        options = {"encoding": "base64", "dataSlice": part}
        yield method(f"account {label}", name, world.address("owned2"), options)
    yield method("account unknown field", name, world.address("owned0"), {"encoding": "base64", "unknown": 1})
    yield method("account minContextSlot", name, world.address("owned0"), {"minContextSlot": 1 << 40})
    yield method("account of no base58", name, "0OIl" * 10)
    yield method("account of a long key", name, "1" * 200)
    yield method("account of an empty key", name, "")
    yield method("account of a list", name, ["x"])
    yield method("account extra param", name, world.address("owned0"), None, 1)
    parsed = {"encoding": "jsonParsed"}
    for key in ("mint", "tokens", "tokens2", "multisig", "native", "nonce", "mint2022", "tokens2022"):
        yield method(f"parsed {key}", name, world.address(key), parsed)
    yield method("parsed mint2022b", name, world.address("mint2022b"), parsed)
    yield method("parsed mint2022c", name, world.address("mint2022c"), parsed)
    yield method("parsed lookup table", name, str(world.table), parsed)
    for label, key in SYSVARS.items():
        yield method(f"parsed {label}", name, key, parsed)
    for label, program in (("token program", TOKEN), ("token-2022 program", TOKEN_2022)):
        options = {"encoding": "base64", "dataSlice": {"offset": 0, "length": 4}}
        yield method(label, name, str(program), options)
        yield method(f"{label} parsed", name, str(program), parsed)
    yield method("system program", name, "1" * 32)
    yield method("balance", "getBalance", world.address("target"))
    yield method("balance unknown", "getBalance", world.address("nobody"))
    yield method("balance minContextSlot", "getBalance", world.address("target"), {"minContextSlot": 1 << 40})
    yield method("balance sure", "getBalance", world.address("target"), {"commitment": "sure"})


def _multiple(world: World) -> Iterator[Question]:
    name = "getMultipleAccounts"
    keys = [world.address(key) for key in ("owned0", "nobody", "tokens")]
    yield method("multiple", name, keys)
    yield method("multiple none", name, [])
    yield method("multiple parsed", name, keys, {"encoding": "jsonParsed"})
    yield method("multiple many", name, keys * 34)
    yield method("multiple bad key", name, [*keys, "x"])
    yield method("multiple numbers", name, [1])
    yield method("multiple large base58", name, [world.address("owned2")], {"encoding": "base58"})
    yield method("multiple slice", name, keys, {"dataSlice": {"offset": 0, "length": 1}})


def _program(world: World) -> Iterator[Question]:
    name = "getProgramAccounts"
    program = world.address("program")
    yield method("program", name, program, {"encoding": "base64"})
    yield method("program default encoding", name, program, {"filters": [{"dataSize": 10}]})
    yield method("program default encoding of large data", name, program)
    yield method("program with context", name, program, {"encoding": "base64", "withContext": True})
    yield method("program of nothing", name, world.address("nobody"))
    yield method("program sorted", name, program, {"encoding": "base64", "sortResults": False})
    zero = b58encode(bytes(3)).decode()
    for label, tests in {
        "size": [{"dataSize": 10}],
        "size none": [{"dataSize": 11}],
        "memcmp": [{"memcmp": {"offset": 0, "bytes": zero}}],
        "memcmp base64": [{"memcmp": {"offset": 0, "bytes": "AAAA", "encoding": "base64"}}],
        "memcmp list": [{"memcmp": {"offset": 0, "bytes": [0, 0]}}],
        "memcmp beyond": [{"memcmp": {"offset": 500, "bytes": zero}}],
        "memcmp no base58": [{"memcmp": {"offset": 0, "bytes": "0OIl"}}],
        "memcmp no base64": [{"memcmp": {"offset": 0, "bytes": "!!", "encoding": "base64"}}],
        "memcmp unknown encoding": [{"memcmp": {"offset": 0, "bytes": "AA", "encoding": "base32"}}],
        "memcmp without offset": [{"memcmp": {"bytes": zero}}],
        "memcmp without bytes": [{"memcmp": {"offset": 0}}],
        "memcmp too large": [{"memcmp": {"offset": 0, "bytes": b58encode(b"x" * 129).decode()}}],
        "memcmp much too large": [{"memcmp": {"offset": 0, "bytes": b58encode(b"x" * 200).decode()}}],
        "state": ["tokenAccountState"],
        "unknown": ["somethingElse"],
        "object unknown": [{"x": 1}],
        "five": [{"dataSize": 10}] * 5,
        "number": [5],
        "text": "x",
    }.items():
        yield method(f"filter {label}", name, program, {"encoding": "base64", "filters": tests})


def _tokens(world: World) -> Iterator[Question]:
    mint, payer = world.address("mint"), str(world.payer.pubkey())
    for name in ("getTokenAccountBalance", "getTokenSupply", "getTokenLargestAccounts"):
        for key in ("mint", "tokens", "mint2022", "tokens2022", "mint2022c", "target", "nobody", "multisig"):
            yield method(f"{name} {key}", name, world.address(key))
    for name, holder in (
        ("getTokenAccountsByOwner", payer),
        ("getTokenAccountsByDelegate", world.address("delegate")),
    ):
        parsed = {"encoding": "jsonParsed"}
        yield method(f"{name} mint", name, holder, {"mint": mint}, parsed)
        yield method(f"{name} mint base64", name, holder, {"mint": mint}, {"encoding": "base64"})
        yield method(f"{name} default encoding", name, holder, {"mint": mint})
        yield method(f"{name} program", name, holder, {"programId": str(TOKEN)}, parsed)
        yield method(f"{name} program 2022", name, holder, {"programId": str(TOKEN_2022)}, parsed)
        yield method(f"{name} other program", name, holder, {"programId": world.address("program")}, parsed)
        yield method(f"{name} unknown mint", name, holder, {"mint": world.address("nobody")}, parsed)
        yield method(f"{name} no mint", name, holder, {"mint": world.address("target")}, parsed)
        yield method(f"{name} both", name, holder, {"mint": mint, "programId": str(TOKEN)}, parsed)
        yield method(f"{name} neither", name, holder, {}, parsed)
        yield method(f"{name} bad mint", name, holder, {"mint": "x"}, parsed)
        yield method(f"{name} no filter", name, holder)
        yield method(f"{name} nobody", name, world.address("nobody"), {"mint": mint}, parsed)


def _own_block(name: str, *params: Json) -> Question:
    """A block without the votes that other transactions of a validator's block are."""

    def ask(world: World) -> Json:
        answer = world.rpc.ask("getBlock", *params)
        block = answer.get("result") or {}
        if "transactions" in block:
            own = [entry for entry in block["transactions"] if entry["meta"]["fee"] == TRANSFER_FEE]
            block["transactions"] = own
        return answer

    return Question(name, ask)


def _blocks(world: World) -> Iterator[Question]:
    slot = world.slots["transfer"]
    version = {"maxSupportedTransactionVersion": 0}
    for details in ("full", "accounts", "signatures", "none", "some"):
        yield _own_block(f"block {details}", slot, {**version, "transactionDetails": details})
    for encoding in ("json", "jsonParsed", "base64", "base58", "binary", "base32"):
        yield _own_block(f"block {encoding}", slot, {**version, "encoding": encoding})
    yield _own_block("block without rewards", slot, {**version, "rewards": False})
    yield _own_block("block without version", slot, {"transactionDetails": "signatures"})
    yield _own_block("block of a versioned transaction", world.slots["versioned"])
    yield _own_block("block old style", slot, "json")
    yield _own_block("block processed", slot, {**version, "commitment": "processed"})
    yield _own_block("block confirmed", slot, {**version, "commitment": "confirmed"})
    yield method("block of the future", "getBlock", 1 << 40, version)
    yield method("block negative", "getBlock", -1, version)
    yield method("block time", "getBlockTime", slot)
    yield method("block time of the future", "getBlockTime", 1 << 40)
    yield method("blocks", "getBlocks", slot, slot + 3)
    yield method("blocks one", "getBlocks", slot, slot)
    yield method("blocks open", "getBlocks", slot)
    yield method("blocks config second", "getBlocks", slot, {"commitment": "confirmed"})
    yield method("blocks backwards", "getBlocks", slot, slot - 1)
    yield method("blocks too many", "getBlocks", slot, slot + 500_001)
    yield method("blocks processed", "getBlocks", slot, slot + 1, {"commitment": "processed"})
    yield method("blocks with limit", "getBlocksWithLimit", slot, 3)
    yield method("blocks with limit none", "getBlocksWithLimit", slot, 0)
    yield method("blocks with limit many", "getBlocksWithLimit", slot, 500_001)


def _history(world: World) -> Iterator[Question]:
    names = ("transfer", "accounts", "mint", "tokens", "mint2022", "metadata", "multisig", "table", "airdrop")
    version = {"maxSupportedTransactionVersion": 0}
    for name in (*names, "poor", "custom", "versioned", "unknown"):
        for encoding in ("json", "jsonParsed"):
            options = {**version, "encoding": encoding}
            yield method(f"transaction {name} {encoding}", "getTransaction", world.sent[name], options)
    signature = world.sent["transfer"]
    for encoding in ("base64", "base58", "binary", "base32"):
        yield method(f"transaction {encoding}", "getTransaction", signature, {"encoding": encoding})
    yield method("transaction old style", "getTransaction", signature, "json")
    yield method("transaction processed", "getTransaction", signature, {"commitment": "processed"})
    yield method("transaction confirmed", "getTransaction", signature, {"commitment": "confirmed"})
    yield method("transaction without version", "getTransaction", world.sent["versioned"])
    yield method(
        "transaction version text", "getTransaction", signature, {"maxSupportedTransactionVersion": "0"}
    )
    unknown = str(Keypair().sign_message(b"x"))
    yield method("transaction unknown", "getTransaction", unknown)
    yield method("transaction no base58", "getTransaction", "0OIl" * 22)
    yield method("transaction short", "getTransaction", "1111")
    name = "getSignatureStatuses"
    yield method(
        "statuses", name, [signature, unknown, world.sent["poor"]], {"searchTransactionHistory": True}
    )
    yield method("statuses recent", name, [unknown])
    yield method("statuses none", name, [])
    yield method("statuses many", name, [unknown] * 257)
    yield method("statuses bad", name, ["x"])
    yield method("statuses number", name, [1])
    yield method("statuses bad config", name, [unknown], {"searchTransactionHistory": "yes"})
    name = "getSignaturesForAddress"
    target = world.address("target")
    yield method("signatures", name, target)
    yield method("signatures limit", name, target, {"limit": 1})
    yield method("signatures limit 0", name, target, {"limit": 0})
    yield method("signatures limit 1001", name, target, {"limit": 1001})
    yield method("signatures limit text", name, target, {"limit": "1"})
    yield method("signatures before", name, target, {"before": world.sent["poor"]})
    yield method("signatures until", name, target, {"until": world.sent["transfer"]})
    yield method("signatures before bad", name, target, {"before": "x"})
    yield method("signatures until bad", name, target, {"until": "x"})
    yield method("signatures before unknown", name, target, {"before": unknown})
    yield method("signatures until unknown", name, target, {"until": unknown})
    yield method("signatures nobody", name, world.address("nobody"))
    yield method("signatures processed", name, target, {"commitment": "processed"})
    yield method("signatures confirmed", name, target, {"commitment": "confirmed"})
    yield method("signatures minContextSlot", name, target, {"minContextSlot": 1 << 40})


def _message(world: World, blockhash: Hash | None = None) -> str:
    instruction = pay(world.payer, world.key("target").pubkey(), 1)
    message = Message.new_with_blockhash([instruction], world.payer.pubkey(), blockhash or world.blockhash())
    return b64encode(bytes(message)).decode()


def _fees(world: World) -> Iterator[Question]:
    confirmed = {"commitment": "confirmed"}
    name = "getFeeForMessage"
    yield Question("fee", lambda world: world.rpc.ask(name, _message(world), confirmed))
    yield Question(
        "fee unknown blockhash", lambda w: w.rpc.ask(name, _message(w, Hash.new_unique()), confirmed)
    )
    yield method("fee no base64", name, "!!!")
    yield method("fee no message", name, "AAAA")
    yield method("fee empty", name, "")
    valid = "isBlockhashValid"
    yield Question("blockhash valid", lambda w: w.rpc.ask(valid, str(w.blockhash()), confirmed))
    yield method("blockhash unknown", valid, str(Hash.new_unique()))
    yield method("blockhash bad", valid, "0OIl")
    yield method("blockhash minContextSlot", valid, str(Hash.new_unique()), {"minContextSlot": 1 << 40})
    yield method("prioritization none", "getRecentPrioritizationFees", [])
    yield method("prioritization of one", "getRecentPrioritizationFees", [world.address("target")])
    yield method("prioritization bad", "getRecentPrioritizationFees", ["x"])
    yield method("prioritization many", "getRecentPrioritizationFees", [world.address("target")] * 129)
    yield method("prioritization text", "getRecentPrioritizationFees", "x")
    yield method("airdrop bad key", "requestAirdrop", "x", 1)
    yield method("airdrop without amount", "requestAirdrop", world.address("nobody"))
    yield method("airdrop negative", "requestAirdrop", world.address("nobody"), -1)
    yield method("airdrop text", "requestAirdrop", world.address("nobody"), "1")
    yield method("airdrop", "requestAirdrop", world.address("aired"), SOL, confirmed)
    yield method("airdrop sure", "requestAirdrop", world.address("aired"), SOL, {"commitment": "sure"})


def _http() -> Iterator[Question]:
    def raw(label: str, body: bytes, verb: str = "POST", **headers: str) -> Question:
        return Question(f"http {label}", lambda world: world.rpc.post(body, verb, **headers))

    one = b'{"jsonrpc":"2.0","id":1,"method":"getVersion"}'
    yield raw("good", one)
    yield raw("get", b"", "GET")
    yield raw("put", one, "PUT")
    yield raw("empty body", b"")
    yield raw("no JSON", b"{")
    yield raw("no UTF-8", b"\xff\xfe")
    yield raw("number", b"7")
    yield raw("text", b'"x"')
    yield raw("null", b"null")
    yield raw("empty object", b"{}")
    yield raw("empty batch", b"[]")
    yield raw("batch", b"[" + one + b"," + one + b"]")
    yield raw("batch with garbage", b"[" + one + b',7,{"jsonrpc":"2.0"}]')
    yield raw("batch of notifications", b'[{"jsonrpc":"2.0","method":"getVersion"}]')
    yield raw("notification", b'{"jsonrpc":"2.0","method":"getVersion"}')
    yield raw("version 1", b'{"jsonrpc":"1.0","id":1,"method":"getVersion"}')
    yield raw("without version", b'{"id":1,"method":"getVersion"}')
    yield raw("version number", b'{"jsonrpc":2.0,"id":1,"method":"getVersion"}')
    yield raw("without method", b'{"jsonrpc":"2.0","id":1}')
    yield raw("method number", b'{"jsonrpc":"2.0","id":1,"method":7}')
    yield raw("id text", b'{"jsonrpc":"2.0","id":"a","method":"getVersion"}')
    yield raw("id null", b'{"jsonrpc":"2.0","id":null,"method":"getVersion"}')
    yield raw("id float", b'{"jsonrpc":"2.0","id":1.5,"method":"getVersion"}')
    yield raw("id negative", b'{"jsonrpc":"2.0","id":-1,"method":"getVersion"}')
    yield raw("id list", b'{"jsonrpc":"2.0","id":[1],"method":"getVersion"}')
    yield raw("id object", b'{"jsonrpc":"2.0","id":{},"method":"getVersion"}')
    yield raw("id true", b'{"jsonrpc":"2.0","id":true,"method":"getVersion"}')
    yield raw("unknown field", b'{"jsonrpc":"2.0","id":1,"method":"getVersion","x":1}')
    yield raw("params object", b'{"jsonrpc":"2.0","id":1,"method":"getSlot","params":{"a":1}}')
    yield raw("params text", b'{"jsonrpc":"2.0","id":1,"method":"getSlot","params":"x"}')
    yield raw("params null", b'{"jsonrpc":"2.0","id":1,"method":"getSlot","params":null}')
    yield raw("params empty", b'{"jsonrpc":"2.0","id":1,"method":"getSlot","params":[]}')
    yield raw("oversized", b" " * (60 * 1024) + one)
    yield raw("no content type", one, content_type="")
    yield raw("text content type", one, content_type="text/plain")
    yield raw("charset", one, content_type="application/json; charset=utf-8")
