"""From the text of a request to the text of its answer."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging

from localnet.chain.errors import (
    INTERNAL_ERROR,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    PARSE_ERROR,
    RpcError,
)
from localnet.chain.records import Json
from localnet.chain.rpc import METHODS, Node
from localnet.chain.rpc.params import Params

logger = logging.getLogger(__name__)

MAX_BATCH = 1_000
MAX_ANSWER_BYTES = 32 << 20
"""How much a batch is answered with; the rest of its requests is refused, as is a single larger answer."""
_AT_ONCE = 128
"""Requests of a batch that are worked on together: as many as the bank commits together."""
_FIELDS = frozenset(("jsonrpc", "method", "params", "id"))


def dump(value: Json) -> str:
    """JSON text that can be sent as UTF-8, also where a request's half of a surrogate pair is repeated in it."""
    shown = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return shown if shown.isascii() else json.dumps(value, separators=(",", ":"))


def error_answer(request_id: Json, error: RpcError) -> dict[str, Json]:
    return {"jsonrpc": "2.0", "error": error.to_json(), "id": request_id}


def _no_constant(name: str) -> Json:
    raise ValueError(f"{name} is no JSON")


def load(body: bytes | str) -> Json:
    """Parse a request or a batch as far as telling its parts apart.

    Raises:
        RpcError: it is no JSON, or something that is neither a request nor a batch of them.
    """
    try:
        # As bytes it might also be UTF-16, or begin with a mark.
        text = body if isinstance(body, str) else body.decode()
        request = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise RpcError(PARSE_ERROR, "Parse error") from None
    items = request if isinstance(request, list) else [request]
    if not all(isinstance(item, dict) and _is_id(item.get("id")) for item in items):
        raise RpcError(PARSE_ERROR, "Parse error")
    return request


def _is_id(value: Json) -> bool:
    """Solana takes texts and numbers from 0 to 2**64 - 1 as ids, or none."""
    if value is None or isinstance(value, str):
        return True
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 64


def check(request: dict[str, Json]) -> dict[str, Json] | None:
    """The answer to what is not a request; None where it is one."""
    error = RpcError(INVALID_REQUEST, "Invalid request")
    name, params = request.get("method"), request.get("params")
    if (
        not isinstance(name, str)
        or not set(request) <= _FIELDS
        or not isinstance(params, (list, dict, type(None)))
    ):
        return error_answer(request.get("id"), error)
    if request.get("jsonrpc") is None:
        error = RpcError(INVALID_REQUEST, "Unsupported JSON-RPC protocol version")
        return {"error": error.to_json(), "id": request.get("id")}
    if request["jsonrpc"] != "2.0":
        return error_answer(request.get("id"), error)
    return None


async def answer(node: Node, body: str) -> str | None:
    """The answer to a request or a batch; None where nothing is to be answered (notifications)."""
    try:
        request = load(body)
    except RpcError as exc:
        return dump(error_answer(None, exc))
    if not isinstance(request, list):
        single = await _one(node, request)
        return None if single is None else _bounded(single)
    if len(request) > MAX_BATCH:
        error = RpcError(INVALID_REQUEST, f"Invalid request: at most {MAX_BATCH} in a batch")
        return dump(error_answer(None, error))
    return await _batch(node, request)


async def _batch(node: Node, requests: list[dict[str, Json]]) -> str | None:
    """All answers in order. What is already answered counts against what the rest may take."""
    shown: list[str] = []
    size = 0
    for start in range(0, len(requests), _AT_ONCE):
        part = requests[start : start + _AT_ONCE]
        if size > MAX_ANSWER_BYTES:
            shown += [dump(error_answer(item.get("id"), _too_large())) for item in part if "id" in item]
            continue
        for found in await _together(node, part, MAX_ANSWER_BYTES - size):
            if found is not None:
                shown.append(found)
                size += len(found)
    return f"[{','.join(shown)}]" if shown else None


async def _together(node: Node, requests: list[dict[str, Json]], room: int) -> list[str | None]:
    """Answers as text, made one after another where they come at once, so that large ones are counted."""
    left = room

    async def one(request: dict[str, Json]) -> str | None:
        nonlocal left
        if left < 0:
            return dump(error_answer(request.get("id"), _too_large()))
        found = await _one(node, request)
        if found is None:
            return None
        text = _bounded(found)
        left -= len(text)
        return text

    return await asyncio.gather(*(one(item) for item in requests))  # begun in their order


def _too_large() -> RpcError:
    return RpcError(
        INTERNAL_ERROR, f"The answer is larger than {MAX_ANSWER_BYTES} bytes: ask for less at once"
    )


def _bounded(reply: dict[str, Json]) -> str:
    text = dump(reply)
    return text if len(text) <= MAX_ANSWER_BYTES else dump(error_answer(reply["id"], _too_large()))


async def _one(node: Node, request: dict[str, Json]) -> dict[str, Json] | None:
    wrong = check(request)
    if wrong is not None:
        return wrong
    name, request_id = request["method"], request.get("id")
    found = METHODS.get(name)
    try:
        if found is None:
            raise RpcError(METHOD_NOT_FOUND, "Method not found")
        params = Params(request.get("params"))
        params.check_count(found.required, found.optional)
        result = found.function(node, params)
        if inspect.isawaitable(result):
            result = await result
        reply = {"jsonrpc": "2.0", "result": result, "id": request_id}
    except RpcError as exc:
        reply = error_answer(request_id, exc)
    except Exception:
        logger.exception("%s failed", name)
        reply = error_answer(request_id, RpcError(INTERNAL_ERROR, "Internal error"))
    return reply if "id" in request else None
