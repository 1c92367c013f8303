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


def dump(value: Json) -> str:
    """JSON text that can be sent as UTF-8, also where a request's half of a surrogate pair is repeated in it."""
    shown = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return shown if shown.isascii() else json.dumps(value, separators=(",", ":"))


def error_answer(request_id: Json, error: RpcError) -> dict[str, Json]:
    return {"jsonrpc": "2.0", "error": error.to_json(), "id": request_id}


def load(body: bytes | str) -> Json:
    """Parse JSON.

    Raises:
        RpcError: it is none.
    """
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise RpcError(PARSE_ERROR, "Parse error") from None


async def answer(node: Node, body: bytes) -> str | None:
    """The answer to a request or a batch; None where nothing is to be answered (notifications)."""
    try:
        request = load(body)
    except RpcError as exc:
        return dump(error_answer(None, exc))
    if not isinstance(request, list):
        single = await _one(node, request)
        return None if single is None else dump(single)
    if not request or len(request) > MAX_BATCH:
        return dump(
            error_answer(None, RpcError(INVALID_REQUEST, f"Invalid request: 1 to {MAX_BATCH} in a batch"))
        )
    answers = await asyncio.gather(*(_one(node, item) for item in request))  # begun in their order
    kept = [item for item in answers if item is not None]
    return dump(kept) if kept else None


async def _one(node: Node, request: Json) -> dict[str, Json] | None:
    if not isinstance(request, dict) or request.get("jsonrpc") != "2.0":
        return error_answer(None, RpcError(INVALID_REQUEST, "Invalid request"))
    name, request_id = request.get("method"), request.get("id")
    if not isinstance(name, str) or isinstance(request_id, (dict, list, bool)):
        return error_answer(None, RpcError(INVALID_REQUEST, "Invalid request"))
    function = METHODS.get(name)
    try:
        if function is None:
            raise RpcError(METHOD_NOT_FOUND, "Method not found")
        result = function(node, Params(request.get("params")))
        if inspect.isawaitable(result):
            result = await result
        reply = {"jsonrpc": "2.0", "result": result, "id": request_id}
    except RpcError as exc:
        reply = error_answer(request_id, exc)
    except Exception:
        logger.exception("%s failed", name)
        reply = error_answer(request_id, RpcError(INTERNAL_ERROR, "Internal error"))
    return reply if "id" in request else None
