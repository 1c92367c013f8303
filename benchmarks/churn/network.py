"""What the network does to a run. Each scenario spoils it for some rounds, and mends it again."""

from __future__ import annotations

import os
import signal
import time

from benchmarks.churn.checks import Problem
from benchmarks.churn.scenarios import scenario
from benchmarks.churn.stage import Stage
from localnet.faults.links import PERFECT, Link

PARTITION_S = float(os.environ.get("CHURN_PARTITION_S", "60"))
MBIT_S = 125_000.0


async def _spoilt(stage: Stage, links: dict[int, Link], steps: int, limit_s: float = 240.0) -> str:
    """Play some steps over these links; every member must go on training through them."""
    began, first = time.time(), await stage.state()
    for member, link in links.items():
        stage.fabric.set_link(member, link)
    try:
        state = await stage.until_steps(steps, limit_s)
    finally:
        for member in links:
            stage.fabric.set_link(member, PERFECT)
    took = time.time() - began
    rounds = [len(actor.events("commit", since=began)) for actor in stage.actors]
    if not all(rounds):
        raise Problem(f"commits by member: {rounds}; not everybody trained through it")
    return f"{state.step - first.step} steps in {took:.0f} s, commits by member {rounds}"


def _for_all(stage: Stage, link: Link) -> dict[int, Link]:
    return {actor.index: link for actor in stage.actors}


@scenario("loss-30")
async def loss(stage: Stage) -> str:
    """30 % of the packets between any two members are lost."""
    return await _spoilt(stage, _for_all(stage, Link.half_of(loss=0.3)), 6)


@scenario("delay-500")
async def delay(stage: Stage) -> str:
    """500 ms one way between any two members, a second there and back."""
    return await _spoilt(stage, _for_all(stage, Link.half_of(latency_s=0.5, jitter_s=0.05)), 6)


@scenario("rate-limit")
async def rate_limit(stage: Stage) -> str:
    """Every line carries 0.5 Mbit/s in each direction."""
    return await _spoilt(stage, _for_all(stage, Link(up_bytes_s=0.5 * MBIT_S, down_bytes_s=0.5 * MBIT_S)), 6)


@scenario("asymmetric")
async def asymmetric(stage: Stage) -> str:
    """Two members can download fast and upload slowly (10/0.2 Mbit/s, 40 ms), the others are the other way round."""
    slow_up = Link(up_bytes_s=0.2 * MBIT_S, down_bytes_s=10 * MBIT_S, latency_s=0.04)
    slow_down = Link(up_bytes_s=10 * MBIT_S, down_bytes_s=0.2 * MBIT_S, latency_s=0.01)
    return await _spoilt(stage, {0: slow_up, 1: slow_down, 2: slow_up, 3: slow_down}, 6)


@scenario("partition")
async def partition(stage: Stage) -> str:
    """One member is cut off from its peers for a minute (it still sees the chain), then the cut heals."""
    actor = stage.actors[3]
    began = time.time()
    before = await stage.state()
    stage.fabric.partition([actor.index])
    try:
        await stage.until(
            "the partition's time", lambda _: time.time() > began + PARTITION_S, PARTITION_S + 30
        )
        during = (await stage.state()).step - before.step
    finally:
        stage.fabric.heal()
    if during < 2:
        raise Problem(f"the others made {during} steps in {PARTITION_S:.0f} s")
    back = time.time()
    await stage.until_trains(actor, back)
    return f"{PARTITION_S:.0f} s, {during} steps meanwhile; trains {time.time() - back:.0f} s after it healed"


@scenario("split-in-halves")
async def split(stage: Stage) -> str:
    """The members fall into two halves that cannot reach each other, then the cut heals."""
    began = time.time()
    before = await stage.state()
    stage.fabric.partition([0, 2])
    try:
        await stage.until(
            "the partition's time", lambda _: time.time() > began + PARTITION_S / 2, PARTITION_S + 30
        )
        during = (await stage.state()).step - before.step
    finally:
        stage.fabric.heal()
    back = time.time()
    await stage.all_train()
    return f"{PARTITION_S / 2:.0f} s, {during} steps meanwhile; all train {time.time() - back:.0f} s after it healed"


@scenario("half-killed")
async def half_killed(stage: Stage) -> str:
    """Half of the members are killed at once in the middle of a round, a full one among them."""
    victims = [stage.actors[1], stage.actors[3]]
    for actor in victims:
        actor.signal_all(signal.SIGKILL)
    for actor in victims:
        actor.kill()
    state = await stage.until_steps(3)
    back = time.time()
    for actor in victims:
        actor.start()
    for actor in victims:
        await stage.until_trains(actor, back)
    return f"the others went on to step {state.step}; both back after {time.time() - back:.0f} s"


@scenario("network-process-frozen")
async def network_frozen(stage: Stage) -> str:
    """SIGSTOP to one member's network process alone: it is noticed, killed and started again."""
    actor = stage.actors[2]
    pid_file = actor.state_dir / "network.pid"
    pid = int(pid_file.read_text())
    os.kill(pid, signal.SIGSTOP)
    await stage.until("another network process", lambda _: pid_file.read_text() not in ("", str(pid)), 60)
    back = time.time()
    await stage.until_trains(actor, back)
    return f"replaced; trains {time.time() - back:.0f} s after that"
