"""A real HTTP server in front of a real endpoint that does everything an endpoint must not do.

What goes wrong depends on a seed, the method, and how often it was called, and on nothing else.
"""

from __future__ import annotations

import base64
import json
import random
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

import h11
import httpx
import trio

FAULTS = (
    *("hang", "drip", "drop", "lost", "429", "429 retry-after", "502", "truncated", "not json", "wrong id"),
    *("-32005", "-32603", "future", "back", "frozen", "garbage", "wrong owner", "wrong size", "swallow"),
)
HTML = b"<html><body><h1>502 Bad Gateway</h1></body></html>"
FAR = 10**6
DRIP_S = 0.3


class FaultyRpc:
    """One endpoint.

    Args:
        target: the endpoint that answers rightly.
        seed: of the faults.
        rates: chance of each fault, by name; "" is every fault of `FAULTS` that is not named.
    """

    def __init__(self, target: str, *, seed: int, rates: Mapping[str, float]) -> None:
        assert set(rates) <= {*FAULTS, ""}
        self._target = target
        self._seed = seed
        others = [fault for fault in FAULTS if fault not in rates]
        self._rates = {f: rates.get(f, rates.get("", 0.0) / max(1, len(others))) for f in FAULTS}
        self._calls: Counter[str] = Counter()
        self._old: dict[str, Any] = {}
        self.done: Counter[str] = Counter()
        """How often each fault was served."""
        self.url = ""
        self.is_down = False
        """Refuse every request."""

    async def serve(self, task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; says its address once it listens."""
        async with httpx.AsyncClient(timeout=30) as client, trio.open_nursery() as nursery:
            serve = partial(trio.serve_tcp, partial(self._connection, client), 0, host="127.0.0.1")
            listeners = await nursery.start(serve)
            self.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
            task_status.started(self.url)

    def fault(self, method: str) -> str | None:
        """What goes wrong with this call of `method`."""
        self._calls[method] += 1
        rng = random.Random(f"{self._seed} {method} {self._calls[method]}")
        at = rng.random()
        for name, rate in self._rates.items():
            if (at := at - rate) < 0:
                return name
        return None

    async def _connection(self, client: httpx.AsyncClient, stream: trio.SocketStream) -> None:
        http = h11.Connection(h11.SERVER)
        body = b""
        try:
            while True:
                event = http.next_event()
                if event is h11.NEED_DATA:
                    http.receive_data(await stream.receive_some(65_536))
                elif isinstance(event, h11.Data):
                    body += bytes(event.data)
                elif isinstance(event, h11.EndOfMessage):
                    if self.is_down or not await self._answer(client, http, stream, json.loads(body)):
                        return
                    http.start_next_cycle()
                    body = b""
                elif isinstance(event, h11.ConnectionClosed):
                    return
        except (trio.BrokenResourceError, h11.ProtocolError, httpx.HTTPError):
            return
        finally:
            await trio.aclose_forcefully(stream)

    async def _answer(
        self, client: httpx.AsyncClient, http: h11.Connection, stream: trio.SocketStream, request: Any
    ) -> bool:
        """Answer one request; whether the connection goes on."""
        fault = self.fault(request["method"])
        if fault == "swallow" and request["method"] != "sendTransaction":
            fault = None
        self.done[fault or "none"] += 1
        if fault == "hang":
            await stream.receive_some(1)  # until the caller goes
            return False
        if fault == "drop":
            return False
        headers: list[tuple[str, str]] = []
        status, content = 200, b""
        match fault:
            case "429":
                status = 429
            case "429 retry-after":
                status, headers = 429, [("retry-after", "1")]
            case "502":
                status, content = 502, HTML
            case "not json":
                content = HTML
            case "-32005" | "-32603":
                error = {"code": int(fault), "message": "Node is behind by 42 slots"}
                content = json.dumps({"jsonrpc": "2.0", "id": request["id"], "error": error}).encode()
            case "swallow":
                signature = base64.b64decode(request["params"][0])[1:65]
                answer = {"jsonrpc": "2.0", "id": request["id"], "result": signature.hex()}
                content = json.dumps(answer).encode()
            case _:
                reply = await client.post(self._target, json=request)
                answer = self._spoil(fault, request, reply.json())
                content = json.dumps(answer).encode()
        if fault == "lost":
            return False
        length = len(content)
        if fault == "truncated":
            content = content[: length // 2]
        send = partial(self._send, http, stream)
        await send(h11.Response(status_code=status, headers=[*headers, ("content-length", str(length))]))
        if fault == "drip":
            for at in range(length):
                await send(h11.Data(data=content[at : at + 1]))
                await trio.sleep(DRIP_S)
        else:
            await send(h11.Data(data=content))
        if fault == "truncated":
            return False
        await send(h11.EndOfMessage())
        return True

    @staticmethod
    async def _send(http: h11.Connection, stream: trio.SocketStream, event: Any) -> None:
        if data := http.send(event):
            await stream.send_all(data)

    def _spoil(self, fault: str | None, request: Any, answer: Any) -> Any:
        result = answer.get("result")
        key = json.dumps([request["method"], request["params"]])
        if fault == "wrong id":
            return {**answer, "id": 10**6}
        if fault == "frozen" and key in self._old:
            return {**answer, "result": self._old[key]}
        if fault != "frozen":
            self._old.setdefault(key, result)
        if fault in ("future", "back"):
            by = FAR if fault == "future" else -200
            for place, name in ((result, "absoluteSlot"), (result, "blockHeight")):
                if isinstance(place, dict) and name in place:
                    place[name] = max(0, place[name] + by)
            if isinstance(result, dict) and "context" in result:
                result["context"]["slot"] = max(0, result["context"]["slot"] + by)
        if fault in ("garbage", "wrong owner", "wrong size") and isinstance(result, dict):
            values = result.get("value")
            for found in values if isinstance(values, list) else [values]:
                if isinstance(found, dict) and "data" in found:
                    self._spoil_account(fault, found)
        return answer

    def _spoil_account(self, fault: str, account: dict[str, Any]) -> None:
        data = base64.b64decode(account["data"][0])
        if fault == "wrong owner":
            account["owner"] = "11111111111111111111111111111111"
        elif fault == "wrong size":
            account["data"][0] = base64.b64encode(data[: len(data) // 2]).decode()
        else:
            noise = random.Random(self._seed + len(data)).randbytes(len(data))
            account["data"][0] = base64.b64encode(noise).decode()
