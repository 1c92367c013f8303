"""One RPC endpoint: a request, an answer within bounds, and marks for how it went."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import trio

MAX_ANSWER_BYTES: Final = 32 << 20
"""Largest answer that is read: the code of a program, or all memberships of many runs, are a tenth."""
MAX_REST_S: Final = 30.0
MAX_WAIT_S: Final = 60.0
"""Longest time that an endpoint can ask not to be asked."""
RETRYABLE_CODES: Final = frozenset(
    {-32000, -32004, -32005, -32007, -32009, -32014, -32016, -32429, -32603, 429, 503}
)
"""JSON-RPC errors that another try or node may not give: behind, rate limited, slot skipped, internal error."""


class Unusable(Exception):
    """This endpoint gave no usable answer; another, or a later try, may."""


class Refusal(Exception):
    """The endpoint answered with a JSON-RPC error that it would give again."""

    def __init__(self, text: str, code: int, data: object) -> None:
        super().__init__(text)
        self.code = code
        self.data = data


@dataclass(slots=True)
class Endpoint:
    """An address, its HTTP client and its health."""

    url: str
    client: httpx.AsyncClient
    number: int
    score: float = 1.0
    """Moving share of calls that went well."""
    latency_s: float = 0.1
    resting_until: float = 0.0
    """Others are asked first until then."""
    not_before: float = 0.0
    """It asked not to be asked until then."""
    failures: int = 0
    said_slot: bool = False
    """It has shown a slot, so that it can be judged by it."""

    @property
    def name(self) -> str:
        """Host and port; the path of an endpoint often holds a key, and is never shown."""
        parts = urlsplit(self.url)
        return parts.hostname + (f":{parts.port}" if parts.port else "") if parts.hostname else self.url

    def good(self, seconds: float) -> None:
        """It answered."""
        self.score = 0.8 * self.score + 0.2
        self.latency_s = 0.8 * self.latency_s + 0.2 * seconds
        self.failures = 0
        self.resting_until = self.not_before = 0.0

    def bad(self, weight: float = 1.0) -> None:
        """It did not, or lags (a small `weight`)."""
        self.score *= 1 - 0.4 * weight
        self.failures += 1
        rest_s = min(MAX_REST_S, 0.5 * 2 ** min(self.failures, 6)) * weight
        self.resting_until = trio.current_time() + rest_s

    async def post(self, request_id: int, method: str, params: Sequence[Any]) -> Any:
        """Call a method; return the raw result. The caller limits the time.

        Raises:
            Unusable, httpx.HTTPError, OSError: there is no usable answer.
            Refusal: the answer is an error that is final.
        """
        body = {"jsonrpc": "2.0", "id": request_id, "method": method, "params": list(params)}
        async with self.client.stream("POST", self.url, json=body) as response:
            status = response.status_code
            if status == 429 or status >= 500:
                self._wait(response.headers)
                raise Unusable("too many requests" if status == 429 else f"HTTP status {status}")
            read = bytearray()
            async for part in response.aiter_bytes(65_536):
                read += part
                if len(read) > MAX_ANSWER_BYTES:
                    raise Unusable(f"an answer of more than {MAX_ANSWER_BYTES >> 20} MiB")
        try:
            answer = json.loads(read)
        except (ValueError, RecursionError) as exc:
            raise Unusable(f"HTTP status {status}, not JSON") from exc
        if not isinstance(answer, dict):
            raise Unusable("the answer is not a JSON object")
        error = answer.get("error")
        if answer.get("id") != request_id and not (error is not None and answer.get("id") is None):
            raise Unusable("the answer to another request")
        if error is not None:
            raise self._error(error)
        if "result" not in answer:
            raise Unusable(f"HTTP status {status}, neither result nor error")
        return answer["result"]

    def _error(self, error: Any) -> Unusable | Refusal:
        fields = error if isinstance(error, dict) else {"message": error}
        code, text = fields.get("code"), str(fields.get("message", error))[:1000]
        code = code if type(code) is int else 0
        if code in RETRYABLE_CODES or "too many requests" in text.lower():
            return Unusable(f"{text} (code {code})")
        return Refusal(text, code, fields.get("data"))

    def _wait(self, headers: httpx.Headers) -> None:
        """Heed `Retry-After`: seconds, or a date, which is compared with the server's own clock."""
        text = headers.get("retry-after", "").strip()
        try:
            if text.isascii() and text.isdigit():
                seconds = float(text[:9])
            else:
                until, now = parsedate_to_datetime(text), parsedate_to_datetime(headers.get("date", ""))
                seconds = (until - now).total_seconds()
        except (ValueError, TypeError):
            return
        if seconds > 0:
            self.not_before = trio.current_time() + min(MAX_WAIT_S, seconds)


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


def reason(exc: BaseException) -> str:
    """An exception in words."""
    return str(exc) or type(exc).__name__
