"""The two chains that are asked: the embedded one and, where it is installed, Solana's test validator."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from localnet.chain.process import ChainProcess
from tests.e2e.validator import run_validator

Json = Any
START_S = 400.0


class Rpc:
    """One chain, asked without any client library."""

    def __init__(self, url: str, ws_url: str) -> None:
        self.url = url
        self.ws_url = ws_url
        self._http = httpx.Client(timeout=60)

    def ask(self, method: str, *params: Json) -> Json:
        """The whole answer to one request."""
        body: dict[str, Json] = {"jsonrpc": "2.0", "id": 1, "method": method}
        if params:
            body["params"] = list(params)
        return self._http.post(self.url, json=body).json()

    def result(self, method: str, *params: Json) -> Json:
        """The result of a request that must succeed."""
        answer = self.ask(method, *params)
        assert "result" in answer, f"{method} failed: {answer}"
        return answer["result"]

    def post(self, body: bytes, verb: str = "POST", **headers: str) -> Json:
        """The HTTP answer to any bytes: status, and the JSON or text that came."""
        sent = {"content-type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}}
        answer = self._http.request(verb, self.url, content=body, headers=sent)
        shown: dict[str, Json] = {"status": answer.status_code}
        kind = answer.headers.get("content-type", "").split(";")[0]
        if kind == "application/json" and answer.content:
            shown["json"] = answer.json()
        return shown

    def close(self) -> None:
        self._http.close()


@contextlib.contextmanager
def embedded(folder: Path) -> Iterator[Rpc]:
    """A fresh embedded chain."""
    with ChainProcess(folder, slot_ms=50) as chain:
        rpc = Rpc(chain.url, chain.ws_url)
        try:
            yield rpc
        finally:
            rpc.close()


@contextlib.contextmanager
def validator(folder: Path) -> Iterator[Rpc]:
    """A fresh test validator, stopped by its process id."""
    with run_validator(folder, start_s=START_S) as url:
        rpc = Rpc(url, f"ws://127.0.0.1:{int(url.rpartition(':')[2]) + 1}")
        try:
            yield rpc
        finally:
            rpc.close()
