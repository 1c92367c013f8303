"""Be told that an account changed, so that it is read a moment sooner.

Only an accelerator. What a websocket says is never believed: it makes the caller look, by the ordinary way,
earlier than it would have. Where there is none, or it dies, lies or floods, the caller looks as often as it
does anyway.
"""

import json
import logging
import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import httpx
import trio
from solders.pubkey import Pubkey
from trio_websocket import WebSocketConnection, open_websocket_url

logger = logging.getLogger(__name__)

CONNECT_S: Final = 10.0
SILENCE_S: Final = 60.0
"""A connection without a change for so long is pinged."""
PONG_S: Final = 10.0
FIRST_RETRY_S: Final = 1.0
MAX_RETRY_S: Final = 60.0
MAX_MESSAGE_BYTES: Final = 65_536
"""The subscription asks for no data, so a notice is some hundred bytes."""
GAP_S: Final = 0.1
"""Least time between two notices that are read: whoever sends faster has to wait."""
WINDOW_S: Final = 10.0
MAX_WAKES: Final = 30
"""In a window; a run changes less often."""


def websocket_url(url: str) -> str:
    """Where Solana's nodes serve the websocket of an RPC endpoint: the next port, where one is named."""
    parts = urlsplit(url)
    netloc = parts.netloc
    if parts.port is not None:
        netloc = netloc[: netloc.rindex(":")] + f":{parts.port + 1}"
    scheme = "wss" if parts.scheme == "https" else "ws"
    return urlunsplit((scheme, netloc, parts.path or "/", parts.query, ""))


async def watch_account(urls: Sequence[str], key: Pubkey, wake: Callable[[], object]) -> None:
    """Call `wake` when the account may have changed; until cancelled, whatever happens.

    Args:
        urls: RPC endpoints; their websockets are tried in turn.
        key: the account.
        wake: called at most `MAX_WAKES` times in `WINDOW_S`.
    """
    failures = 0
    while True:
        url = websocket_url(urls[failures % len(urls)])
        began = trio.current_time()
        try:
            await _listen(url, key, wake)
        except Exception as exc:  # an accelerator must not stop a member, whatever a stranger's server sends
            logger.debug("websocket %s: %s", urlsplit(url).hostname, str(exc) or type(exc).__name__)
        failures = 0 if trio.current_time() - began > MAX_RETRY_S else failures + 1
        delay_s = min(MAX_RETRY_S, FIRST_RETRY_S * 2 ** min(failures - 1, 8)) if failures else FIRST_RETRY_S
        await trio.sleep(delay_s * random.uniform(0.5, 1.0))


async def _listen(url: str, key: Pubkey, wake: Callable[[], object]) -> None:
    options = {"commitment": "confirmed", "encoding": "base64", "dataSlice": {"offset": 0, "length": 0}}
    request = {"jsonrpc": "2.0", "id": 1, "method": "accountSubscribe", "params": [str(key), options]}
    tls = httpx.create_ssl_context() if url.startswith("wss") else None
    async with open_websocket_url(
        url,
        ssl_context=tls,
        connect_timeout=CONNECT_S,
        disconnect_timeout=1,
        message_queue_size=1,
        max_message_size=MAX_MESSAGE_BYTES,
    ) as socket:
        with trio.fail_after(CONNECT_S):
            await socket.send_message(json.dumps(request))
        woken: deque[float] = deque(maxlen=MAX_WAKES)
        while True:
            if _is_notice(await _message(socket)):
                now = trio.current_time()
                if len(woken) < MAX_WAKES or woken[0] < now - WINDOW_S:
                    woken.append(now)
                    wake()
            await trio.sleep(GAP_S)


async def _message(socket: WebSocketConnection) -> str | bytes:
    """The next message; a connection that is silent must at least answer a ping."""
    while True:
        with trio.move_on_after(SILENCE_S):
            message: str | bytes = await socket.get_message()
            return message
        with trio.fail_after(PONG_S):
            await socket.ping()


def _is_notice(message: str | bytes) -> bool:
    """Whether it looks like a notice; what else it says does not matter.

    Raises:
        ValueError: it is not JSON-RPC, or a refusal of the subscription.
    """
    answer: Any = json.loads(message)
    if not isinstance(answer, dict) or "error" in answer:
        raise ValueError("the subscription was refused")
    return answer.get("method") == "accountNotification"
