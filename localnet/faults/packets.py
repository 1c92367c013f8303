"""Members in network namespaces of their own, joined by a switch in this process that loses real packets.

Real kernel TCP meets real loss, delay and narrow lines here, so nothing about TCP is modelled. Each member has a
TUN device; what it sends arrives here as IP packets. Needs Linux, root, `ip` and /dev/net/tun; elsewhere
`why_not` says so.
"""

from __future__ import annotations

import fcntl
import heapq
import itertools
import os
import random
import re
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import trio

from localnet.faults.links import Fabric

TUN = Path("/dev/net/tun")
NETNS = Path("/run/netns")
TUNSETIFF = 0x400454CA
IFF_TUN_NO_PI = 0x1001
MTU = 1500
QUEUE_S = 0.3
"""A packet that would wait longer for a narrow line is dropped, as a router with a bounded queue does."""
MEMBER_PORT = 4001
HOST = None
"""The machine itself, where the chain listens: nothing is done to packets from and to it."""


class PacketNetworkError(Exception):
    """Namespaces or devices could not be made; the text says which command failed."""


def why_not() -> str:
    """Why packet networks cannot be made here; empty if they can."""
    if not sys.platform.startswith("linux"):
        return "network namespaces need Linux; the fault proxy works everywhere"
    if os.geteuid() != 0:
        return "network namespaces need root; the fault proxy does not"
    if not TUN.exists():
        return f"there is no {TUN}"
    if shutil.which("ip") is None:
        return "the command ip (iproute2) is not installed"
    try:
        with TUN.open("r+b", buffering=0):
            pass
    except OSError as error:
        return f"{TUN}: {error.strerror}"
    return ""


@dataclass
class PacketNetwork:
    """The namespaces and the switch between them while `open_packet_network` lasts."""

    fabric: Fabric
    subnet: int
    """Third byte of all addresses: several networks may be there at once."""
    names: list[str]
    fds: dict[int | None, int] = field(default_factory=dict)
    """TUN device of each member, and of the host."""
    carried: int = 0
    lost: int = 0
    crowded: int = 0
    """Packets dropped because a line's queue was full."""

    @property
    def host_address(self) -> str:
        """Where members reach this machine."""
        return f"10.77.{self.subnet}.1"

    def address(self, member: int) -> str:
        """The member's own address."""
        return f"10.77.{self.subnet}.{member + 2}"

    def listen(self, member: int) -> str:
        """Multiaddr on which the member accepts peers."""
        return f"/ip4/{self.address(member)}/tcp/{MEMBER_PORT}"

    def prefix(self, member: int) -> tuple[str, ...]:
        """Words that put a command into the member's namespace."""
        return ("ip", "netns", "exec", self.names[member])

    def owner(self, address: bytes) -> int | None:
        """Whose address these four bytes are.

        Raises:
            KeyError: nobody's.
        """
        last = address[3] - 2
        member = HOST if last == -1 else last
        if address[:3] != bytes((10, 77, self.subnet)) or member not in self.fds:
            raise KeyError(address)
        return member

    async def run(self) -> None:
        """Carry packets until cancelled."""
        async with trio.open_nursery() as nursery:
            for member in self.fds:
                nursery.start_soon(_Port(self, member).run)


class _Port:
    """One sender's end of the switch, with the packets that it has under way."""

    def __init__(self, network: PacketNetwork, member: int | None) -> None:
        self._network = network
        self._member = member
        self._fd = network.fds[member]
        self._under_way: list[tuple[float, int, int, bytes]] = []
        self._order = itertools.count()
        self._more = trio.Event()
        self._draws: dict[int | None, random.Random] = {}

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._deliver)
            while True:
                await trio.lowlevel.wait_readable(self._fd)
                for _ in range(64):
                    try:
                        self._take(os.read(self._fd, MTU + 64))
                    except BlockingIOError:
                        break
                await trio.lowlevel.checkpoint()

    def _take(self, packet: bytes) -> None:
        """Decide what becomes of a packet: carried, lost, crowded out, or cut off."""
        network, fabric, source = self._network, self._network.fabric, self._member
        if len(packet) < 20 or packet[0] >> 4 != 4:
            return  # IPv6 neighbours and the like
        try:
            target = network.owner(packet[16:20])
        except KeyError:
            return
        now, at = trio.current_time(), 0.0
        if source is not HOST and target is not HOST:
            rng = self._draws.get(target) or self._draws.setdefault(target, fabric.stream(source, target))
            delay_s, lost = fabric.delay_s(source, target, rng), rng.random() < fabric.loss(source, target)
            if lost or fabric.is_cut(source, target):
                network.lost += 1
                return
            if fabric.waiting_s(source, target, now) > QUEUE_S:
                network.crowded += 1
                return
            at = fabric.passed_at(source, target, len(packet), now) + delay_s
        network.carried += 1
        if at <= now:
            _send(network.fds[target], packet)
            return
        heapq.heappush(self._under_way, (at, next(self._order), network.fds[target], packet))
        self._more.set()

    async def _deliver(self) -> None:
        """Hand over each packet when its time has come; jitter may put them out of order, as it does outside."""
        while True:
            now = trio.current_time()
            while self._under_way and self._under_way[0][0] <= now:
                _, _, fd, packet = heapq.heappop(self._under_way)
                _send(fd, packet)
            self._more = trio.Event()
            with trio.move_on_at(self._under_way[0][0] if self._under_way else float("inf")):
                await self._more.wait()


def _send(fd: int, packet: bytes) -> None:
    with suppress(OSError):  # a full device queue loses packets, as devices do
        os.write(fd, packet)


@asynccontextmanager
async def open_packet_network(
    num_members: int, seed: int = 0, fabric: Fabric | None = None
) -> AsyncIterator[PacketNetwork]:
    """Namespaces for members 0 to n - 1, and the switch that joins them with this machine.

    Resource handling: namespaces and devices go when the context ends, and with them what still runs in them
    loses its network; end those processes first. When the context is cancelled, packets are carried until its
    body has ended, so that members can still leave. Devices go with this process even if it is killed; namespaces
    that a killed one left are removed by the next, with what still runs in them.

    Args:
        fabric: what is done to packets; perfect links, drawn from `seed`, where it is absent.

    Raises:
        PacketNetworkError: it cannot be done here, or a command failed.
    """
    if reason := why_not():
        raise PacketNetworkError(reason)
    remove_orphans()
    subnet = os.getpid() % 250 + 1
    names = [f"psyche-{os.getpid()}-{member}" for member in range(num_members)]
    network = PacketNetwork(fabric or Fabric({}, seed), subnet, names)
    made: list[str] = []
    try:
        network.fds[HOST] = _tun(f"psy{os.getpid()}h")
        _ip("addr", "add", f"{network.host_address}/24", "dev", f"psy{os.getpid()}h")
        _ip("link", "set", f"psy{os.getpid()}h", "mtu", str(MTU), "up")
        for member, name in enumerate(names):
            device = f"psy{os.getpid()}m{member}"
            _ip("netns", "add", name)
            made.append(name)
            network.fds[member] = _tun(device)
            _ip("link", "set", device, "netns", name)
            _ip("-n", name, "addr", "add", f"{network.address(member)}/24", "dev", device)
            _ip("-n", name, "link", "set", device, "mtu", str(MTU), "up")
            _ip("-n", name, "link", "set", "lo", "up")
        carrying = trio.CancelScope(shield=True)

        async def carry() -> None:
            with carrying:
                await network.run()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(carry)
            try:
                yield network
            finally:
                carrying.cancel()
    finally:
        _remove(made, list(network.fds.values()))


def remove_orphans() -> list[str]:
    """Remove namespaces whose maker was killed, and end what still runs in them; returns their names."""
    found = [path.name for path in NETNS.glob("psyche-*-*") if _is_orphan(path.name)]
    for name in found:
        shown = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False)
        for pid in shown.stdout.split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)
    return found


def _is_orphan(name: str) -> bool:
    match = re.fullmatch(r"psyche-(\d+)-\d+", name)
    return match is not None and not Path("/proc", match[1]).exists()


def _remove(names: list[str], fds: list[int]) -> None:
    for name in names:
        subprocess.run(["ip", "netns", "del", name], check=False)
    for fd in fds:
        os.close(fd)


def _tun(name: str) -> int:
    fd = os.open(TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH14x", name.encode(), IFF_TUN_NO_PI))
    except OSError as error:
        os.close(fd)
        raise PacketNetworkError(f"the device {name} could not be made: {error.strerror}") from None
    return fd


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise PacketNetworkError(f"ip {' '.join(words)}: {done.stderr.strip()}")
