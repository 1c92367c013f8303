"""What both chains are asked over the websocket, and what they tell of their own accord."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from base58 import b58encode
from solders.keypair import Keypair
from websockets.asyncio.client import ClientConnection, connect

from .world import CONFIRMED, SOL, TOKEN, World, encoded, pay

Json = Any
TIMEOUT_S = 90
SILENCE_S = 3
UPDATES = {"completed", "createdBank", "frozen", "optimisticConfirmation", "root"}
"""What a validator that is its own leader tells of a slot."""
"""How long an answer may take before it counts as none; chains answer at once or never."""


def requests(world: World) -> dict[str, tuple[str, list[Json] | None]]:
    """Single requests by name: method and params."""
    target = world.address("target")
    unknown = str(Keypair().sign_message(b"x"))
    made: dict[str, tuple[str, list[Json] | None]] = {
        "block": ("blockSubscribe", ["all"]),
        "vote": ("voteSubscribe", []),
        "nothing": ("nothingSubscribe", []),
        "rpc method": ("getSlot", []),
        "account": ("accountSubscribe", [target]),
        "account config": ("accountSubscribe", [target, {"encoding": "base64", "commitment": "confirmed"}]),
        "account sure": ("accountSubscribe", [target, {"commitment": "sure"}]),
        "account encoding": ("accountSubscribe", [target, {"encoding": "base32"}]),
        "account bad key": ("accountSubscribe", ["x"]),
        "account number": ("accountSubscribe", [5]),
        "account none": ("accountSubscribe", []),
        "account no params": ("accountSubscribe", None),
        "program": ("programSubscribe", [target, {"filters": [{"dataSize": 5}]}]),
        "program filters": ("programSubscribe", [target, {"filters": [{"dataSize": 5}] * 5}]),
        "program filter": ("programSubscribe", [target, {"filters": [{"x": 5}]}]),
        "program bad key": ("programSubscribe", ["0OIl"]),
        "logs all": ("logsSubscribe", ["all"]),
        "logs votes": ("logsSubscribe", ["allWithVotes"]),
        "logs mentions": ("logsSubscribe", [{"mentions": [target]}]),
        "logs two mentions": ("logsSubscribe", [{"mentions": [target, target]}]),
        "logs no mentions": ("logsSubscribe", [{"mentions": []}]),
        "logs bad mention": ("logsSubscribe", [{"mentions": ["x"]}]),
        "logs text": ("logsSubscribe", ["some"]),
        "logs object": ("logsSubscribe", [{}]),
        "logs none": ("logsSubscribe", []),
        "signature": ("signatureSubscribe", [unknown]),
        "signature bad": ("signatureSubscribe", ["x"]),
        "signature none": ("signatureSubscribe", []),
        "signature received text": ("signatureSubscribe", [unknown, {"enableReceivedNotification": "x"}]),
        "slot params": ("slotSubscribe", [1]),
        "root params": ("rootSubscribe", [1]),
    }
    for kind in ("account", "program", "logs", "signature", "slot", "root", "slotsUpdates", "nothing"):
        made[f"{kind} end unknown"] = (f"{kind}Unsubscribe", [999_999_999])
    made["end text"] = ("accountUnsubscribe", ["x"])
    made["end negative"] = ("accountUnsubscribe", [-1])
    made["end none"] = ("accountUnsubscribe", [])
    return made


RAW = {
    "no JSON": "{",
    "number": "7",
    "empty batch": "[]",
    "batch": '[{"jsonrpc":"2.0","id":1,"method":"slotUnsubscribe","params":[9999999]}]',
    "no version": '{"id":1,"method":"slotUnsubscribe","params":[9999999]}',
    "no method": '{"jsonrpc":"2.0","id":1}',
    "id text": '{"jsonrpc":"2.0","id":"a","method":"slotUnsubscribe","params":[9999999]}',
}


class Session:
    """One connection: answers by id, notices by subscription."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._id = 0
        self.notices: list[Json] = []

    async def receive(self) -> Json:
        return json.loads(await self._socket.recv())

    async def ask(self, method: str, params: list[Json] | None) -> Json:
        self._id += 1
        body: dict[str, Json] = {"jsonrpc": "2.0", "id": self._id, "method": method}
        if params is not None:
            body["params"] = params
        return await self.raw(json.dumps(body))

    async def raw(self, text: str) -> Json:
        await self._socket.send(text)
        try:
            async with asyncio.timeout(SILENCE_S):
                while True:
                    message = await self.receive()
                    if not (isinstance(message, dict) and "method" in message):
                        return message
                    self.notices.append(message)
        except TimeoutError:
            return {"silence": True}

    async def notice(self, subscription: int) -> Json:
        """The next notice of a subscription."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                while True:
                    for index, message in enumerate(self.notices):
                        if message["params"]["subscription"] == subscription:
                            return self.notices.pop(index)
                    self.notices.append(await self.receive())
        except TimeoutError:
            return {"silence": True}


async def _single(world: World) -> dict[str, Json]:
    found: dict[str, Json] = {}
    async with connect(world.rpc.ws_url) as socket:
        session = Session(socket)
        for name, (method, params) in requests(world).items():
            found[f"ws {name}"] = await session.ask(method, params)
        for name, text in RAW.items():
            found[f"ws raw {name}"] = await session.raw(text)
    return found


async def _notices(world: World) -> dict[str, Json]:
    """Subscribe to everything, send one transaction, and keep what each subscription is told."""
    payer, target = world.payer, world.key("target").pubkey()
    new = world.create("owned3", 10, world.key("program").pubkey())
    tx = world.tx(pay(payer, target, 3 * SOL), new, signers=(world.key("owned3"),))
    poor = world.tx(pay(payer, target, 10_000 * SOL))
    found: dict[str, Json] = {}
    asked: dict[str, tuple[str, list[Json]]] = {}
    for encoding in ("base58", "base64", "base64+zstd", "jsonParsed"):
        options = {**CONFIRMED, "encoding": encoding}
        asked[f"account {encoding}"] = ("account", [str(target), options])
    zero = b58encode(bytes(2)).decode()
    filters = [{"dataSize": 10}, {"memcmp": {"offset": 0, "bytes": zero}}]
    asked |= {
        "account default": ("account", [str(target), CONFIRMED]),
        "account processed": ("account", [str(target), {"commitment": "processed"}]),
        "program": ("program", [world.address("program"), {**CONFIRMED, "encoding": "base64", "filters": filters}]),
        "logs mentions": ("logs", [{"mentions": [str(target)]}, CONFIRMED]),
        "signature": ("signature", [str(tx.signatures[0]), CONFIRMED]),
        "signature finalized": ("signature", [str(tx.signatures[0]), {"commitment": "finalized"}]),
        "signature failed": ("signature", [str(poor.signatures[0]), CONFIRMED]),
        "slot": ("slot", []),
        "root": ("root", []),
        "slotsUpdates": ("slotsUpdates", []),
    }  # fmt: skip
    async with connect(world.rpc.ws_url, max_size=1 << 24) as socket:
        session = Session(socket)
        numbers = {}
        for name, (kind, params) in asked.items():
            numbers[name] = (await session.ask(f"{kind}Subscribe", params or None))["result"]
        options = {"encoding": "base64", "skipPreflight": True}
        for sent in (tx, poor):
            await asyncio.to_thread(world.rpc.result, "sendTransaction", encoded(sent), options)
        for name, number in numbers.items():
            if name == "slotsUpdates":
                found |= await _updates(session, number)
                continue
            found[f"ws notice {name}"] = await session.notice(number)
            if name == "logs mentions":
                found[f"ws notice {name}, second"] = await session.notice(number)
        for name in ("account default", "slot", "signature"):
            answer = await session.ask(f"{asked[name][0]}Unsubscribe", [numbers[name]])
            found[f"ws end {name}"] = answer
        found["ws end twice"] = await session.ask("slotUnsubscribe", [numbers["slot"]])
        found["ws end of another kind"] = await session.ask("slotUnsubscribe", [numbers["root"]])
        late = (await session.ask("signatureSubscribe", [str(tx.signatures[0]), CONFIRMED]))["result"]
        found["ws notice signature late"] = await session.notice(late)
    return found


async def _updates(session: Session, number: int) -> dict[str, Json]:
    kinds: dict[str, Json] = {}
    for _ in range(400):
        update = await session.notice(number)
        kinds[update["params"]["result"]["type"]] = update
        if kinds.keys() >= UPDATES:
            break
    return {f"ws notice slotsUpdates {kind}": update for kind, update in kinds.items()}


def socket_answers(world: World) -> dict[str, Json]:
    """Every websocket answer and notice by name."""
    parts: tuple[Callable[[World], Any], ...] = (_single, _notices)
    found: dict[str, Json] = {}
    for part in parts:
        found |= asyncio.run(part(world))
    return found


__all__ = ["TOKEN", "Session", "socket_answers"]
