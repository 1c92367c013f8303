"""A web server with range requests, and with every fault that a test asks for."""

from __future__ import annotations

import re
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass
class FaultyServer:
    """Serves a folder; `faults` are taken from the front, one a request."""

    folder: Path
    url: str = ""
    ranges: bool = True
    faults: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """File name -> "503", "404", "cut", "wrong", "hang", ...; the last one stays if it ends in "!"."""
    requests: list[tuple[str, str]] = field(default_factory=list)
    """File name and range of each."""
    released: threading.Event = field(default_factory=threading.Event)
    """Set to end what hangs."""

    def count(self, name: str) -> int:
        return sum(name == path for path, _ in self.requests)


@contextmanager
def serving(folder: Path) -> Iterator[FaultyServer]:
    """Run a server."""
    state = FaultyServer(folder)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            name = self.path.lstrip("/").partition("?")[0]
            state.requests.append((name, self.headers.get("Range", "")))
            queue = state.faults[name]
            fault = queue[0] if queue else ""
            if queue and not fault.endswith("!"):
                queue.pop(0)
            fault = fault.removesuffix("!")
            path = folder / name
            if fault.isdigit() or not path.is_file():
                self.send_response(int(fault or 404))
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            data = path.read_bytes()
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            partial = asked is not None and state.ranges
            if partial:
                start, stop = int(asked[1]), int(asked[2] or len(data) - 1) + 1
                if start >= len(data):
                    fault, data = "416", b""
                data = data[start:stop]
            if fault == "416":
                self.send_response(416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if fault == "wrong":
                data = bytes([data[0] ^ 1]) + data[1:]
            self.send_response(206 if partial else 200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if fault in ("cut", "hang"):
                self.wfile.write(data[: len(data) // 2])
                self.wfile.flush()
                if fault == "hang":
                    state.released.wait(30)
                self.close_connection = True
                return
            self.wfile.write(data)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}/"
    try:
        yield state
    finally:
        state.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
