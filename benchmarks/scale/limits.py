"""Each thing that a run needs as a share of what there is, and the size at which it is not enough."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.scale import model
from benchmarks.scale.tables import markdown, percent
from psyche_chain.chain import layout
from psyche_chain.chain.instructions import TICKING_UNITS
from psyche_train.network.node import MAX_CONNECTIONS

FOLD_SHARE: Final = 0.05
"""Of a round, for the fold: more and 95 % are not reached."""
HOST_BYTES: Final = 512e9
"""Assumed: memory of a machine that trains 40 B parameters."""
MOST_MEMBERS: Final = 4096

Share = Callable[[int], float]


@dataclass(frozen=True, slots=True)
class Limit:
    """One thing that can run out."""

    what: str
    of: str
    share: Share
    """By members: 1 and more is too much."""

    def breaks_at(self) -> int | None:
        """The fewest members for which it is not enough; None up to `MOST_MEMBERS`."""
        low, high = 1, MOST_MEMBERS
        if self.share(high) < 1:
            return None
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.share(middle) >= 1 else (middle, high)
        return high


def exchange_bound_s(name: str, line: str, members: int, measured: dict[str, Any]) -> float:
    """Seconds that the lines need for a round's updates, all full members."""
    return model.exchange_of(members, line, name, model.DEFAULT, measured).bound_s()


def limits(measured: dict[str, Any]) -> list[Limit]:
    """All of them, in no order."""

    def exchange(name: str, line: str) -> Share:
        return lambda n: exchange_bound_s(name, line, n, measured) / model.ROUND_S

    def fold(name: str) -> Share:
        return lambda n: model.compute(name, n, model.DEFAULT, measured).fold_s / (FOLD_SHARE * model.ROUND_S)

    def small_s(members: int) -> float:
        return exchange_bound_s("1 B", "100", members, measured)

    def weights(name: str) -> Share:
        held = model.memory(name, 2, model.DEFAULT)
        return lambda _: (held["weights"] + held["error buffer"] + held["gradient"]) / model.ACCELERATOR_BYTES

    def decoded(name: str) -> Share:
        def share(members: int) -> float:
            held = model.memory(name, members, model.DEFAULT)
            return (held["blobs of a round"] + held["the same decoded"]) / HOST_BYTES

        return share

    rounds = [
        Limit(f"exchange of {name}, {line} Mbps", f"a round of {model.ROUND_S:.0f} s", exchange(name, line))
        for name in model.MODELS
        for line in ("100", "500")
    ]
    machines = [
        limit
        for name in model.MODELS
        for limit in (
            Limit(f"fold of {name} on one CPU thread", f"{FOLD_SHARE:.0%} of a round", fold(name)),
            Limit(f"weights, error and gradient of {name}", "an accelerator of 80 GB", weights(name)),
            Limit(f"others' updates of {name} in memory", "512 GB", decoded(name)),
        )
    ]
    return [
        *rounds,
        *machines,
        Limit("pings and connections", "a core", lambda n: model.links_cpu(n, measured)),
        Limit(
            "gossip while a round's blobs arrive (1 B, 100 Mbps)",
            "a core during a round",
            lambda n: model.gossip_load(n, small_s(n), measured).cpu_s / model.ROUND_S,
        ),
        Limit(
            "looks at the chain, nothing happens",
            f"{model.PUBLIC_CALLS} in 10 s (public RPC)",
            lambda n: model.rpc(n, small_s(n), measured).calls / model.PUBLIC_CALLS,
        ),
        Limit(
            "looks at the chain while blobs arrive, at most",
            f"{model.PUBLIC_CALLS} in 10 s (public RPC)",
            lambda n: model.rpc(n, small_s(n), measured).busy_calls / model.PUBLIC_CALLS,
        ),
        Limit(
            "bytes from RPC",
            "100 MB in 30 s (public RPC)",
            lambda n: 30 * model.rpc(n, small_s(n), measured).bytes_s / model.PUBLIC_BYTES,
        ),
        Limit("reading RPC's answers", "a core", lambda n: model.rpc(n, small_s(n), measured).cpu),
        Limit(
            "commits, which all write one account",
            f"the blocks of {FOLD_SHARE:.0%} of a round",
            lambda n: n * TICKING_UNITS / model.ACCOUNT_UNITS / (FOLD_SHARE * model.ROUND_S / model.SLOT_S),
        ),
        Limit("slots of a run", f"{layout.MAX_CAPACITY}", lambda n: (n - 1) / layout.MAX_CAPACITY),
        Limit("connections of a network process", f"{MAX_CONNECTIONS}", lambda n: n / MAX_CONNECTIONS),
    ]


def ordered(measured: dict[str, Any]) -> list[Limit]:
    """The first to break first."""
    found = limits(measured)
    return sorted(found, key=lambda one: (one.breaks_at() or MOST_MEMBERS + 1, -one.share(256)))


def table(measured: dict[str, Any]) -> str:
    """What breaks first, as Markdown."""
    rows = []
    for one in ordered(measured):
        at = one.breaks_at()
        where = "always" if at == 2 else f"{at}" if at is not None else f"beyond {MOST_MEMBERS}"
        rows.append((one.what, one.of, *(percent(one.share(n)) for n in model.SIZES), where))
    return markdown(("what", "of", *(f"{n} members" for n in model.SIZES), "too little from, members"), rows)


def as_json(measured: dict[str, Any]) -> list[dict[str, Any]]:
    """The same for scripts."""
    return [
        {
            "what": one.what,
            "of": one.of,
            "share": {str(n): one.share(n) for n in model.SIZES},
            "breaks_at": one.breaks_at(),
        }
        for one in ordered(measured)
    ]
