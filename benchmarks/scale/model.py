"""What follows from the constants: chain, RPC, gossip, processors, memory, money and rounds, by number of members."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from benchmarks.scale.exchange import Costs, Exchange, Line, spread
from benchmarks.scale.measure import answer, full_state
from benchmarks.scale.shapes import STRATEGIES, Strategy, entries, parameters, update_bytes
from psyche_chain.chain import layout
from psyche_chain.chain.ids import COORDINATOR_ID
from psyche_chain.chain.instructions import TICKING_UNITS
from psyche_chain.chain.sender import LAMPORTS_PER_SIGNATURE
from psyche_chain.chain.wake import MAX_WAKES, WINDOW_S
from psyche_chain.client.loop import REFRESH_MEMBERS_S
from psyche_chain.client.run import POLL_REMOTE_S
from psyche_train.network import gossip

ROOT: Final = Path(__file__).resolve().parents[2]
MEASURED: Final = ROOT / "docs" / "scale" / "measured.json"
COSTS: Final = ROOT / "tests" / "programs" / "costs.json"

SIZES: Final = (16, 64, 256)
MODELS: Final = ("1 B", "40 B")
ROUND_S: Final = 240.0
"""Forward and backward of every member in a round: what the round is made for."""
MBIT: Final = 125_000.0
LINES: Final = {
    "100": Line(100 * MBIT, 100 * MBIT),
    "100/20": Line(20 * MBIT, 100 * MBIT),
    "500": Line(500 * MBIT, 500 * MBIT),
    "500/100": Line(100 * MBIT, 500 * MBIT),
}
"""Megabits a second, down/up."""
ONE_WAY_S: Final = 0.025
"""Assumed: between two members."""
CONFIRM_S: Final = 2.0
"""Assumed: from a decided transaction to its confirmation, simulation and blockhash included."""
RPC_TRIP_S: Final = 0.15
"""Assumed: an answer of an endpoint."""
PUBLIC_CALLS: Final = 40
"""Assumed of Solana's public endpoints: calls of one method from one address in 10 s (all methods: 100)."""
PUBLIC_BYTES: Final = 100e6
"""Assumed likewise: bytes in 30 s."""
BLOCK_UNITS: Final = 48_000_000
"""Assumed: compute units of a block; it was raised since, so the least of what clusters have."""
ACCOUNT_UNITS: Final = 12_000_000
"""Assumed: compute units a block for transactions that write one account."""
SLOT_S: Final = 0.4
PRIORITY_MICRO_LAMPORTS: Final = 10_000
"""Assumed, as on the page of costs."""
SOL: Final = 1e9
ACCELERATOR_BYTES: Final = 80e9
"""Assumed: memory of one accelerator."""


def load_measured(path: Path = MEASURED) -> dict[str, Any]:
    """What `measure` wrote.

    Raises:
        SystemExit: nothing was measured yet, or the file is something else.
    """
    try:
        found: dict[str, Any] = json.loads(path.read_text())
        found["network"]["stream_s"], found["training"]["peers"], found["chain"]["16"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SystemExit(
            f"{path} holds no measured constants ({error}): run python -m benchmarks.scale measure"
        ) from None
    return found


@lru_cache
def poll_bytes(members: int) -> int:
    """Of the answer to one look at the chain."""
    return len(answer([(str(COORDINATOR_ID), full_state(members)), ("Sysvar", bytes(40))]))


@lru_cache
def units(instruction: str, members: int) -> tuple[int, int]:
    """Compute units of an instruction: least and most, measured by the tests of the programs.

    The table has runs of 16 and of 256 members; between them it is taken to be a line.
    """
    cases = json.loads(COSTS.read_text())["instructions"][instruction].values()
    share = (min(members, 256) - 16) / 240
    found = [case["units"][0] + share * (case["units"][1] - case["units"][0]) for case in cases]
    return int(min(found)), int(max(found))


def rent_sol(members: int) -> float:
    """Deposit for a run's `RunState`; a byte costs what it costs in the measured ones."""
    table = json.loads(COSTS.read_text())["accounts"]["RunState"][""]
    (small, large), (low, high) = table["bytes"], table["lamports"]
    per_byte = (high - low) / (large - small)
    return float(low + per_byte * (layout.run_state_size(members) - small)) / SOL


@dataclass(frozen=True, slots=True)
class Rpc:
    """What one member asks of its endpoint."""

    poll_bytes: int
    calls: float
    """Looks at the chain in 10 s when nothing happens."""
    busy_calls: float
    """At most, while blobs arrive: every finished fetch looks at once, and every change of the account does."""
    bytes_s: float
    cpu: float
    """Share of a core that reading the answers takes."""


def rpc(members: int, exchange_s: float, measured: Mapping[str, Any]) -> Rpc:
    """RPC of a member; `exchange_s` is how long the blobs of a round take to arrive."""
    polls = 1 / (POLL_REMOTE_S + RPC_TRIP_S)
    fetched = (members - 1) * min(1.0, WINDOW_S / max(exchange_s, 1.0))
    busy = min(WINDOW_S / RPC_TRIP_S, WINDOW_S * polls + fetched + min(MAX_WAKES, 2 * members))
    table = _line(measured["chain"], "table_bytes", members)
    cpu = polls * _line(measured["chain"], "poll_cpu_s", members)
    cpu += _line(measured["chain"], "table_cpu_s", members) / REFRESH_MEMBERS_S
    return Rpc(
        poll_bytes(min(members, layout.MAX_CAPACITY)),
        WINDOW_S * polls,
        busy,
        polls * poll_bytes(min(members, layout.MAX_CAPACITY)) + table / REFRESH_MEMBERS_S,
        cpu,
    )


def _line(table: Mapping[str, Any], name: str, at: float) -> float:
    """Least squares through what was measured by members."""
    points = [(float(key), float(row[name])) for key, row in table.items()]
    return fit(points)(at)


def fit(points: list[tuple[float, float]]) -> Callable[[float], float]:
    """The line through some points; never below nothing."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread_x = sum((x - mean_x) ** 2 for x, _ in points)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread_x if spread_x else 0.0
    return lambda x: max(0.0, mean_y + slope * (x - mean_x))


@dataclass(frozen=True, slots=True)
class Gossip:
    """Announcements in one round, at one member."""

    sent: float
    """Messages of its own."""
    received: float
    """Messages of others, each counted once."""
    bytes: float
    cpu_s: float


def gossip_load(members: int, exchange_s: float, measured: Mapping[str, Any]) -> Gossip:
    """Each member announces every blob that it holds, once, in batches."""
    costs = measured["network"]["gossip"]
    pause_s = gossip.batch_s(members)
    sent = min(float(members), max(members / gossip.IDS_PER_MESSAGE, exchange_s / pause_s))
    received = sent * (members - 1)
    return Gossip(sent, received, received * costs["message_bytes"], received * costs["message_s"])


def links_cpu(members: int, measured: Mapping[str, Any]) -> float:
    """Share of a core that connections take by being there: pings, heartbeats."""
    network = measured["network"]
    return float(network["base_s"] + (members - 1) * network["link_s"])


@dataclass(frozen=True, slots=True)
class Compute:
    """CPU seconds of one member in a round, one thread, extrapolated from a smaller model."""

    encode_s: float
    check_s: float
    fold_s: float
    decoded_bytes: float
    """Memory of all decoded updates during the fold."""


def compute(model: str, members: int, strategy: Strategy, measured: Mapping[str, Any]) -> Compute:
    """Encode, check and fold. Linear in parameters and in updates; in the coefficients for what is per update."""
    table = measured["training"]
    scale = parameters(model) / table["parameters"]
    more = strategy.topk / table["topk"]

    def at(name: str, count: float) -> float:
        line = fit([(float(key), float(row[name])) for key, row in table["peers"].items()])
        return line(0) + more * (line(count) - line(0))

    return Compute(
        scale * at("encode", 0),
        scale * more * (at("check as a witness", members - 1) - at("check as a witness", 0)) / more,
        scale * at("fold", members),
        9.0 * entries(model, strategy) * members,
    )


def exchange_of(
    members: int,
    line: str,
    model: str,
    strategy: Strategy,
    measured: Mapping[str, Any],
    *,
    tiers: tuple[int, ...] = (0,),
    seed: int = 1,
) -> Exchange:
    """One round's exchange as it is simulated."""
    lines, blobs = spread([LINES[line]], [update_bytes(model, strategy, tier) for tier in tiers], members)
    network = measured["network"]
    return Exchange(
        lines,
        blobs,
        one_way_s=ONE_WAY_S,
        spread_s=POLL_REMOTE_S + RPC_TRIP_S,
        costs=Costs(network["stream_s"], network["byte_s"]),
        seed=seed,
    )


@dataclass(frozen=True, slots=True)
class Utilisation:
    """Training time over round time."""

    overlapped: float
    """As members do it: the exchange of one round goes on while the next is trained."""
    waiting: float
    """If they waited for it."""


def utilisation(exchange_s: float, fold_s: float = 0.0) -> Utilisation:
    """Of a round of `ROUND_S` of training.

    Args:
        fold_s: what the model does between two trainings.
    """
    turn_s = CONFIRM_S + POLL_REMOTE_S + RPC_TRIP_S
    network_s = exchange_s + turn_s
    overlapped = max(ROUND_S + fold_s + turn_s, network_s)
    return Utilisation(ROUND_S / overlapped, ROUND_S / (ROUND_S + fold_s + turn_s + network_s))


def memory(model: str, members: int, strategy: Strategy) -> dict[str, float]:
    """Bytes of a full member: what training holds, and what a round of others' updates adds."""
    weights = 4.0 * parameters(model)
    return {
        "weights": weights,
        "error buffer": weights,
        "gradient": weights,
        "blobs of a round": float(members * update_bytes(model, strategy)),
        "the same decoded": 9.0 * entries(model, strategy) * members,
    }


def fees_sol(members: int, round_s: float) -> tuple[float, float]:
    """SOL a day and member: without and with a priority fee."""
    a_round = 1 + min(layout.MAX_WITNESSES, members) / members
    a_day = a_round * 86_400 / round_s
    priority = TICKING_UNITS * PRIORITY_MICRO_LAMPORTS / 1e6
    return a_day * LAMPORTS_PER_SIGNATURE / SOL, a_day * (LAMPORTS_PER_SIGNATURE + priority) / SOL


def blocks_for_commits(members: int) -> int:
    """Blocks that all commits of a round need, as each asks for `TICKING_UNITS` and all write one account."""
    a_block = ACCOUNT_UNITS // TICKING_UNITS
    return -(-members // a_block)


DEFAULT: Final = STRATEGIES[1]
