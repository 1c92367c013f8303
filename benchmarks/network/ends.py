"""One end of a transfer: `serve STACK`, or `ask STACK PORT IDENTITY`, which does what standard input says."""

from __future__ import annotations

import hashlib
import json
import os
import statistics
import struct
import sys
import tempfile
import time
from typing import Any

import trio

from benchmarks.network.processes import until_stdin_ends
from benchmarks.network.stacks import Opened, connected, serving, write_bytes
from psyche_train.blobs import PIECE

REQUEST = struct.Struct(">Q")
CPU = struct.Struct(">d")
READ = 1 << 20
BLOB = memoryview(os.urandom(1 << 20) * 64)


async def exactly(stream: Opened, count: int) -> bytes:
    """Read `count` bytes; EOFError at an earlier end."""
    data = b""
    while len(data) < count:
        part = await stream.read(count - len(data))
        if not part:
            raise EOFError
        data += bytes(part)
    return data


async def answer_requests(stream: Opened, stack: str) -> None:
    """Send as many bytes as each request asks for, then the CPU seconds that this took here."""
    size = write_bytes(stack)
    while True:
        try:
            (count,) = REQUEST.unpack(await exactly(stream, REQUEST.size))
        except Exception:  # whatever the stack calls the end of a stream
            return await stream.close()
        began = time.process_time()
        while count:
            part = BLOB[: min(size, count)]
            await stream.write(part if stack in ("tcp", "step2") else bytes(part))
            count -= len(part)
        await stream.write(CPU.pack(time.process_time() - began))


async def transfer(open_stream: Any, count: int, *, verify: bool) -> dict[str, float]:
    """Fetch `count` bytes over a new stream; with `verify` hash each piece and write it to a file."""
    began, cpu = time.perf_counter(), time.process_time()
    stream = await open_stream()
    opened = time.perf_counter()
    await stream.write(REQUEST.pack(count))
    with tempfile.TemporaryFile() as file:
        missing = count
        piece = bytearray()
        while missing:
            data = await stream.read(min(READ, missing))
            if not data:
                raise EOFError(f"{missing} bytes are missing")
            missing -= len(data)
            if verify:
                piece += data
                while len(piece) >= PIECE or (piece and not missing):
                    whole = bytes(piece[:PIECE])
                    del piece[:PIECE]
                    hashlib.sha256(whole).digest()
                    file.write(whole)
        (cpu_there,) = CPU.unpack(await exactly(stream, CPU.size))
    ended = time.perf_counter()
    here = time.process_time() - cpu
    await stream.close()
    return {"s": ended - opened, "total_s": ended - began, "cpu_here": here, "cpu_there": cpu_there}


async def requests_under_load(open_stream: Any, count: int) -> dict[str, float]:
    """Small requests on streams of their own while a transfer runs on the same connection."""
    times: list[float] = []
    async with trio.open_nursery() as nursery:
        done = False

        async def bulk() -> None:
            nonlocal done
            await transfer(open_stream, count, verify=False)
            done = True

        nursery.start_soon(bulk)
        stream = await open_stream()
        while not done:
            began = time.perf_counter()
            await stream.write(REQUEST.pack(300))
            await exactly(stream, 300 + CPU.size)
            times.append(time.perf_counter() - began)
            await trio.sleep(0.01)
        await stream.close()
    times.sort()
    return {"p50_s": statistics.median(times), "p99_s": times[int(0.99 * (len(times) - 1))], "n": len(times)}


async def serve(stack: str) -> None:
    """Serve until standard input ends."""
    async with serving(stack, lambda stream: answer_requests(stream, stack)) as (port, identity):
        print(json.dumps({"port": port, "identity": identity}), flush=True)
        await until_stdin_ends()


async def ask(stack: str, port: int, identity: str) -> None:
    """Do what each line of standard input says and print the figures."""
    async with connected(stack, port, identity) as open_stream:
        print(json.dumps({"ready": True}), flush=True)
        while line := await trio.to_thread.run_sync(sys.stdin.readline):
            question = json.loads(line)
            with trio.fail_after(120):
                if question["what"] == "load":
                    result = await requests_under_load(open_stream, question["bytes"])
                else:
                    result = await transfer(
                        open_stream, question["bytes"], verify=question["what"] == "verified"
                    )
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        trio.run(serve, sys.argv[2])
    else:
        trio.run(ask, sys.argv[2], int(sys.argv[3]), sys.argv[4])
