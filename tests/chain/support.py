"""What several tests of this folder use: scripted endpoints, the command line, an airdrop."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from solders.pubkey import Pubkey

from psyche_chain.chain import queries
from psyche_chain.chain.rpc import RpcPool
from psyche_chain.chain.sender import confirm
from psyche_chain.cli.main import main

SOL = 10**9


async def airdrop(rpc: RpcPool, key: Pubkey, lamports: int) -> None:
    await confirm(rpc, await queries.request_airdrop(rpc, key, lamports))


A, B = "http://a.test", "http://b.test/secret-token"


class Node:
    """A scripted endpoint: `answer(method, params)` gives a result, an exception or an httpx response."""

    def __init__(self, answer: Callable[[str, list[Any]], Any]) -> None:
        self.answer = answer
        self.calls: list[str] = []

    def transport(self) -> httpx.MockTransport:
        def handle(request: httpx.Request) -> httpx.Response:
            body = json.loads(request.content)
            self.calls.append(body["method"])
            result = self.answer(body["method"], body["params"])
            if isinstance(result, httpx.Response):
                return result
            if isinstance(result, Exception):
                raise result
            return httpx.Response(200, json={"jsonrpc": "2.0", "id": body["id"], **result})

        return httpx.MockTransport(handle)


def pool(*nodes: tuple[str, Node], deadline_s: float = 5.0) -> RpcPool:
    by_url = dict(nodes)
    return RpcPool(list(by_url), deadline_s=deadline_s, transport=lambda url: by_url[url].transport())


def at(slot: int, value: Any) -> dict[str, Any]:
    return {"result": {"context": {"slot": slot}, "value": value}}


class Cli:
    """Runs command lines in this process and keeps what they printed."""

    def __init__(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        self.url = url
        self._capsys = capsys
        self.out = self.err = ""

    def __call__(self, *args: object, keypair: Path | None = None) -> int:
        line = [str(a) for a in args]
        if keypair is not None:
            line += ["--keypair", str(keypair)]
        self._capsys.readouterr()
        status = main(line)
        self.out, self.err = self._capsys.readouterr()
        assert "Traceback" not in self.err + self.out
        return status

    def ok(self, *args: object, keypair: Path | None = None) -> str:
        """The standard output of a command that must succeed, on the shared chain."""
        status = self(*args, "--rpc", self.url, keypair=keypair)
        assert status == 0, self.err
        return self.out
