"""The same exchange with real network processes, on lines that a proxy in front of each makes slow."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio

from benchmarks.scale.exchange import Line
from localnet.faults.links import Fabric, Link
from localnet.faults.owners import owner_of
from localnet.faults.proxy import FaultProxy, free_port
from psyche_train.network import NetworkClient, NetworkConfig, Peer, open_network

START_S = 120.0
EXCHANGE_S = 300.0
ROUND = 1


@dataclass(frozen=True, slots=True)
class Measured:
    """What real processes did."""

    done_s: list[float]
    """From the moment at which the blobs could be had until a member had all of them."""
    bytes_in: list[int]
    """Over each member's sockets meanwhile, gossip and pings included."""
    cpu_s: list[float]
    """Of each network process meanwhile."""

    @property
    def all_s(self) -> float:
        """When everybody had everything."""
        return max(self.done_s)


@asynccontextmanager
async def members(
    folder: Path, lines: Sequence[Line], one_way_s: float
) -> AsyncIterator[list[NetworkClient]]:
    """Connected members, each behind a proxy that has its line."""
    links = {
        number: Link(latency_s=one_way_s / 2, up_bytes_s=line.up, down_bytes_s=line.down)
        for number, line in enumerate(lines)
    }
    fabric = Fabric(links)
    pids = [(number, folder / str(number) / "network.pid") for number in links]
    ports = {number: free_port() for number in links}
    async with AsyncExitStack() as stack:
        nursery = await stack.enter_async_context(trio.open_nursery())
        clients = []
        for number, port in ports.items():
            proxy = FaultProxy(fabric, number, ("127.0.0.1", port), lambda t, o: owner_of(t, o, pids))
            await nursery.start(proxy.run)
            home = folder / str(number)
            config = NetworkConfig(
                seed=hashlib.sha256(f"scale {number}".encode()).digest(),
                topic="psyche/scale",
                listen=f"/ip4/127.0.0.1/tcp/{port}",
                announce=(f"/ip4/127.0.0.1/tcp/{proxy.port}",),
                blob_dir=home / "blobs",
                log_path=home / "records.log",
                socket_path=home / "net.sock",
            )
            clients.append(await stack.enter_async_context(open_network(config)))
        with trio.fail_after(START_S):
            peers = [Peer(c.peer_key, tuple(await c.addresses()), n) for n, c in enumerate(clients)]
            for client in clients:
                await client.set_members(peers)
            for client in clients:
                while len((await client.status()).connected) < len(clients) - 1:
                    await trio.sleep(0.1)
        yield clients
        nursery.cancel_scope.cancel()


async def exchange(
    clients: Sequence[NetworkClient], sizes: Sequence[int], *, number: int = ROUND
) -> Measured:
    """Publish one blob of a round each, show them all at once, and have everybody fetch everything."""
    rng = random.Random(number)
    blobs = [
        await client.publish(rng.randbytes(size), hidden_until=number)
        for client, size in zip(clients, sizes, strict=True)
    ]
    before = [await client.status() for client in clients]
    cpu = [process_cpu_s(client) for client in clients]
    done = [0.0] * len(clients)
    began = trio.current_time()

    async def take(member: int) -> None:
        async with trio.open_nursery() as nursery:
            for author, blob in enumerate(blobs):
                if author != member:
                    fetch = partial(
                        clients[member].fetch,
                        deadline_s=EXCHANGE_S,
                        max_bytes=max(sizes),
                        holders=[clients[author].peer_key],
                    )
                    nursery.start_soon(fetch, blob)
        done[member] = trio.current_time() - began

    for client in clients:
        await client.reveal(number)
    async with trio.open_nursery() as nursery:
        for member in range(len(clients)):
            nursery.start_soon(take, member)
    after = [await client.status() for client in clients]
    return Measured(
        done,
        [b.bytes_in - a.bytes_in for a, b in zip(before, after, strict=True)],
        [process_cpu_s(client) - start for client, start in zip(clients, cpu, strict=True)],
    )


async def idle(clients: Sequence[NetworkClient], seconds: float) -> tuple[float, float]:
    """CPU seconds and bytes a second and member while nothing is exchanged: pings and gossip's heartbeat."""
    before = [await client.status() for client in clients]
    cpu = [process_cpu_s(client) for client in clients]
    await trio.sleep(seconds)
    after = [await client.status() for client in clients]
    spent = sum(process_cpu_s(client) - start for client, start in zip(clients, cpu, strict=True))
    moved = sum(
        b.bytes_in + b.bytes_out - a.bytes_in - a.bytes_out for a, b in zip(before, after, strict=True)
    )
    return spent / seconds / len(clients), moved / seconds / len(clients)


def process_cpu_s(client: NetworkClient) -> float:
    """CPU seconds of a member's network process; Linux only, 0 elsewhere."""
    try:
        fields = Path(f"/proc/{client.process_id}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
