"""Real packets between namespaces: where they cannot be made, this is skipped and says why."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from localnet.faults.links import Link
from localnet.faults.packets import PacketNetwork, open_packet_network, remove_orphans, why_not

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "possible here")

SERVE = """
import socket, sys
with socket.create_server((sys.argv[1], 4001)) as server:
    print("ready", flush=True)
    while True:
        peer, _ = server.accept()
        with peer:
            while data := peer.recv(65536):
                peer.sendall(data)
"""
ASK = """
import socket, sys, time
size = int(sys.argv[2])
started = time.monotonic()
with socket.create_connection((sys.argv[1], 4001), timeout=60) as s:
    s.sendall(bytes(size))
    left = size
    while left:
        left -= len(s.recv(65536))
print(time.monotonic() - started)
"""


async def asked(network: PacketNetwork, size: int) -> float:
    """Seconds that member 1 needs to have `size` bytes echoed by member 0."""
    command = [*network.prefix(1), sys.executable, "-c", ASK, network.address(0), str(size)]
    with trio.fail_after(90):
        done = await trio.run_process(command, capture_stdout=True)
    return float(done.stdout)


async def test_kernel_tcp_meets_loss_delay_and_narrow_lines_and_nothing_is_left_behind() -> None:
    async with open_packet_network(2, seed=5) as network:
        command = [*network.prefix(0), sys.executable, "-c", SERVE, network.address(0)]
        server = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
        try:
            assert server.stdout is not None
            assert (await server.stdout.receive_some()).startswith(b"ready")
            for member in (0, 1):
                network.fabric.set_link(member, Link.half_of(latency_s=0.1))
            assert await asked(network, 1000) >= 0.4  # a handshake, and there and back
            for member in (0, 1):
                network.fabric.set_link(member, Link.half_of(loss=0.3))
            before = network.lost, network.carried
            await asked(network, 20_000)
            lost, carried = network.lost - before[0], network.carried - before[1]
            assert 0.1 < lost / (lost + carried) < 0.55
            # 100 kB of 200 kB/s up, and back by the other's line.
            network.fabric.set_link(0, Link(up_bytes_s=400_000))
            network.fabric.set_link(1, Link(up_bytes_s=200_000))
            assert await asked(network, 100_000) >= 0.5
        finally:
            server.kill()
            await server.wait()
    assert left_of(network) == []


def left_of(network: PacketNetwork) -> list[str]:
    """Namespaces and devices of a network that are still there."""
    found = [name for name in network.names if Path("/run/netns", name).exists()]
    shown = subprocess.run(["ip", "link"], capture_output=True, text=True, check=True).stdout
    return found + [line for line in shown.splitlines() if f" psy{os.getpid()}" in line]


async def test_a_partition_stops_packets_and_the_host_is_never_cut_off() -> None:
    async with open_packet_network(2) as network:
        network.fabric.partition([1])
        ping = "import socket,sys; s=socket.create_connection((sys.argv[1], int(sys.argv[2])), 1); s.sendall(b'x')"
        listeners = await trio.open_tcp_listeners(0, host=network.host_address)
        port = str(listeners[0].socket.getsockname()[1])
        await trio.run_process([*network.prefix(1), sys.executable, "-c", ping, network.host_address, port])
        with pytest.raises(subprocess.CalledProcessError) as caught:
            await trio.run_process(
                [*network.prefix(1), sys.executable, "-c", ping, network.address(0), "4001"],
                capture_stderr=True,
            )
        assert b"timed out" in caught.value.stderr
        network.fabric.heal()
        with pytest.raises(subprocess.CalledProcessError) as caught:
            await trio.run_process(
                [*network.prefix(1), sys.executable, "-c", ping, network.address(0), "4001"],
                capture_stderr=True,
            )
        assert b"refused" in caught.value.stderr  # nobody listens, but somebody answers
        for listener in listeners:
            await listener.aclose()


async def test_packets_are_carried_until_the_body_of_a_cancelled_network_has_ended() -> None:
    reach = "import socket,sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)"
    said_goodbye = False
    with trio.CancelScope() as work:
        async with open_packet_network(1) as network:
            listeners = await trio.open_tcp_listeners(0, host=network.host_address)
            port = str(listeners[0].socket.getsockname()[1])
            try:
                work.cancel()
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    command = [*network.prefix(0), sys.executable, "-c", reach, network.host_address, port]
                    await trio.run_process(command)
                    said_goodbye = True
                    for listener in listeners:
                        await listener.aclose()
    assert said_goodbye
    assert left_of(network) == []


def test_what_a_killed_maker_left_is_removed_and_what_lives_is_not() -> None:
    with subprocess.Popen(["true"]) as dead:
        dead.wait()
    orphan, living = f"psyche-{dead.pid}-0", f"psyche-{os.getpid()}-99"
    inhabitant = None
    try:
        for name in (orphan, living):
            subprocess.run(["ip", "netns", "add", name], check=True)
        inhabitant = subprocess.Popen(
            ["ip", "netns", "exec", orphan, sys.executable, "-c", "print(1, flush=True); input()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert inhabitant.stdout is not None
        assert inhabitant.stdout.readline() == b"1\n"
        found = remove_orphans()
        assert orphan in found
        assert living not in found
        assert inhabitant.wait(20) == -signal.SIGKILL
        assert not Path("/run/netns", orphan).exists()
        assert Path("/run/netns", living).exists()
    finally:
        if inhabitant is not None:
            inhabitant.kill()
            inhabitant.communicate()
        for name in (orphan, living):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
