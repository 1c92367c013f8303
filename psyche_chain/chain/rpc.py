"""JSON-RPC over several endpoints, under trio.

Reads go to the healthiest endpoint and fail over to the next; retries wait with jitter; every request and
every call has a deadline. Answers that carry a slot are judged by `psyche_chain.chain.slots`, so that a node
that lags or lies is not believed over one that does not. With several endpoints all are looked at every few
seconds, so that one that has recovered is used again. Everything is read at commitment `confirmed`.

Resource handling: the pool owns one HTTP client per endpoint and the task that looks at them; use it as an
async context manager.

Error handling: `RpcError` when the endpoints that answered refuse and another try would not change that,
`RpcUnavailable` when no endpoint gave a usable answer in time, and what a `check` raises as `PsycheError`.
Nothing else escapes but `trio.Cancelled`.
"""

import itertools
import logging
import random
import ssl
from collections.abc import Callable, Sequence
from functools import cache, partial
from types import TracebackType
from typing import Any, Final, TypeVar

import httpx
import trio
from solders.hash import ParseHashError

from psyche_chain.chain._endpoint import Endpoint, Refusal, Unusable, check_url, reason
from psyche_chain.chain.errors import RpcError, RpcUnavailable
from psyche_chain.chain.slots import STEP, SlotWatch, Stale
from psyche_chain.errors import PsycheError

__all__ = ["DEFAULT_DEADLINE_S", "RpcPool", "check_url"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

DEFAULT_DEADLINE_S = 15.0
"""Longest time that one call may take over all endpoints and retries."""
REQUEST_TIMEOUT_S: Final = 8.0
"""Longest time for one HTTP request to one endpoint, its whole answer included."""
FIRST_TIMEOUT_S: Final = 2.5
"""The same for the first try where there are other endpoints to ask."""
LOOK_S: Final = 10.0
"""Time between two looks at all endpoints."""
GOOD: Final = 0.8
"""Endpoints with at least this score are equally good: the earlier one is asked."""
FIRST_DELAY_S: Final = 0.25
MAX_DELAY_S: Final = 4.0
MALFORMED: Final = (
    ValueError,
    KeyError,
    TypeError,
    IndexError,
    AttributeError,
    OverflowError,
    RecursionError,
    ParseHashError,
)
"""What reading an answer that is not Solana's raises."""


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
        self._slots = SlotWatch()
        self._answering: int | None = None
        """The endpoint whose answer is being read, or was read last."""
        self._ids = itertools.count(1)
        self._endpoints = [
            Endpoint(
                check_url(url),
                httpx.AsyncClient(
                    timeout=REQUEST_TIMEOUT_S, transport=transport(url), http2=False, verify=_tls(url)
                ),
                number,
            )
            for number, url in enumerate(dict.fromkeys(urls))
        ]
        self._tasks = trio.open_nursery()
        self._nursery: trio.Nursery | None = None

    async def __aenter__(self) -> "RpcPool":
        if len(self._endpoints) > 1:
            self._nursery = await self._tasks.__aenter__()
            self._nursery.start_soon(self._keep_looking)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()
            # Without the block's exception: it goes on as it is, not in a group.
            await self._tasks.__aexit__(None, None, None)
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
            for endpoint in self._endpoints:
                await endpoint.client.aclose()

    @property
    def names(self) -> list[str]:
        """Hosts of the endpoints by number, for messages."""
        return [e.name for e in self._endpoints]

    @property
    def urls(self) -> list[str]:
        """The endpoints; their paths may hold keys."""
        return [e.url for e in self._endpoints]

    @property
    def newest_slot(self) -> int:
        """Newest slot that a believed answer has shown."""
        return self._slots.newest

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

    def _order(self) -> list[Endpoint]:
        """Endpoints to try, best first, resting and doubtful ones last; the earlier one where about equal.

        One that asked not to be asked before some time is left out until then.
        """
        now = trio.current_time()
        trusted = self._slots.trusted(now)

        def rank(e: Endpoint) -> tuple[bool, bool, float, int]:
            doubtful = bool(trusted) and e.number not in trusted and e.said_slot
            return e.resting_until > now, doubtful, -min(GOOD, round(e.score, 1)), e.number

        return sorted((e for e in self._endpoints if e.not_before <= now), key=rank)

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
            check: turns the raw result into the value to return; one of `MALFORMED` from it counts as a
                malformed answer of that endpoint. A `PsycheError` from it is raised if every other
                endpoint's answer is no better.
            deadline_s: limit over all endpoints and retries; the pool's where None.

        Raises:
            RpcError: the endpoints that answered refuse, and another try would not change it.
            RpcUnavailable: no endpoint gave a usable answer in time.
        """
        limit_s = self.deadline_s if deadline_s is None else deadline_s
        last = "no answer"
        deadline = trio.current_time() + limit_s
        with trio.move_on_at(deadline):
            for attempt in itertools.count():
                refusal: PsycheError | None = None
                for endpoint in self._order():
                    timeout_s = (
                        FIRST_TIMEOUT_S if not attempt and len(self._endpoints) > 1 else REQUEST_TIMEOUT_S
                    )
                    try:
                        return await self._ask(endpoint, method, params, check, timeout_s)
                    except Unusable as exc:
                        last = f"{endpoint.name}: {exc}"
                    except PsycheError as exc:  # this endpoint's answer is clear; others may know more
                        last, refusal = f"{endpoint.name}: {exc.message}", exc
                    logger.debug("rpc try method=%s %s", method, last)
                if refusal is not None:
                    raise refusal
                now = trio.current_time()
                wake = now + min(MAX_DELAY_S, FIRST_DELAY_S * 2**attempt) * random.uniform(0.5, 1.0)
                wake = max(wake, min(e.not_before for e in self._endpoints))
                if wake >= deadline > now and wake > now + MAX_DELAY_S:
                    break  # all endpoints asked to be left alone for longer than there is time
                await trio.sleep_until(wake)
        raise RpcUnavailable(
            f"no RPC endpoint answered {method} within {limit_s:g} s; last: {last}",
            hint=f"check the network and --rpc (now: {', '.join(self.names)})",
        )

    async def call_each(
        self,
        method: str,
        params: Sequence[Any] = (),
        *,
        check: Callable[[Any], T],
        deadline_s: float = FIRST_TIMEOUT_S,
    ) -> dict[int, T]:
        """Ask all endpoints at the same time, each once; the usable answers that came in time, by endpoint."""
        found: dict[int, T] = {}

        async def ask(endpoint: Endpoint) -> None:
            try:
                found[endpoint.number] = await self._ask(endpoint, method, params, check, deadline_s)
            except (Unusable, PsycheError) as exc:
                logger.debug("rpc try method=%s %s: %s", method, endpoint.name, exc)

        async with trio.open_nursery() as nursery:
            now = trio.current_time()
            for endpoint in self._endpoints:
                if endpoint.not_before <= now:
                    nursery.start_soon(ask, endpoint)
        return found

    async def _ask(
        self,
        endpoint: Endpoint,
        method: str,
        params: Sequence[Any],
        check: Callable[[Any], T] | None,
        timeout_s: float,
    ) -> T:
        """One request to one endpoint, which gets its marks for the answer.

        Raises:
            Unusable: there is no usable answer.
            PsycheError: there is one, and it is a refusal.
        """
        started = trio.current_time()
        try:
            with trio.fail_after(timeout_s):
                result = await endpoint.post(next(self._ids), method, params)
            self._answering = endpoint.number
            value: Any = result if check is None else check(result)
        except Stale as exc:
            endpoint.bad(0.3)
            raise Unusable(str(exc)) from exc
        except Refusal as exc:
            endpoint.good(trio.current_time() - started)
            raise RpcError(f"{endpoint.name} refused {method}: {exc}", code=exc.code, data=exc.data) from None
        except MALFORMED as exc:
            endpoint.bad()
            logger.debug("rpc malformed answer method=%s: %s", method, reason(exc))
            raise Unusable("an answer that is not Solana's") from exc
        except (Unusable, httpx.HTTPError, OSError, trio.TooSlowError) as exc:
            self._gone(endpoint)
            raise Unusable(
                f"no answer within {timeout_s:g} s" if isinstance(exc, trio.TooSlowError) else reason(exc)
            ) from exc
        except trio.Cancelled:
            if trio.current_time() - started >= FIRST_TIMEOUT_S / 2:
                self._gone(endpoint)
            raise
        except PsycheError:
            endpoint.bad(0.3)
            raise
        endpoint.good(trio.current_time() - started)
        answer: T = value
        return answer

    def _gone(self, endpoint: Endpoint) -> None:
        endpoint.bad()
        self._slots.drop(endpoint.number)

    def observe(self, slot: int) -> None:
        """Remember a slot that the chain has reached, such as that of an own transaction."""
        self._slots.observe(self._answering, slot, trio.current_time())

    def judge(self, context: Any, *, nearly: bool = False) -> int:
        """Inside a `check`: the slot in a result's context, if the answer may be used.

        With `nearly`, also one that is a little behind the newest.

        Raises:
            ValueError: it is no slot.
            Stale: it must not be used.
        """
        assert self._answering is not None, "a check runs while an answer is read"
        slot = as_slot(context["slot"])
        self._endpoints[self._answering].said_slot = True
        try:
            self._slots.judge(self._answering, slot, trio.current_time())
        except Stale:
            if not nearly or not self.newest_slot - STEP <= slot < self.newest_slot:
                raise
        return slot

    async def call_at_slot(
        self,
        method: str,
        params: Sequence[Any],
        parse: Callable[[Any, int], T],
        *,
        deadline_s: float | None = None,
    ) -> T:
        """Call a method whose result is `{context: {slot}, value}`; return `parse(value, slot)`.

        An answer that is older than the newest one seen is refused, and the next endpoint asked.
        """

        def check(result: Any) -> T:
            return parse(result["value"], self.judge(result["context"]))

        answer: T = await self.call(method, params, check=check, deadline_s=deadline_s)
        return answer

    async def _keep_looking(self) -> None:
        """Look at all endpoints now and then: who lags, lies or has recovered is only known so."""
        while True:
            await self.look()
            await trio.sleep(LOOK_S * random.uniform(0.8, 1.2))

    async def look(self) -> None:
        """Ask every endpoint for its newest slot and blockhash."""

        async def ask(endpoint: Endpoint) -> None:
            try:
                await self._ask(
                    endpoint,
                    "getLatestBlockhash",
                    [{"commitment": "confirmed"}],
                    partial(self._note, endpoint),
                    REQUEST_TIMEOUT_S,
                )
            except (Unusable, PsycheError) as exc:
                logger.debug("rpc look %s: %s", endpoint.name, exc)

        async with trio.open_nursery() as nursery:
            for endpoint in self._endpoints:
                if endpoint.not_before <= trio.current_time():
                    nursery.start_soon(ask, endpoint)

    def _note(self, endpoint: Endpoint, result: Any) -> None:
        slot, now = as_slot(result["context"]["slot"]), trio.current_time()
        self._slots.note(endpoint.number, slot, now, str(result["value"]["blockhash"]))
        self.judge(result["context"], nearly=True)


def as_slot(value: Any) -> int:
    """A slot or block height of an answer.

    Raises:
        ValueError: it is none.
    """
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError(f"{value!r} is no slot")
    return value
