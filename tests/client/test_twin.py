"""A second machine with the same wallet is refused while the first one answers."""

from collections.abc import Awaitable, Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import trio

from psyche_chain.client import twin
from psyche_chain.errors import PsycheError
from tests.client.views import wallet

Behave = Callable[[trio.SocketStream], Awaitable[None]]


async def peer(stream: trio.SocketStream) -> None:
    await stream.send_all(twin.GREETING)
    await trio.sleep_forever()


async def web_server(stream: trio.SocketStream) -> None:
    await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n" + bytes(100))


async def silent(stream: trio.SocketStream) -> None:
    await trio.sleep_forever()


async def check(contact: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def membership(*_: Any) -> Any:
        return SimpleNamespace(contact=contact)

    monkeypatch.setattr(twin.accounts, "fetch_membership", membership)
    run: Any = SimpleNamespace(run_state=None, run_id="demo")
    await twin.refuse_twin(None, run, wallet(0))  # type: ignore[arg-type]


@pytest.mark.parametrize(("behave", "refused"), [(peer, True), (web_server, False), (silent, False)])
async def test_only_a_peer_that_answers_is_a_twin(
    behave: Behave, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(twin, "PATIENCE_S", 0.5)
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_tcp, behave, 0, host="127.0.0.1")
        listeners = await nursery.start(serve)
        contact = f"/dns4/x/tcp/1,/ip4/127.0.0.1/tcp/{listeners[0].socket.getsockname()[1]}"
        if refused:
            with pytest.raises(PsycheError, match="and answers there"):
                await check(contact, monkeypatch)
        else:
            await check(contact, monkeypatch)
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "contact", ["", "x", "/ip4/127.0.0.1/tcp/9", "/ip4/1/tcp/1", "/ip4/127.0.0.1/tcp/99999999"]
)
async def test_addresses_where_nobody_is_refuse_nothing(
    contact: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await check(contact, monkeypatch)
