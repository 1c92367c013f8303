"""Members with real network processes, and peers in the test's own process that may misbehave."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import trio

from psyche_train.network import NetworkClient, NetworkConfig, Peer, open_network
from psyche_train.network.links import Links
from psyche_train.network.node import Node

TOPIC = "psyche/test"
LOOPBACK = "/ip4/127.0.0.1/tcp/0"


def seed_of(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


def config_of(name: str, root: Path) -> NetworkConfig:
    home = root / name
    return NetworkConfig(
        seed=seed_of(name),
        topic=TOPIC,
        blob_dir=home / "blobs",
        log_path=home / "records.log",
        socket_path=home / "net.sock",
    )


@asynccontextmanager
async def running_as(*configs: NetworkConfig) -> AsyncIterator[list[NetworkClient]]:
    """Members with these configurations, none of which knows another yet."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(open_network(config)) for config in configs]
        for client in clients:
            with trio.fail_after(60):
                await client.addresses()
        yield clients


@asynccontextmanager
async def running(root: Path, *names: str) -> AsyncIterator[list[NetworkClient]]:
    """Members with these names, none of which knows another yet."""
    async with running_as(*(config_of(name, root) for name in names)) as clients:
        yield clients


@asynccontextmanager
async def peer_in_this_process(name: str) -> AsyncIterator[Node]:
    """A member's node in the test's own process, with no handlers but those that the test gives it."""
    node = Node(seed_of(name), LOOPBACK)
    async with trio.open_nursery() as nursery:
        await nursery.start(node.run)
        nursery.start_soon(Links(node).run)
        yield node
        nursery.cancel_scope.cancel()


async def introduce(clients: Iterable[NetworkClient], extra: Iterable[Peer] = ()) -> list[Peer]:
    """Give all members one table."""
    clients = list(clients)
    peers = [Peer(c.peer_key, tuple(await c.addresses()), slot) for slot, c in enumerate(clients)]
    peers += list(extra)
    for client in clients:
        await client.set_members(peers)
    return peers


async def until(condition: Callable[[], bool] | Callable[[], Awaitable[bool]], seconds: float = 20) -> None:
    """Wait until a condition holds."""
    with trio.fail_after(seconds):
        while True:
            holds = condition()
            if holds if isinstance(holds, bool) else await holds:
                return
            await trio.sleep(0.02)


async def connected(client: NetworkClient, *keys: bytes) -> None:
    """Wait until a member has connections to these."""

    async def check() -> bool:
        return set(keys) <= set((await client.status()).connected)

    await until(check)


def read_log(root: Path, name: str) -> str:
    return (root / name / "network.log").read_text()
