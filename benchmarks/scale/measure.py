"""Constants that are measured with the code that a member runs, on this machine."""

from __future__ import annotations

import base64
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trio
from solders.pubkey import Pubkey

from benchmarks.scale.exchange import Line
from benchmarks.scale.real import exchange, idle, members, process_cpu_s
from psyche_chain.chain import layout
from psyche_chain.chain.accounts import decode_membership
from psyche_chain.chain.ids import COORDINATOR_ID
from psyche_chain.chain.programs import program
from psyche_chain.chain.queries import Account
from psyche_chain.chain.state import RunState
from psyche_chain.chain.views import Phase, RoundStatus, SlotStatus
from psyche_chain.client.view import ChainView
from psyche_train.bench.models import bench_spec
from psyche_train.bench.step import MemberBench
from psyche_train.bench.timing import interleave
from psyche_train.network.gossip import IDS_PER_MESSAGE, batch_s

MEMBERS = (16, 64, 256)
MEMBERSHIP_BYTES = 330
FAST = Line(1e9, 1e9)
SMALL, LONG = 2_000, 24_000_000


def full_state(members: int) -> bytes:
    """A `RunState` account in the middle of a run: all slots taken, all rounds trained by everybody."""
    raw: Any = np.zeros(1, dtype=layout.run_state_dtype(members))
    rng = np.random.default_rng(0)
    raw["discriminator"] = np.void(layout.DISCRIMINATOR)
    header = raw["header"]
    header["version"], header["capacity"], header["phase"] = layout.VERSION, members, Phase.ROUND_TRAIN
    everybody = np.frombuffer(((1 << members) - 1).to_bytes(32, "little"), dtype="<u8")
    for name in ("assigned", "committed"):
        header["rounds"][name] = everybody
    header["rounds"]["number"] = np.arange(1, layout.RING + 1)
    header["rounds"]["status"] = RoundStatus.COMMITTED
    header["rounds"]["trained"], header["next_round"] = 1, layout.RING + 1
    slots = raw["slots"]
    for name in ("wallet", "hot_key", "p2p_key"):
        slots[name] = np.frombuffer(rng.bytes(32 * members), dtype="V32")
    slots["status"], slots["weight"], slots["next_weight"] = SlotStatus.ACTIVE, 1, 1
    raw["commitments"] = np.frombuffer(rng.bytes(32 * layout.RING * members), dtype="V32").reshape(
        layout.RING, members
    )
    return bytes(raw.tobytes())


def answer(accounts: Sequence[tuple[str, bytes]]) -> bytes:
    """An endpoint's JSON for some accounts."""
    value = [
        {
            "data": [base64.b64encode(data).decode(), "base64"],
            "executable": False,
            "lamports": 486_587_520,
            "owner": owner,
            "rentEpoch": 2**64 - 1,
            "space": len(data),
        }
        for owner, data in accounts
    ]
    return json.dumps(
        {
            "jsonrpc": "2.0",
            "id": 1,
            "result": {"context": {"apiVersion": "2.2.0", "slot": 1}, "value": value},
        },
        separators=(",", ":"),
    ).encode()


def _cpu_s(act: Callable[[], object], times: int = 15) -> float:
    """Median CPU seconds of a call."""
    spent = []
    for _ in range(times):
        began = time.process_time()
        act()
        spent.append(time.process_time() - began)
    return statistics.median(spent)


def chain() -> dict[str, dict[str, float]]:
    """By members: bytes of a poll's answer and of one with all memberships, and CPU seconds to read them."""
    found = {}
    owner = str(COORDINATOR_ID)
    discriminator = program("coordinator").discriminators["Membership"]
    membership = discriminator + bytes(MEMBERSHIP_BYTES - len(discriminator))
    for count in MEMBERS:
        poll = answer(
            [(owner, full_state(count)), ("Sysvar1111111111111111111111111111111111111", bytes(40))]
        )
        table = answer([(owner, membership)] * count)

        def read(poll: bytes = poll) -> None:
            data = json.loads(poll)["result"]["value"][0]["data"][0]
            view = ChainView.of(
                RunState.from_account(base64.b64decode(data, validate=True), owner=COORDINATOR_ID, slot=1)
            )
            assert len(view.slots) == len(view.rounds[-1].committed)

        def read_table(table: bytes = table) -> None:
            for value in json.loads(table)["result"]["value"]:
                data = base64.b64decode(value["data"][0])
                decode_membership(Account(Pubkey.default(), COORDINATOR_ID, 1, data, 1))

        found[str(count)] = {
            "account_bytes": len(full_state(count)),
            "poll_bytes": len(poll),
            "poll_cpu_s": _cpu_s(read),
            "table_bytes": len(table) + count * 64,
            "table_cpu_s": _cpu_s(read_table, 5),
        }
    return found


def training(size: str = "20M", peers: Sequence[int] = (2, 8, 16), rounds: int = 3) -> dict[str, Any]:
    """CPU seconds, one thread, of what a member does with other members' updates, by number of them."""
    torch.set_num_threads(1)
    rows = {}
    for count in peers:
        with tempfile.TemporaryDirectory() as folder:
            bench = MemberBench(bench_spec(size, topk=4), Path(folder), peers=count, samples=1)
            chosen = {
                name: part
                for name, part in bench.parts().items()
                if name in ("encode", "hash of the blobs", "check as a witness", "fold")
            }
            times = interleave(chosen, rounds=rounds)
            rows[str(count)] = {name: timing.cpu_s for name, timing in times.items()}
            rows[str(count)]["blob_bytes"] = len(bench.blobs[0])
            parameters = bench.trainer.parameters
    return {"size": size, "parameters": parameters, "topk": 4, "peers": rows}


async def _exchange_costs(folder: Path) -> dict[str, float]:
    """CPU seconds of the network process for a stream, for a byte, and for a member that is only connected."""
    async with members(folder, [FAST] * 2, 0.0) as clients:
        await trio.sleep(2)
        await exchange(clients, [SMALL] * 2, number=1)
        quiet, _ = await idle(clients, 6.0)
        pause = trio.current_time()
        spent = [0.0, 0.0]
        count = 60
        for number in range(2, 2 + count):
            spent[0] += sum((await exchange(clients, [SMALL] * 2, number=number)).cpu_s)
        small_s = trio.current_time() - pause
        pause = trio.current_time()
        for number in (100, 101, 102):
            spent[1] += sum((await exchange(clients, [LONG] * 2, number=number)).cpu_s)
        long_s = trio.current_time() - pause
    # each exchange opens one stream each way, which costs both ends; each byte is sent once and received once
    stream = (spent[0] - 2 * quiet * small_s) / (4 * count)
    both = (spent[1] - 2 * quiet * long_s) / (4 * 3 * LONG)
    return {"stream_s": max(0.0, stream), "byte_s": max(0.0, both)}


async def _gossip_costs(folder: Path, count: int, messages: int) -> dict[str, float]:
    """CPU seconds of a member for each message of another, copies of it included, and while nothing happens."""
    async with members(folder, [FAST] * count, 0.0) as clients:
        await trio.sleep(3)
        quiet, quiet_bytes = await idle(clients, 8.0)
        before = [await client.status() for client in clients]
        cpu = [process_cpu_s(client) for client in clients]
        began = trio.current_time()
        for number in range(messages):
            for blob in range(IDS_PER_MESSAGE):
                await clients[0].publish(f"{number} {blob}".encode())
        await trio.sleep(messages * (batch_s(count) + 0.05) + 1.0)
        took_s = trio.current_time() - began
        after = [await client.status() for client in clients]
        spent = [process_cpu_s(client) - start for client, start in zip(clients, cpu, strict=True)]
    others = range(1, count)
    received = sum(after[i].bytes_in - before[i].bytes_in for i in others) / (count - 1)
    mean = statistics.fmean(spent[i] for i in others)
    return {
        "message_s": max(0.0, mean - quiet * took_s) / messages,
        "message_bytes": max(0.0, received - quiet_bytes / 2 * took_s) / messages,
        "idle_s": quiet,
        "idle_bytes": quiet_bytes,
        "members": count,
    }


async def network() -> dict[str, Any]:
    """What the network process costs, measured with real ones."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found: dict[str, Any] = await _exchange_costs(folder / "exchange")
        few = await _gossip_costs(folder / "few", 3, 12)
        many = await _gossip_costs(folder / "many", 10, 24)
    found["gossip"] = many
    per_link = (many["idle_s"] - few["idle_s"]) / (many["members"] - few["members"])
    found["link_s"] = max(0.0, per_link)
    found["base_s"] = max(0.0, few["idle_s"] - per_link * (few["members"] - 1))
    found["link_bytes"] = max(
        0.0, (many["idle_bytes"] - few["idle_bytes"]) / (many["members"] - few["members"])
    )
    return found


def machine() -> dict[str, str]:
    """What it was measured on."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(
            (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model
        )
    except OSError:
        pass
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    return {
        "processor": model,
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "load": f"{load:.1f}",
    }


def measure() -> dict[str, Any]:
    """Everything; one to two minutes."""
    found = {"machine": machine(), "chain": chain(), "network": trio.run(network)}
    return {**found, "training": training()}
