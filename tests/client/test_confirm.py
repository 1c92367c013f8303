"""Most endpoints must show a checkpoint before weights are given up for it."""

from __future__ import annotations

import base64
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
from solders.keypair import Keypair

from psyche_chain.chain import accounts
from psyche_chain.chain.sender import Sender
from psyche_chain.client.chain_port import ChainPort
from psyche_chain.client.ports import NotYet
from tests.chain.support import A, B, Node, at, pool
from tests.client.views import NO_CHECKPOINT

C = "http://c.test"
TRUE = replace(NO_CHECKPOINT, agreed=True, step=8, history=bytes([1]) * 32, weights_hash=bytes([2]) * 32)
FORGED = replace(TRUE, weights_hash=bytes([3]) * 32)
RUN = cast(accounts.Run, SimpleNamespace(key="run", run_state=Keypair().pubkey()))


def shows(mark: str) -> Node:
    """An endpoint whose state account holds one letter: `t` for the true checkpoint, `f` for a forged one."""
    data = [base64.b64encode(mark.encode()).decode(), "base64"]
    value = {"data": data, "owner": str(Keypair().pubkey()), "lamports": 1}
    return Node(lambda method, params: at(5, value))


def decoded(data: bytes, **_: Any) -> Any:
    """Stands for `RunState.from_account`, which has its own tests."""
    return SimpleNamespace(run="run", checkpoint=TRUE if data == b"t" else FORGED)


@pytest.mark.parametrize(
    ("marks", "is_believed"),
    [("t", True), ("f", False), ("tt", True), ("tf", False), ("ttf", True), ("tff", False)],
)
async def test_more_than_half_decide(
    marks: str, is_believed: bool, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setattr(accounts, "RunState", SimpleNamespace(from_account=decoded))
    async with pool(*zip((A, B, C), map(shows, marks), strict=False)) as rpc:
        sender = cast(Sender, SimpleNamespace(rpc=rpc))
        port = ChainPort(sender, RUN, Keypair(), p2p_key=bytes(32), tier=0, weight=1)
        if is_believed:
            await port.confirm(TRUE)
            await port.confirm(replace(TRUE, uri="elsewhere"))  # recorded since
            return
        with pytest.raises(NotYet, match="more than half") as caught:
            await port.confirm(TRUE)
    liars = [f"{letter}.test" for letter, mark in zip("abc", marks, strict=False) if mark == "f"]
    named = str(caught.value).partition("(others: ")[2].partition(")")[0]
    assert sorted(named.split(", ")) == liars


async def test_without_an_answer_nothing_is_believed(autojump_clock: trio.testing.MockClock) -> None:
    async with pool((A, Node(lambda method, params: OSError("gone")))) as rpc:
        sender = cast(Sender, SimpleNamespace(rpc=rpc))
        port = ChainPort(sender, RUN, Keypair(), p2p_key=bytes(32), tier=0, weight=1)
        with pytest.raises(NotYet, match="none answered"):
            await port.confirm(TRUE)
