"""The flags of `psyche-localnet run` that make the network between the members bad, and that network."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import trio

from localnet.faults.links import Fabric, Link
from localnet.faults.owners import owner_of
from localnet.faults.packets import PacketNetworkError, open_packet_network
from localnet.faults.proxy import FaultProxy, free_port
from psyche_chain.cli import exit_codes
from psyche_chain.errors import ConfigError

MAX_LATENCY_MS = 10_000.0
MAX_LOSS_PCT = 90.0
MIN_MBPS, MAX_MBPS = 0.01, 100_000.0
MAX_SECONDS = 86_400.0
BYTES_S_PER_MBPS = 125_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Bad:
    """What is wrong with the network between the members, as a user says it; nothing by default."""

    latency_ms: float = 0.0
    """One way, from member to member."""
    jitter_ms: float = 0.0
    """Up to so much more, drawn for each piece of a stream."""
    loss_pct: float = 0.0
    """Packets lost on the way from member to member."""
    down_mbps: float = math.inf
    """Of each member's line, in megabits a second."""
    up_mbps: float = math.inf
    apart: tuple[int, ...] = ()
    """Members that are cut off from the others for a while."""
    cut_at_s: float = 0.0
    """Seconds after the first round."""
    cut_for_s: float = 0.0

    def __bool__(self) -> bool:
        return self != NOTHING_BAD

    def check(self, num_members: int) -> None:
        """Raise `ConfigError` for what is out of range."""
        for name, value, low, high, unit in (
            ("--latency", self.latency_ms, 0.0, MAX_LATENCY_MS, "milliseconds"),
            ("--jitter", self.jitter_ms, 0.0, MAX_LATENCY_MS, "milliseconds"),
            ("--loss", self.loss_pct, 0.0, MAX_LOSS_PCT, "per cent"),
            ("--partition-at", self.cut_at_s, 0.0, MAX_SECONDS, "seconds"),
            ("--partition-for", self.cut_for_s, 0.0, MAX_SECONDS, "seconds"),
        ):
            if not low <= value <= high:
                raise _usage(f"{name} {value:g}: allowed are {low:g} to {high:g} {unit}")
        wrong = [member for member in self.apart if not 0 <= member < num_members]
        if wrong:
            raise _usage(f"--partition {wrong[0]}: members are 0 to {num_members - 1}")
        if len(set(self.apart)) == num_members:
            raise _usage(
                "--partition: all members are on one side, so nobody is cut off", "name some of them"
            )
        if self.apart and not self.cut_for_s:
            raise _usage("--partition needs --partition-for SECONDS", "for example --partition-for 20")
        if not self.apart and (self.cut_for_s or self.cut_at_s):
            raise _usage("--partition-at and --partition-for need --partition", "for example --partition 1,2")

    def link(self) -> Link:
        """The link of every member."""
        return Link.half_of(
            latency_s=self.latency_ms / 1000,
            jitter_s=self.jitter_ms / 1000,
            loss=self.loss_pct / 100,
            up_bytes_s=self.up_mbps * BYTES_S_PER_MBPS,
            down_bytes_s=self.down_mbps * BYTES_S_PER_MBPS,
        )

    def __str__(self) -> str:
        parts = []
        if self.latency_ms or self.jitter_ms:
            parts.append(
                f"{self.latency_ms:g} ms one way" + (f" + 0-{self.jitter_ms:g}" if self.jitter_ms else "")
            )
        if self.loss_pct:
            parts.append(f"{self.loss_pct:g} % loss")
        if not math.isinf(self.down_mbps):
            parts.append(f"{self.down_mbps:g} Mbit/s down, {self.up_mbps:g} up")
        if self.apart:
            members = ",".join(map(str, self.apart))
            parts.append(f"member {members} cut off at {self.cut_at_s:g} s for {self.cut_for_s:g} s")
        return "; ".join(parts)


NOTHING_BAD = Bad()


def parse_bandwidth(text: str | None) -> tuple[float, float]:
    """`"100"` or `"100/20"` (down/up) as megabits a second; infinite where the text is absent.

    Raises:
        ConfigError: not numbers, or out of range.
    """
    if text is None:
        return math.inf, math.inf
    down, _, up = text.partition("/")
    try:
        found = float(down), float(up if "/" in text else down)
    except ValueError:
        found = (math.nan, math.nan)
    if not all(MIN_MBPS <= value <= MAX_MBPS for value in found):
        raise _usage(
            f'--bandwidth "{text}": allowed are {MIN_MBPS:g} to {MAX_MBPS:g} Mbit/s, as 100 or as 100/20 (down/up)'
        )
    return found


def parse_apart(text: str | None) -> tuple[int, ...]:
    """`"1,2"` as members.

    Raises:
        ConfigError: not numbers.
    """
    try:
        return tuple(sorted({int(part) for part in (text or "").split(",") if text}))
    except ValueError:
        raise _usage(f'--partition "{text}": numbers with commas are needed, for example 1,2') from None


def _usage(message: str, hint: str = "") -> ConfigError:
    return ConfigError(message, hint, exit_code=exit_codes.USAGE)


@dataclass
class BadNetwork:
    """The network of a run while it goes on, of proxies or of real packets."""

    bad: Bad
    fabric: Fabric
    listen: Callable[[int], str]
    """The address that each member listens on."""
    announced: Callable[[int], str | None] = lambda _member: None
    """The address that the others are told instead; None: the same."""
    prefix: Callable[[int], tuple[str, ...]] = lambda _member: ()
    """Words that put a member's command into this network."""
    chain_host: str = "127.0.0.1"
    """Where the chain must listen for the members to reach it."""
    _cut: bool = False

    def follow(self, elapsed_s: float | None, say: Callable[[str], None]) -> None:
        """Begin and end the partition.

        Args:
            elapsed_s: since the first round; None before it.
        """
        bad = self.bad
        if not bad.apart or elapsed_s is None:
            return
        cut = bad.cut_at_s <= elapsed_s < bad.cut_at_s + bad.cut_for_s
        if cut == self._cut:
            return
        self._cut = cut
        members = ",".join(map(str, bad.apart))
        if cut:
            self.fabric.partition(bad.apart)
            say(f"member {members} cut off from the others")
        else:
            self.fabric.heal()
            say(f"member {members} can be reached again")


@asynccontextmanager
async def open_bad_network(
    bad: Bad,
    folders: list[Path],
    seed: int,
    *,
    packets: bool = False,
    instead: Callable[[str], None] | None = None,
) -> AsyncIterator[BadNetwork]:
    """The network between the members, as long as the context lasts: a proxy before each, or namespaces.

    Args:
        folders: the members' state folders; a proxy finds who dialled by the pid files there.
        packets: lose real packets, in network namespaces.
        instead: told why where that cannot be done, and proxies are used.

    Raises:
        PacketNetworkError: namespaces cannot be made, and `instead` is absent.
    """
    fabric = Fabric({member: bad.link() for member in range(len(folders))}, seed)
    async with AsyncExitStack() as stack:
        if packets:
            try:
                net = await stack.enter_async_context(open_packet_network(len(folders), fabric=fabric))
            except PacketNetworkError as error:
                if instead is None:
                    raise
                instead(str(error))
            else:
                yield BadNetwork(bad, fabric, net.listen, prefix=net.prefix, chain_host=net.host_address)
                return
        proxies = await stack.enter_async_context(_open_proxies(fabric, folders))
        yield BadNetwork(
            bad,
            fabric,
            lambda member: f"/ip4/127.0.0.1/tcp/{proxies[member].target[1]}",
            lambda member: f"/ip4/127.0.0.1/tcp/{proxies[member].port}",
        )


@asynccontextmanager
async def _open_proxies(fabric: Fabric, folders: list[Path]) -> AsyncIterator[list[FaultProxy]]:
    pids = [(member, folder / "network.pid") for member, folder in enumerate(folders)]
    proxies = [
        FaultProxy(fabric, member, ("127.0.0.1", free_port()), partial(_who, pids))
        for member in range(len(folders))
    ]
    async with trio.open_nursery() as nursery:
        for proxy in proxies:
            await nursery.start(proxy.run)
        yield proxies
        nursery.cancel_scope.cancel()


def _who(pids: list[tuple[int, Path]], theirs: int, ours: int) -> int | None:
    return owner_of(theirs, ours, pids)
