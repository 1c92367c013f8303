"""Solana's websocket protocol over one connection."""

from __future__ import annotations

import asyncio
import contextlib

from starlette.websockets import WebSocket, WebSocketDisconnect

from localnet.chain.errors import METHOD_NOT_FOUND, RpcError, invalid_params
from localnet.chain.records import Json
from localnet.chain.rpc.dispatch import check, error_answer, load
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
    guard = asyncio.create_task(_close_when_cut_off(socket, client, sender))
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
        for task in (guard, sender):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task


async def _send(socket: WebSocket, client: Client) -> None:
    while True:
        await socket.send_text(await client.next())


async def _close_when_cut_off(socket: WebSocket, client: Client, sender: asyncio.Task[None]) -> None:
    """Close a connection that does not read; one that does not even take the close is dropped by its pings."""
    await client.cut_off.wait()
    sender.cancel()
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


def _one(hub: Hub, client: Client, request: dict[str, Json]) -> Json:
    wrong = check(request)
    if wrong is not None:
        return wrong
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
            params.check_count(1, 0)
            number = params.integer(0)
            if number >= 1 << 53:
                raise invalid_params("Invalid subscription id.")
            return hub.unsubscribe(client, number)
    raise RpcError(METHOD_NOT_FOUND, "Method not found")
