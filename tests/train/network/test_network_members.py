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


def record(number: int, seed: bytes) -> RoundRecord:
    accepted = (Accepted(slot=1, tier=0, weight=1, commitment=seed),)
    return RoundRecord(
        epoch=0, number=number, step=number, trained=True, seed=seed, data_index=8 * number, samples=8,
        assigned=b"\xff" * 32, spec_hash=bytes(32), accepted=accepted,
    )  # fmt: skip


def write_log(path: Path, seeds: list[bytes]) -> list[RoundRecord]:
    log, history, chain = RecordLog(path), bytes(32), []
    for number, seed in enumerate(seeds):
        chain.append(record(number, seed))
        log.append(history, chain[-1])
        history = chain[-1].next_history(history)
    return chain


async def test_three_members_exchange_blobs_and_records_and_hide_until_reveal(tmp_path: Path) -> None:
    honest = write_log(tmp_path / "a" / "records.log", [i.to_bytes(2, "big") * 16 for i in range(300)])
    brief = write_log(tmp_path / "b" / "records.log", [b"z" * 32])
    async with running(tmp_path, "a", "b", "c" * 120) as (a, b, c):
        hidden_from_dialling = Peer(c.peer_key, (), 2)  # as behind NAT: streams run both ways once it dialled
        everybody = [Peer(m.peer_key, tuple(await m.addresses()), i) for i, m in enumerate((a, b))]
        for member in (a, b, c):
            await member.set_members([*everybody, hidden_from_dialling])
        for size in (0, 1, 5 * MB + 17):
            data = os.urandom(size)
            name = await c.publish(data)
            for other in (a, b):
                assert await other.fetch(name, deadline_s=20, max_bytes=6 * MB) == data
        status = await b.status()
        assert status.running
        assert set(status.connected) == {a.peer_key, c.peer_key}
        assert status.bytes_in > 5 * MB
        assert status.restarts == 0

        # records: every chain that peers offer, from any point of it
        chains = await c.fetch_log(bytes(32), deadline_s=20)
        assert sorted(chains, key=len) == [brief, honest]
        middle = bytes(32)
        for item in honest[:299]:
            middle = item.next_history(middle)
        assert await c.fetch_log(middle, deadline_s=20) == [honest[299:]]
        assert await c.fetch_log(b"?" * 32, deadline_s=0.5) == []

        # too large: refused by its proven length, at once
        with pytest.raises(FetchError, match=f"has {size} bytes, allowed 1000"):
            await c.fetch(await a.publish(os.urandom(size)), deadline_s=20, max_bytes=1000)

        # hidden until its round is revealed
        secret = os.urandom(2000)
        name = await a.publish(secret, hidden_until=7)
        await a.reveal(6)
        with pytest.raises(FetchError, match="before its round is revealed") as caught:
            await b.fetch(name, deadline_s=3, max_bytes=MB, holders=[a.peer_key])
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
        await a.set_members(everybody)

        async def c_is_out() -> bool:
            return a.peer_key not in (await c.status()).connected and (await a.status()).connected == (
                b.peer_key,
            )

        await until(c_is_out)
        await trio.sleep(1)
        assert (await a.status()).connected == (b.peer_key,)

        await b.prune([name])
        assert list(BlobStore(tmp_path / "b" / "blobs").ids()) == [name]


async def test_killed_serving_process_neither_stops_a_fetch_nor_forgets_what_is_hidden(
    tmp_path: Path,
) -> None:
    async with running(tmp_path, "a", "b", "c") as (a, b, c):
        await introduce([a, b, c])
        data = os.urandom(40 * MB)
        name = await a.publish(data)
        await b.publish(data)
        secret = await a.publish(b"x" * 1000, hidden_until=3)
        await connected(c, a.peer_key, b.peer_key)
        async with trio.open_nursery() as nursery:

            async def fetch() -> None:
                assert await c.fetch(name, deadline_s=60, max_bytes=64 * MB, holders=[a.peer_key]) == data

            nursery.start_soon(fetch)
            partial = tmp_path / "c" / "blobs" / f"{name.hex()}.part"
            await until(partial.exists)
            assert a.process_id is not None
            os.kill(a.process_id, signal.SIGKILL)

        async def again() -> bool:
            return (await a.status()).restarts == 1 and (await a.status()).running

        await until(again)
        await connected(c, a.peer_key)
        with pytest.raises(FetchError, match="before its round is revealed"):
            await c.fetch(secret, deadline_s=1, max_bytes=MB)
        await a.reveal(3)
        assert await c.fetch(secret, deadline_s=10, max_bytes=MB) == b"x" * 1000


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


def test_process_ends_with_its_client_and_a_stuck_one_is_killed_by_the_next(tmp_path: Path) -> None:
    code = (
        "import sys, trio; from pathlib import Path; sys.path.append(sys.argv[2])\n"
        "from network_support import running\n"
        "async def main():\n"
        "    async with running(Path(sys.argv[1]), 'a') as (a,):\n"
        "        print(a.process_id, flush=True); await trio.sleep_forever()\n"
        "trio.run(main)"
    )
    command = [sys.executable, "-c", code, str(tmp_path), str(Path(__file__).parent)]
    pids = []
    for stuck in (False, True, False):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
            assert client.stdout is not None
            pids.append(int(client.stdout.readline()))
            if stuck:
                os.kill(pids[-1], signal.SIGSTOP)
            client.kill()

    def gone(pid: int) -> bool:
        stat = Path(f"/proc/{pid}/stat")
        return not stat.exists() or stat.read_text().split()[2] == "Z"

    async def all_gone() -> None:
        await until(lambda: all(map(gone, pids)), 10)

    trio.run(all_gone)


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
