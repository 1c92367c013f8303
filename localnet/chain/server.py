"""The server: RPC over HTTP on one port, the websocket on the next."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import shutil
import signal
import socket
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from localnet.chain import websocket
from localnet.chain.bank import KEEP_SLOTS, Bank, Published
from localnet.chain.protocol import MAX_CONNECTIONS, BoundedProtocol
from localnet.chain.rpc import Node
from localnet.chain.rpc.dispatch import answer
from localnet.chain.store import History
from localnet.chain.subscriptions import Hub
from localnet.chain.view import View

logger = logging.getLogger(__name__)

MAX_BODY_BYTES = 1 << 20
_WRONG_TYPE = "Supplied content type is not allowed. Content-Type: application/json is required\n"
DATABASE = "chain.sqlite3"


class StartError(Exception):
    """The server cannot start; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class ChainConfig:
    """How a chain is served.

    Raises:
        StartError: a value out of its range.
    """

    state_dir: Path
    """Holds the chain's database; made if it is not there."""
    host: str = "127.0.0.1"
    port: int = 8899
    """The RPC's port; the websocket listens on the next one."""
    slot_ms: int = 400
    reset: bool = False
    """Start a new chain, whatever the directory holds."""
    keep_transactions: int = 200_000
    """How many of the newest transactions the history holds."""
    keep_slots: int = KEEP_SLOTS
    """How many of the newest slots the history holds; older blocks are answered as cleaned up."""

    def __post_init__(self) -> None:
        for name, value, least, most in (
            ("port", self.port, 1, 65_534),
            ("slot-ms", self.slot_ms, 10, 60_000),
            ("keep-transactions", self.keep_transactions, 1_000, 1 << 40),
            ("keep-slots", self.keep_slots, 600, 1 << 40),
        ):
            if not least <= value <= most:
                raise StartError(f"{name} is {value}, allowed are {least} to {most}")


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio turns Nagle's algorithm off: an answer takes 1 ms instead of 45.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as exc:
        listener.close()
        if exc.errno == errno.EADDRINUSE:
            raise StartError(
                f"port {port} on {host} is already in use: stop what listens there or choose another --port "
                "(the websocket takes the port after it)"
            ) from None
        raise StartError(f"cannot listen on {host} port {port}: {exc.strerror}") from None
    listener.listen(512)
    listener.setblocking(False)
    return listener


def _lock(state_dir: Path) -> object:
    """Take the directory for this process; two servers on one database would lose slots."""
    import fcntl

    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        handle = (state_dir / "lock").open("w")
    except OSError as exc:
        raise StartError(f"cannot use {state_dir} for the chain's state: {exc.strerror}") from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        handle.close()
        raise StartError(
            f"another chain runs on {state_dir}: stop it or choose another --state-dir"
        ) from None
    return handle


def _reset(state_dir: Path) -> None:
    for name in (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm"):
        path = state_dir / name
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)


def make_app(node: Node, hub: Hub) -> Starlette:
    """The application, the same on both ports."""

    async def rpc(request: Request) -> Response:
        if request.method == "OPTIONS":
            return Response(headers={"allow": "OPTIONS, POST", "accept": "application/json"})
        kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
        if kind != "application/json":
            return PlainTextResponse(_WRONG_TYPE, 415)
        length = request.headers.get("content-length", "0")
        if length.isdigit() and int(length) > MAX_BODY_BYTES:
            return PlainTextResponse("Payload Too Large", 413)
        body = bytearray()
        try:
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY_BYTES:
                    return PlainTextResponse("Payload Too Large", 413)
        except ClientDisconnect:
            return Response(status_code=400)
        try:
            text = body.decode()
        except UnicodeDecodeError:
            return Response(status_code=400)
        reply = await answer(node, text)
        return Response(reply or "", 200, media_type="application/json")

    async def health(request: Request) -> Response:
        return PlainTextResponse("ok" if node.bank.failed is None else "unknown")

    async def subscribe(socket: WebSocket) -> None:
        await websocket.serve(hub, socket)

    return Starlette(
        routes=[
            Route("/health", health, methods=["GET", "POST"]),
            # A validator answers at any path; some tools add one, and a proxy asks for the whole URL.
            Route("/{path:path}", rpc, methods=["POST", "OPTIONS"]),
            WebSocketRoute("/{path:path}", subscribe),
        ],
        middleware=[
            Middleware(
                CORSMiddleware,
                allow_origins=["*"],
                allow_methods=["*"],
                allow_headers=["*"],
                # Else a page on the internet, as an explorer is, is refused by its browser's first question.
                allow_private_network=True,
            )
        ],
    )


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling: two of them run here, ended together."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.asynccontextmanager
async def open_node(config: ChainConfig) -> AsyncIterator[tuple[Node, Hub]]:
    """Load the chain and run its bank for as long as the block lasts."""
    lock = _lock(config.state_dir)
    if config.reset:
        _reset(config.state_dir)
    path = config.state_dir / DATABASE
    bank = Bank(
        path,
        slot_ms=config.slot_ms,
        keep_transactions=config.keep_transactions,
        keep_slots=config.keep_slots,
    )
    loop = asyncio.get_running_loop()
    view: View | None = None
    early: list[Published] = []

    def take(published: Published) -> None:
        if view is None:
            early.append(published)
        else:
            view.apply(published)

    first = await asyncio.to_thread(bank.start, lambda published: _post(loop, take, published))
    history = History(path)
    try:
        view = View(first)
        for published in early:
            view.apply(published)
        node = Node(bank, view, history, time.time())
        yield node, Hub(node)
    finally:
        await asyncio.to_thread(bank.stop)
        history.close()
        del lock


def _post(loop: asyncio.AbstractEventLoop, take: Callable[[Published], None], published: Published) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits for the answers
        loop.call_soon_threadsafe(take, published)


async def serve(config: ChainConfig, *, on_ready: Callable[[Node], None] | None = None) -> None:
    """Serve a chain until SIGTERM or SIGINT; then finish what was accepted and commit it.

    Raises:
        StartError: a port is in use, or the state cannot be used.
        StoreError: the database is not a chain of this version.
    """
    listeners = [_listen(config.host, config.port)]
    try:
        listeners.append(_listen(config.host, config.port + 1))
        async with open_node(config) as (node, hub):
            app = make_app(node, hub)
            settings = uvicorn.Config(
                app,
                log_level="warning",
                access_log=False,
                lifespan="off",
                http=BoundedProtocol,
                ws="websockets-sansio",
                ws_max_size=MAX_BODY_BYTES,
                limit_concurrency=2 * MAX_CONNECTIONS,
                timeout_keep_alive=30,
                timeout_graceful_shutdown=3,
            )
            servers = [_Server(settings) for _ in listeners]

            def stop() -> None:
                for server in servers:
                    server.should_exit = True

            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, stop)
            if on_ready is not None:
                on_ready(node)
            watch = asyncio.create_task(_watch(node.bank, stop))
            await asyncio.gather(
                *(server.serve([listener]) for server, listener in zip(servers, listeners, strict=True))
            )
            watch.cancel()
            if node.bank.failed is not None:
                raise StartError(f"the chain stopped: {node.bank.failed}{_advice(node.bank.failed)}")
    finally:
        for listener in listeners:
            listener.close()


def _advice(error: BaseException) -> str:
    if isinstance(error, sqlite3.OperationalError):
        return ": make room on the disk and start it again; everything that was confirmed is kept"
    return ""


async def _watch(bank: Bank, stop: Callable[[], None]) -> None:
    """End the server when its bank ended, rather than serve a chain that stands still."""
    await asyncio.shield(asyncio.wrap_future(bank.ended))
    stop()
