"""Publish, fetch, reveal and catch up between real processes over loopback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio
from network_support import config_of, connected, introduce, read_log, running, until

from psyche_train.blobs import BlobStore
from psyche_train.network import FetchError, Peer, open_network
from psyche_train.network import supervisor as supervisor_module
from psyche_train.records import Accepted, RecordLog, RoundRecord

MB = 1 << 20


def test_importing_the_client_does_not_import_libp2p() -> None:
    code = "import sys, psyche_train.network; sys.exit('libp2p' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path.cwd(), check=False).returncode == 0


async def test_three_members_exchange_blobs_and_hide_until_reveal(tmp_path: Path) -> None:
    async with running(tmp_path, "a", "b", "c" * 120) as (a, b, c):
        await introduce([a, b, c])
        for size in (0, 1, 5 * MB + 17):
            data = os.urandom(size)
            name = await a.publish(data)
            for other in (b, c):
                assert await other.fetch(name, deadline_s=20, max_bytes=6 * MB) == data
        status = await b.status()
        assert status.running
        assert set(status.connected) == {a.peer_key, c.peer_key}
        assert status.bytes_in > 5 * MB
        assert status.restarts == 0

        # too large: refused by its proven length, at once
        with pytest.raises(FetchError, match=f"has {size} bytes, allowed 1000"):
            await c.fetch(await a.publish(os.urandom(size)), deadline_s=20, max_bytes=1000)

        # hidden until its round is revealed
        secret = os.urandom(2000)
        name = await a.publish(secret, hidden_until=7)
        await a.reveal(6)
        with pytest.raises(FetchError, match="before its round is revealed") as caught:
            await b.fetch(name, deadline_s=1, max_bytes=MB, holders=[a.peer_key])
        assert set(caught.value.peers) == {a.peer_key, c.peer_key}
        assert "does not hold it" in caught.value.peers[c.peer_key]
        async with trio.open_nursery() as nursery:
            got: list[bytes] = []

            async def wait_for_it() -> None:
                got.append(await b.fetch(name, deadline_s=20, max_bytes=MB))

            nursery.start_soon(wait_for_it)
            await trio.sleep(0.2)
            await a.reveal(7)
        assert got == [secret]

        # a member leaves the table: its connection is closed, and it is not let in again
        everybody = [Peer(m.peer_key, tuple(await m.addresses()), i) for i, m in enumerate((a, b, c))]
        await a.set_members(everybody[:2])

        async def c_is_out() -> bool:
            return a.peer_key not in (await c.status()).connected and (await a.status()).connected == (
                b.peer_key,
            )

        await until(c_is_out)
        await trio.sleep(1)
        assert (await a.status()).connected == (b.peer_key,)

        await b.prune([name])
        assert list(BlobStore(tmp_path / "b" / "blobs").ids()) == [name]


async def test_hidden_blob_stays_hidden_over_a_restart_of_the_process(tmp_path: Path) -> None:
    async with running(tmp_path, "a", "b") as (a, b):
        await introduce([a, b])
        name = await a.publish(b"x" * 1000, hidden_until=3)
        assert a.process_id is not None
        os.kill(a.process_id, signal.SIGKILL)

        async def again() -> bool:
            return (await a.status()).restarts == 1 and (await a.status()).running

        await until(again)
        await connected(b, a.peer_key)
        with pytest.raises(FetchError, match="before its round is revealed"):
            await b.fetch(name, deadline_s=1, max_bytes=MB)
        await a.reveal(3)
        assert await b.fetch(name, deadline_s=10, max_bytes=MB) == b"x" * 1000


async def test_killing_a_serving_process_does_not_stop_a_fetch(tmp_path: Path) -> None:
    async with running(tmp_path, "a", "b", "c") as (a, b, c):
        await introduce([a, b, c])
        data = os.urandom(40 * MB)
        name = await a.publish(data)
        await b.publish(data)
        await connected(c, a.peer_key, b.peer_key)
        async with trio.open_nursery() as nursery:

            async def fetch() -> None:
                assert await c.fetch(name, deadline_s=60, max_bytes=64 * MB, holders=[a.peer_key]) == data

            nursery.start_soon(fetch)
            partial = tmp_path / "c" / "blobs" / f"{name.hex()}.part"
            await until(partial.exists)
            assert a.process_id is not None
            os.kill(a.process_id, signal.SIGKILL)


async def test_hanging_process_is_killed_and_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "HANG_S", 2.0)
    monkeypatch.setattr(supervisor_module, "HEARTBEAT_S", 0.3)
    async with running(tmp_path, "a", "b") as (a, b):
        await introduce([a, b])
        await connected(b, a.peer_key)
        before = await a.addresses()
        name = await b.publish(b"late")
        assert a.process_id is not None
        os.kill(a.process_id, signal.SIGSTOP)
        assert await a.fetch(name, deadline_s=60, max_bytes=MB) == b"late"
        assert (await a.status()).restarts == 1
        assert await a.addresses() == before


async def test_log_is_fetched_from_peers_that_know_more(tmp_path: Path) -> None:
    def record(number: int, seed: bytes) -> RoundRecord:
        accepted = (Accepted(slot=1, tier=0, weight=1, commitment=seed),)
        return RoundRecord(
            epoch=0, number=number, step=number, trained=True, seed=seed, data_index=8 * number, samples=8,
            assigned=b"\xff" * 32, spec_hash=bytes(32), accepted=accepted,
        )  # fmt: skip

    def write(name: str, seeds: list[bytes]) -> list[RoundRecord]:
        log, history, chain = RecordLog(tmp_path / name / "records.log"), bytes(32), []
        for number, seed in enumerate(seeds):
            chain.append(record(number, seed))
            log.append(history, chain[-1])
            history = chain[-1].next_history(history)
        return chain

    honest = write("a", [i.to_bytes(2, "big") * 16 for i in range(300)])
    other = write("b", [b"z" * 32])
    async with running(tmp_path, "a", "b", "c") as (a, b, c):
        await introduce([a, b, c])
        await connected(c, a.peer_key, b.peer_key)
        chains = await c.fetch_log(bytes(32), deadline_s=20)
        assert sorted(chains, key=len) == [other, honest]
        middle = bytes(32)
        for item in honest[:299]:
            middle = item.next_history(middle)
        assert await c.fetch_log(middle, deadline_s=20) == [honest[299:]]
        assert await c.fetch_log(b"?" * 32, deadline_s=1) == []


async def test_port_in_use_is_a_clear_error(tmp_path: Path) -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    config = config_of("a", tmp_path)
    config = type(config)(
        seed=config.seed, topic="t", blob_dir=config.blob_dir, log_path=config.log_path,
        socket_path=config.socket_path, listen=f"/ip4/127.0.0.1/tcp/{port}",
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supervisor_module, "GIVE_UP_AFTER", 1)
        with pytest.raises(
            supervisor_module.NetworkDown, match=f"cannot listen on /ip4/127.0.0.1/tcp/{port}"
        ):
            async with open_network(config):
                await trio.sleep_forever()
    assert "Traceback" in read_log(tmp_path, "a")
    await listener.aclose()
