"""Solana's websocket protocol over one connection."""

from __future__ import annotations

import asyncio
import contextlib

from starlette.websockets import WebSocket, WebSocketDisconnect

from localnet.chain.errors import INVALID_REQUEST, METHOD_NOT_FOUND, RpcError, invalid_params
from localnet.chain.records import Json
from localnet.chain.rpc.dispatch import dump, error_answer, load
from localnet.chain.rpc.params import Params
from localnet.chain.subscriptions import KINDS, Client, Hub

_TRY_AGAIN_LATER = 1013


async def serve(hub: Hub, socket: WebSocket) -> None:
    """Answer one connection until it ends.

    Resource handling: its subscriptions end with it. Error handling: a bad message is answered with an
    error; a client that does not read its notices is disconnected.
    """
    await socket.accept()
    client = Client()
    sender = asyncio.create_task(_send(socket, client))
    try:
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            body = message.get("text") or message.get("bytes") or ""
            reply = _answer(hub, client, body)
            if reply is not None:
                client.send(reply)
    except (WebSocketDisconnect, RuntimeError):
        return
    finally:
        hub.leave(client)
        sender.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await sender


async def _send(socket: WebSocket, client: Client) -> None:
    while (message := await client.queue.get()) is not None:
        await socket.send_text(dump(message))
    await socket.close(_TRY_AGAIN_LATER, "notices are not read fast enough")


def _answer(hub: Hub, client: Client, body: str | bytes) -> Json:
    try:
        request = load(body)
    except RpcError as exc:
        return error_answer(None, exc)
    if isinstance(request, list):
        answers = [_one(hub, client, item) for item in request]
        return [item for item in answers if item is not None] or None
    return _one(hub, client, request)


def _one(hub: Hub, client: Client, request: Json) -> Json:
    if not isinstance(request, dict) or not isinstance(request.get("method"), str):
        return error_answer(None, RpcError(INVALID_REQUEST, "Invalid request"))
    if "id" not in request:
        return None  # web3.js sends `ping` this way
    try:
        result = _call(hub, client, request["method"], Params(request.get("params")))
    except RpcError as exc:
        return error_answer(request["id"], exc)
    return {"jsonrpc": "2.0", "result": result, "id": request["id"]}


def _call(hub: Hub, client: Client, name: str, params: Params) -> int | bool:
    for kind in KINDS:
        if name == f"{kind}Subscribe":
            return hub.subscribe(client, kind, params)
        if name == f"{kind}Unsubscribe":
            number = params.integer(0)
            if number >= 1 << 53:
                raise invalid_params("Invalid subscription id.")
            return hub.unsubscribe(client, kind, number)
    raise RpcError(METHOD_NOT_FOUND, "Method not found")
