"""uvicorn's HTTP protocol with limits of its own: slow requests and connections without one are ended."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_S = 15.0
"""How long a client may take from connecting, or from a request's first byte, until the request is complete."""
MAX_CONNECTIONS = 1_000


class BoundedProtocol(H11Protocol):
    """One HTTP connection that must send its requests in time.

    Resource handling: a connection over `MAX_CONNECTIONS`, or one whose request is not complete after
    `request_s`, is closed; an idle one between requests by uvicorn's keep-alive timeout.
    """

    request_s: ClassVar[float] = REQUEST_S

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if len(self.connections) >= MAX_CONNECTIONS:
            self.transport = transport
            transport.abort()
            return
        super().connection_made(transport)
        self._start()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._deadline is None:
            self._start()
        super().data_received(data)
        if self._is_complete():
            self._stop()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        if self.scheme is not None:  # else it was refused at once
            super().connection_lost(exc)

    def _is_complete(self) -> bool:
        """Whether no request is half received; a websocket's bytes go elsewhere."""
        return self.transport.get_protocol() is not self or (
            self.cycle is not None and not self.cycle.more_body
        )

    def _start(self) -> None:
        self._deadline = self.loop.call_later(self.request_s, self._too_slow)

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        self._deadline = None
        if not self._is_complete() and not self.transport.is_closing():
            self.transport.abort()
