"""The page's tables, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.scale import model
from benchmarks.scale.scenes import MIXED, Played
from benchmarks.scale.shapes import STRATEGIES, parameters, update_bytes
from psyche_chain.chain import layout
from psyche_train.network import gossip
from psyche_train.network.links import PING_EVERY_S

GOAL = 0.95


def markdown(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def size_of(count: float) -> str:
    """Bytes for people: 1.6 MB."""
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}"
    return f"{count:.0f} B"


def time_of(seconds: float) -> str:
    """Seconds for people."""
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"


def percent(share: float) -> str:
    """0.954 as 95.4 %."""
    return f"{100 * share:.1f} %" if share < 9.995 else f"{share:.0f} times"


def constants(measured: dict[str, Any]) -> str:
    """What the command measured."""
    network, training, where = measured["network"], measured["training"], measured["machine"]
    talk = network["gossip"]
    rows = [
        ("a stream opened and one request, each end", f"{1e3 * network['stream_s']:.1f} ms"),
        ("a byte sent or received, verified and written", f"{1e9 * network['byte_s']:.1f} ns"),
        (
            f"a gossip message of {gossip.IDS_PER_MESSAGE} ids with its copies, {talk['members']} members",
            f"{1e3 * talk['message_s']:.1f} ms, {size_of(talk['message_bytes'])} on the line",
        ),
        (f"a connection: pings every {PING_EVERY_S:.0f} s", f"{1e3 * network['link_s']:.2f} ms a second"),
        ("a network process without any", f"{1e3 * network['base_s']:.1f} ms a second"),
    ]
    rows += [
        (
            f"an answer with the run's state, {count} members",
            f"{size_of(row['poll_bytes'])}, read in {1e3 * row['poll_cpu_s']:.1f} ms",
        )
        for count, row in measured["chain"].items()
    ]
    rows += [
        (
            f"updates of {count} members, {training['parameters'] / 1e6:.1f} M parameters, k = {training['topk']}",
            f"fold {1e3 * row['fold']:.0f} ms, check {1e3 * row['check as a witness']:.0f} ms",
        )
        for count, row in training["peers"].items()
    ]
    head = (
        f"CPU time on {where['cores']} cores of {where['processor']}, Python {where['python']}, torch "
        f"{where['torch']}, one thread each; load {where['load']} when it began."
    )
    return f"{head}\n\n" + markdown(("what", "CPU and bytes"), rows)


def updates() -> str:
    """Bytes of an update."""
    rows = []
    for name in model.MODELS:
        for strategy in STRATEGIES:
            sizes = [update_bytes(name, strategy, tier) for tier in (0, 1, 2)]
            rate = sizes[0] / parameters(name)
            rows.append((name, strategy.name, f"{rate:.5f}", *map(size_of, sizes)))
    return markdown(("model", "strategy", "bytes a parameter", "tier 0", "tier 1", "tier 2"), rows)


def chain(measured: dict[str, Any]) -> str:
    """Account, polling, fees, blocks."""
    rows = []
    for count in model.SIZES:
        exchange_s = _exchange_s(count, measured)
        found = model.rpc(count, exchange_s, measured)
        least, most = model.units("coordinator.commit", count)
        plain, hurried = model.fees_sol(count, model.ROUND_S)
        rows.append(
            (
                count,
                f"{layout.run_state_size(count):,} B",
                f"{model.rent_sol(count):.3f}",
                size_of(found.poll_bytes),
                f"{found.calls:.0f} ({found.busy_calls:.0f})",
                f"{size_of(found.bytes_s)}/s",
                percent(found.cpu),
                f"{least:,} to {most:,}",
                model.blocks_for_commits(count),
                f"{plain:.4f} ({hurried:.4f})",
            )
        )
    return markdown(
        (
            "members", "`RunState`", "rent, SOL", "answer", "looks in 10 s (at most, while blobs arrive)", "from RPC",
            "of a core", "units of a commit", "blocks for all commits", "SOL a member and day (with priority)",
        ),
        rows,
    )  # fmt: skip


def _exchange_s(members: int, measured: dict[str, Any]) -> float:
    """How long blobs arrive in an ordinary round: 1 B at 100 Mbps."""
    return model.exchange_of(members, "100", "1 B", model.DEFAULT, measured).bound_s()


def processes(measured: dict[str, Any]) -> str:
    """What the network process is busy with."""
    rows = []
    for count in model.SIZES:
        exchange_s = _exchange_s(count, measured)
        load = model.gossip_load(count, exchange_s, measured)
        rows.append(
            (
                count,
                count - 1,
                percent(model.links_cpu(count, measured)),
                f"{load.sent:.0f}",
                f"{load.received:,.0f}",
                size_of(load.bytes),
                f"{load.cpu_s:.0f} s",
                percent(load.cpu_s / model.ROUND_S),
            )
        )
    return markdown(
        (
            "members", "connections", "pings, of a core", "messages sent a round", "received", "bytes", "CPU a round",
            "of a core",
        ),
        rows,
    )  # fmt: skip


def rounds(played: Sequence[Played]) -> str:
    """The simulated exchange on every line, and the utilisation that follows."""
    rows = []
    for one in (p for p in played if p.scene.strategy == model.DEFAULT):
        scene, use = one.scene, model.utilisation(one.all_s)
        rows.append(
            (
                scene.model,
                scene.members,
                scene.line,
                "0, 1, 1" if scene.tiers == MIXED else "0",
                time_of(one.bound_s),
                time_of(one.all_s) if one.simulated else "more",
                percent(use.overlapped) if one.simulated else f"below {percent(use.overlapped)}",
                percent(use.waiting) if one.simulated else f"below {percent(use.waiting)}",
                "yes" if use.overlapped >= GOAL else "**no**",
            )
        )
    return markdown(
        (
            "model", "members", "Mbps", "tiers", "bound", "simulated", "utilisation", "if members waited for it",
            f"≥ {GOAL:.0%}",
        ),
        rows,
    )  # fmt: skip


def strategies(measured: dict[str, Any]) -> str:
    """What symmetric lines allow the strategies at best, of full members."""
    rows = []
    for name in model.MODELS:
        for count in model.SIZES:
            for line in ("100", "500"):
                cells = []
                for strategy in STRATEGIES:
                    least_s = model.exchange_of(count, line, name, strategy, measured).bound_s()
                    cells.append(f"{time_of(least_s)}, {percent(model.utilisation(least_s).overlapped)}")
                rows.append((name, count, line, *cells))
    return markdown(("model", "members", "Mbps", *(strategy.name for strategy in STRATEGIES)), rows)


def machines(measured: dict[str, Any]) -> str:
    """Memory and processors of a full member."""
    rows = []
    for name in model.MODELS:
        for count in model.SIZES:
            held = model.memory(name, count, model.DEFAULT)
            spent = model.compute(name, count, model.DEFAULT, measured)
            state = held["weights"] + held["error buffer"] + held["gradient"]
            rows.append(
                (
                    name,
                    count,
                    size_of(state),
                    size_of(held["blobs of a round"]),
                    size_of(held["the same decoded"]),
                    time_of(spent.encode_s),
                    time_of(spent.check_s),
                    time_of(spent.fold_s),
                    percent(model.ROUND_S / (model.ROUND_S + spent.fold_s + spent.encode_s)),
                )
            )
    return markdown(
        (
            "model", "members", "weights, error, gradient", "blobs of a round", "decoded", "encode", "check", "fold",
            "utilisation with these",
        ),
        rows,
    )  # fmt: skip


def joiners() -> str:
    """A checkpoint on its way to a member that has nothing."""
    rows = []
    for name in model.MODELS:
        for tier in (0, 1, 2):
            size = 4.0 * parameters(name, tier)
            rows.append(
                (name, tier, size_of(size), *(time_of(size / line.down) for line in _symmetric()),
                 time_of(size / model.LINES["100/20"].up))
            )  # fmt: skip
    return markdown(
        (
            "model",
            "tier",
            "checkpoint",
            "down, 100 Mbps",
            "down, 500 Mbps",
            "from one holder that has 20 Mbps up",
        ),
        rows,
    )


def _symmetric() -> list[Any]:
    return [model.LINES["100"], model.LINES["500"]]


def validation(measured: dict[str, Any]) -> str:
    """Real processes against the simulation."""
    found = measured.get("validation")
    if not found:
        return "Not measured yet: `python -m benchmarks.scale validate`."
    rows = [
        (
            row["members"],
            f"{row['up'] / model.MBIT:g} up, {row['down'] / model.MBIT:g} down",
            size_of(row["bytes"]),
            time_of(row["bound_s"]),
            f"{row['real_s']:.1f} s ({row['real_low_s']:.1f}-{row['real_high_s']:.1f})",
            f"{row['simulated_s']:.1f} s",
            f"{100 * (row['simulated_s'] / row['real_s'] - 1):+.0f} %",
            f"{row['real_repeated']:.2f}",
        )
        for row in found
    ]
    return markdown(
        (
            "members", "Mbps", "update", "bound", "real, median (least-most)", "simulated", "deviation",
            "real: bytes received for one needed",
        ),
        rows,
    )  # fmt: skip
