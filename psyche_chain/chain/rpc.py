"""JSON-RPC over several endpoints, under trio.

Reads go to the healthiest endpoint and fail over to the next; retries wait with jitter; every call has a
deadline. Answers that carry a slot are compared with the newest slot that any endpoint has shown, so that a
node that lags behind is never believed over a newer answer. Everything is read at commitment `confirmed`.

Resource handling: the pool owns one HTTP client per endpoint; use it as an async context manager.

Error handling: `RpcError` when an endpoint answered and another try would not change the answer,
`RpcUnavailable` when no endpoint gave a usable answer in time. Nothing else escapes but `trio.Cancelled`.
"""

import itertools
import json
import logging
import random
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from types import TracebackType
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import httpx
import trio

from psyche_chain.chain.errors import RpcError, RpcUnavailable

logger = logging.getLogger(__name__)

T = TypeVar("T")

DEFAULT_DEADLINE_S = 15.0
"""Longest time that one call may take over all endpoints and retries."""
REQUEST_TIMEOUT_S: Final = 8.0
"""Longest time for one HTTP request to one endpoint."""
FIRST_DELAY_S: Final = 0.25
MAX_DELAY_S: Final = 4.0
RETRYABLE_CODES: Final = frozenset({-32004, -32005, -32007, -32014, -32016, 429})
"""JSON-RPC errors that another try or node may not give: behind, rate limited, slot skipped, minimum slot."""


class _Again(Exception):
    """This endpoint gave no usable answer; another, or a later try, may."""


@dataclass(slots=True)
class _Endpoint:
    url: str
    client: httpx.AsyncClient
    score: float = 1.0
    """Moving share of calls that went well."""
    latency_s: float = 0.1
    resting_until: float = 0.0
    failures: int = 0

    @property
    def name(self) -> str:
        """Host and port; the path of an endpoint often holds a key, and is never shown."""
        parts = urlsplit(self.url)
        return parts.hostname + (f":{parts.port}" if parts.port else "") if parts.hostname else self.url

    def good(self, seconds: float) -> None:
        self.score = 0.8 * self.score + 0.2
        self.latency_s = 0.8 * self.latency_s + 0.2 * seconds
        self.failures = 0
        self.resting_until = 0.0

    def bad(self, weight: float = 1.0) -> None:
        self.score *= 1 - 0.4 * weight
        self.failures += 1
        rest_s = min(30.0, 0.5 * 2 ** min(self.failures, 6)) * weight
        self.resting_until = trio.current_time() + rest_s


def check_url(url: str) -> str:
    """Return `url` if it can be an RPC endpoint.

    Raises:
        ValueError: it is not an http or https address.
    """
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port outside 1..65535, or an IPv6 address without its end
        is_usable = False
    if not is_usable or any(c.isspace() or not c.isprintable() for c in url):
        raise ValueError(f"{url!r} is not an http:// or https:// address")
    return url


@cache
def _trusting() -> ssl.SSLContext:
    """Trusts what httpx trusts; reading the certificates takes longer than most calls, so it is done once."""
    return httpx.create_ssl_context()


def _tls(url: str) -> ssl.SSLContext:
    """For a plain http endpoint a context that trusts nobody: nothing is read for it."""
    return _trusting() if url.startswith("https") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class RpcPool:
    """Calls one of several RPC endpoints, the healthiest first."""

    def __init__(
        self,
        urls: Sequence[str],
        *,
        deadline_s: float | None = None,
        transport: Callable[[str], httpx.AsyncBaseTransport | None] = lambda url: None,
    ) -> None:
        """Args:
        urls: at least one http(s) address; the first is preferred while all are healthy.
        deadline_s: default limit of a call; `DEFAULT_DEADLINE_S` where None.
        transport: for tests, the HTTP transport of an address.
        """
        if not urls:
            raise ValueError("an RPC pool needs at least one endpoint")
        self.deadline_s = DEFAULT_DEADLINE_S if deadline_s is None else deadline_s
        self.newest_slot = 0
        """Newest slot that any answer has shown."""
        self._ids = itertools.count(1)
        self._endpoints = [
            _Endpoint(
                check_url(url),
                httpx.AsyncClient(
                    timeout=REQUEST_TIMEOUT_S, transport=transport(url), http2=False, verify=_tls(url)
                ),
            )
            for url in dict.fromkeys(urls)
        ]

    async def __aenter__(self) -> "RpcPool":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
            for endpoint in self._endpoints:
                await endpoint.client.aclose()

    @property
    def names(self) -> list[str]:
        """Hosts of the endpoints, for messages."""
        return [e.name for e in self._endpoints]

    def health(self) -> list[dict[str, Any]]:
        """One row per endpoint: name, score in 0..1, latency in seconds, failures in a row."""
        return [
            {
                "endpoint": e.name,
                "score": round(e.score, 3),
                "latency_s": round(e.latency_s, 4),
                "failures": e.failures,
            }
            for e in self._endpoints
        ]

    def _order(self) -> list[_Endpoint]:
        """Endpoints to try, best first and resting ones last; the earlier one where they are about equal."""
        now = trio.current_time()
        return [
            e
            for _, e in sorted(
                enumerate(self._endpoints),
                key=lambda ie: (ie[1].resting_until > now, -round(ie[1].score, 1), ie[0]),
            )
        ]

    async def call(
        self,
        method: str,
        params: Sequence[Any] = (),
        *,
        check: Callable[[Any], T] | None = None,
        deadline_s: float | None = None,
    ) -> Any:
        """Call `method` and return its result.

        Args:
            method: JSON-RPC method.
            params: its positional parameters.
            check: turns the raw result into the value to return; a `ValueError`, `KeyError`, `TypeError` or
                `IndexError` from it counts as a malformed answer of that endpoint.
            deadline_s: limit over all endpoints and retries; the pool's where None.

        Raises:
            RpcError: an endpoint answered with an error that is final.
            RpcUnavailable: no endpoint gave a usable answer in time.
        """
        limit_s = self.deadline_s if deadline_s is None else deadline_s
        last = "no answer"
        with trio.move_on_after(limit_s):
            for attempt in itertools.count():
                for endpoint in self._order():
                    started = trio.current_time()
                    try:
                        result = await self._post(endpoint, method, params)
                        value = result if check is None else check(result)
                    except (_Again, httpx.HTTPError, OSError) as exc:
                        endpoint.bad(0.3 if isinstance(exc, _Stale) else 1.0)
                        last = f"{endpoint.name}: {_reason(exc)}"
                    except (ValueError, KeyError, TypeError, IndexError) as exc:
                        endpoint.bad()
                        last = f"{endpoint.name}: an answer that is not Solana's"
                        logger.debug("rpc malformed answer method=%s: %s", method, _reason(exc))
                    else:
                        endpoint.good(trio.current_time() - started)
                        return value
                    logger.debug("rpc try method=%s %s", method, last)
                delay_s = min(MAX_DELAY_S, FIRST_DELAY_S * 2**attempt)
                await trio.sleep(delay_s * random.uniform(0.5, 1.0))
        raise RpcUnavailable(
            f"no RPC endpoint answered {method} within {limit_s:g} s; last: {last}",
            hint=f"check the network and --rpc (now: {', '.join(self.names)})",
        )

    async def _post(self, endpoint: _Endpoint, method: str, params: Sequence[Any]) -> Any:
        body = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": list(params)}
        response = await endpoint.client.post(endpoint.url, json=body)
        if response.status_code == 429 or response.status_code >= 500:
            raise _Again(f"HTTP status {response.status_code}")
        try:
            answer = response.json()
        except (json.JSONDecodeError, UnicodeDecodeError) as exc:
            raise _Again(f"HTTP status {response.status_code}, not JSON") from exc
        if not isinstance(answer, dict):
            raise _Again("the answer is not a JSON object")
        if (error := answer.get("error")) is not None:
            code = error.get("code", 0) if isinstance(error, dict) else 0
            text = str(error.get("message", error)) if isinstance(error, dict) else str(error)
            if code in RETRYABLE_CODES:
                raise _Again(f"{text} (code {code})")
            data = error.get("data") if isinstance(error, dict) else None
            raise RpcError(f"{endpoint.name} refused {method}: {text}", code=code, data=data)
        if "result" not in answer:
            raise _Again(f"HTTP status {response.status_code}, neither result nor error")
        return answer["result"]

    def observe(self, slot: int) -> None:
        """Remember a slot that the chain has certainly reached, such as that of an own transaction."""
        self.newest_slot = max(self.newest_slot, slot)

    async def call_at_slot(
        self,
        method: str,
        params: Sequence[Any],
        parse: Callable[[Any], T],
        *,
        deadline_s: float | None = None,
    ) -> tuple[T, int]:
        """Call a method whose result is `{context: {slot}, value}`; return the parsed value and its slot.

        An answer of an older slot than the newest one seen is refused, and the next endpoint asked.
        """

        def check(result: Any) -> tuple[T, int]:
            slot = int(result["context"]["slot"])
            if slot < self.newest_slot:
                raise _Stale(f"answers at slot {slot}, but slot {self.newest_slot} was seen")
            value = parse(result["value"])
            self.observe(slot)
            return value, slot

        answer: tuple[T, int] = await self.call(method, params, check=check, deadline_s=deadline_s)
        return answer


class _Stale(_Again):
    """The endpoint lags behind what another one has shown."""


def _reason(exc: BaseException) -> str:
    return str(exc) or type(exc).__name__
