"""Members with real network processes, and peers in the test's own process that may misbehave."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import trio

from psyche_train.network import NetworkClient, NetworkConfig, Peer, open_network

TOPIC = "psyche/test"


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
async def running(root: Path, *names: str) -> AsyncIterator[list[NetworkClient]]:
    """Members with these names, none of which knows another yet."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(open_network(config_of(n, root))) for n in names]
        for client in clients:
            with trio.fail_after(60):
                await client.addresses()
        yield clients


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
