"""What members do to a run: each scenario breaks something, and says what it saw.

A scenario finds all members in training. It leaves every process running; the table is compared afterwards.
"""

from __future__ import annotations

import re
import shutil
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

import trio
from solders.system_program import TransferParams, transfer

from benchmarks.churn.checks import Problem
from benchmarks.churn.stage import Actor, Stage, join_by_hand
from localnet.run import chain_side
from psyche_chain.admin.session import open_session
from psyche_chain.admin.update import update_run
from psyche_chain.chain import queries
from psyche_chain.chain.state import Phase, RunState, SlotStatus
from psyche_chain.cli import exit_codes
from psyche_chain.config import RunConfig

Play = Callable[[Stage], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """One entry of the table."""

    name: str
    play: Play
    needs: str = ""
    """Why it cannot be played here; empty where it can."""

    @property
    def about(self) -> str:
        return (self.play.__doc__ or "").split("\n")[0]


SCENARIOS: dict[str, Scenario] = {}


def scenario(name: str, needs: str = "") -> Callable[[Play], Play]:
    """Put a function on the table."""

    def add(play: Play) -> Play:
        assert name not in SCENARIOS
        SCENARIOS[name] = Scenario(name, play, needs)
        return play

    return add


async def _end(stage: Stage, actor: Actor, limit_s: float = 40.0) -> None:
    """SIGTERM, and a good end."""
    assert actor.process is not None
    actor.process.send_signal(signal.SIGTERM)
    await stage.until(f"{actor.name} ends", lambda _: not actor.is_up, limit_s)
    if actor.process.returncode != 0:
        raise Problem(f"{actor.name} left with exit status {actor.process.returncode}:\n{actor.log_tail()}")


@scenario("leave-and-return")
async def leave_and_return(stage: Stage) -> str:
    """SIGTERM to a member: it leaves in good order, the others go on, it returns to its slot and trains."""
    actor = stage.actors[3]
    slot = stage.slot_of(await stage.state(), actor).index
    await _end(stage, actor)
    state = await stage.until_steps(3)
    status = stage.slot_of(state, actor).status
    if status is not SlotStatus.DEPARTED:
        raise Problem(f"the one who left is {status.name}")
    back = time.time()
    actor.start()
    await stage.until_trains(actor, back)
    if stage.slot_of(await stage.state(), actor).index != slot:
        raise Problem("it came back to another slot")
    return "left with exit status 0, back in its slot"


async def _killed(stage: Stage, victim: Actor, phase: str) -> str:
    """Kill, let the others go on, start again, wait until its work counts again."""
    victim.kill()
    state = await stage.until_steps(2)
    back = time.time()
    victim.start()
    await stage.until_trains(victim, back)
    return (
        f"killed in {phase}, the others went on to step {state.step}, back after {time.time() - back:.0f} s"
    )


@scenario("kill-in-warmup")
async def kill_in_warmup(stage: Stage) -> str:
    """kill -9 in Warmup, which another member holds open by not being ready."""
    victim, holder = stage.actors[2], stage.actors[3]
    await stage.pause()
    with holder.frozen():
        await stage.resume()
        await stage.until_in(Phase.WARMUP)
        victim.kill()
    return await _killed(stage, victim, "Warmup")


@scenario("kill-before-commit")
async def kill_before_commit(stage: Stage) -> str:
    """kill -9 in RoundTrain before the victim's commit: its samples are handed out again."""
    victim = stage.actors[1]
    tries = 0
    while True:
        tries += 1
        number = (await stage.state()).next_round
        await stage.until("a new round", lambda s, n=number: s.next_round > n)
        victim.signal_all(signal.SIGSTOP)
        state = await stage.state()
        if _owes(stage, state, victim):
            break
        victim.signal_all(signal.SIGCONT)
        if tries > 50:
            raise Problem("it always commits before it can be stopped")
    victim.kill()
    state = await stage.state()
    if state.phase is Phase.ROUND_TRAIN and not _owes(stage, state, victim):
        raise Problem("it committed after all")
    return await _killed(stage, victim, "RoundTrain before its commit")


def _owes(stage: Stage, state: RunState, actor: Actor) -> bool:
    """Whether the open round waits for this member's commit."""
    round_, slot = state.current, stage.slot_of(state, actor).index
    return (
        state.phase is Phase.ROUND_TRAIN and round_ is not None and slot in round_.assigned - round_.committed
    )


def _has_committed(stage: Stage, state: RunState, actor: Actor) -> bool:
    round_, slot = state.current, stage.slot_of(state, actor).index
    return state.phase is Phase.ROUND_TRAIN and round_ is not None and slot in round_.committed


@scenario("kill-after-commit")
async def kill_after_commit(stage: Stage) -> str:
    """kill -9 in RoundTrain after the victim's commit, before its blob may be served: only its disk has it."""
    victim, holder = stage.actors[2], stage.actors[3]
    with holder.frozen():
        await stage.until(
            "a round that waits for another",
            lambda s: _owes(stage, s, holder) and _has_committed(stage, s, victim),
        )
        victim.kill()
    return await _killed(stage, victim, "RoundTrain after its commit")


@scenario("kill-in-witness")
async def kill_in_witness(stage: Stage) -> str:
    """kill -9 in RoundWitness, which another member holds open."""
    victim, holder = stage.actors[0], stage.actors[3]
    for _ in range(5):
        await stage.all_train()
        with holder.frozen(), suppress(Problem):
            await stage.until_in(Phase.ROUND_WITNESS, 12)
            victim.kill()
            break
    else:
        raise Problem("RoundWitness was never seen, though a witness did not attest")
    return await _killed(stage, victim, "RoundWitness")


@scenario("kill-in-cooldown")
async def kill_in_cooldown(stage: Stage) -> str:
    """kill -9 in Cooldown, before the checkpoint is agreed."""
    victim, holders = stage.actors[0], stage.actors[1:3]
    await stage.until_in(Phase.COOLDOWN)
    # The vote needs more than half: with two members stopped it waits.
    with holders[0].frozen(), holders[1].frozen():
        victim.kill()
    return await _killed(stage, victim, "Cooldown")


@scenario("uploader-dies")
async def uploader_dies(stage: Stage) -> str:
    """kill -9 of the member that was elected to record the checkpoint: another full member does it."""
    state = await stage.until(
        "an elected uploader", lambda s: s.phase is Phase.COOLDOWN and s.uploader is not None
    )
    slot = state.uploader
    victim = next(a for a in stage.actors if stage.slot_of(state, a).index == slot)
    victim.kill()
    asked = state.pending.uri or state.checkpoint.uri
    state = await stage.until("the epoch ends", lambda s: s.phase is not Phase.COOLDOWN, 60)
    done = await _back_again(stage, victim)
    if state.checkpoint.step != state.step:
        raise Problem(f"no checkpoint was recorded at step {state.step}: {done}")
    how = "another" if state.checkpoint.uri != asked else "the victim, just before it died,"
    return f"{how} recorded the checkpoint of step {state.step}; {done}"


async def _back_again(stage: Stage, victim: Actor) -> str:
    back = time.time()
    victim.start()
    await stage.until_trains(victim, back)
    return f"back after {time.time() - back:.0f} s"


@scenario("asleep")
async def asleep(stage: Stage) -> str:
    """A machine sleeps for three rounds (SIGSTOP to all its processes) and wakes up as the same process."""
    actor = stage.actors[2]
    assert actor.process is not None
    pid = actor.process.pid
    with actor.frozen():
        await stage.until_steps(3)
    back = time.time()
    await stage.until_trains(actor, back)
    if actor.process.pid != pid or not actor.is_up:
        raise Problem("it had to be started again")
    return f"trains again {time.time() - back:.0f} s after it woke up"


@scenario("out-of-sol")
async def out_of_sol(stage: Stage) -> str:
    """A wallet runs out of SOL in the middle of an epoch: told, the others go on; with SOL again it trains."""
    actor, key = stage.actors[3], stage.keys[3]
    began = time.time()
    async with open_session([stage.url], key) as session:
        balance = await queries.get_balance(session.rpc, key.pubkey())
        # Leave the rent-exempt minimum less than a fee: nothing can be paid any more.
        rest = await queries.rent_exempt(session.rpc, 0)
        creator = stage.session.sender.wallet
        move = transfer(
            TransferParams(from_pubkey=key.pubkey(), to_pubkey=creator, lamports=balance - rest - 100_000)
        )
        await session.sender.send([move], label="empty the wallet")
    told = re.compile(r"SOL|lamports|funds", re.I)
    await stage.until(
        "it says that it has no SOL",
        lambda _: any(told.search(e["message"]) for e in actor.events("error", since=began)),
        90,
    )
    said = next(e["message"] for e in actor.events("error", since=began) if told.search(e["message"]))
    await stage.until_steps(3)
    back = time.time()
    await chain_side.fund_wallets(stage.url, [(key, 5)])
    await stage.until_trains(actor, back)
    return f'said "{said[:110]}"; trains again {time.time() - back:.0f} s after it was paid'


@scenario("disk-full")
async def disk_full(stage: Stage) -> str:
    """A full disk (files cannot grow: RLIMIT_FSIZE): told, nothing torn; with room again the member goes on."""
    import resource

    actor = stage.actors[2]
    assert actor.process is not None
    pid = actor.process.pid
    pids = [pid, int((actor.state_dir / "network.pid").read_text())]
    before = [resource.prlimit(p, resource.RLIMIT_FSIZE) for p in pids]
    for p in pids:
        resource.prlimit(p, resource.RLIMIT_FSIZE, (0, before[0][1]))
    await stage.until_steps(4)
    if not actor.is_up:
        raise Problem(f"it ended: {actor.process.returncode}\n{actor.log_tail()}")
    for p, limits in zip(pids, before, strict=True):
        with suppress(ProcessLookupError):
            resource.prlimit(p, resource.RLIMIT_FSIZE, limits)
    back = time.time()
    await stage.until_trains(actor, back)
    if "Traceback" in actor.log_tail(400):
        raise Problem(f"it showed a traceback:\n{actor.log_tail(30)}")
    return f"the same process trains again {time.time() - back:.0f} s after there was room"


CLOCK = """
import datetime, os, time
_by = float(os.environ["CHURN_CLOCK_BY"])
_time, _ns = time.time, time.time_ns
time.time = lambda: _time() + _by
time.time_ns = lambda: _ns() + int(_by * 1e9)
"""


@scenario("clocks-wrong")
async def clocks_wrong(stage: Stage) -> str:
    """One member's clock is ten minutes behind, another's ten minutes ahead (time.time of all its processes)."""
    hook = stage.folder / "hook"
    hook.mkdir(exist_ok=True)
    (hook / "sitecustomize.py").write_text(CLOCK)
    wrong = [(stage.actors[1], -600.0), (stage.actors[2], 600.0)]
    try:
        for actor, by in wrong:
            await _end(stage, actor)
            actor.extra_env = {"PYTHONPATH": str(hook), "CHURN_CLOCK_BY": str(by)}
            actor.start()
        back = time.time()
        for actor, by in wrong:
            await stage.until_trains(actor, back + by, rounds=3)
        found = await stage.settle()
        if found:
            raise Problem("; ".join(found))
    finally:
        for actor, _ in wrong:
            actor.extra_env = {}
            if actor.is_up:
                await _end(stage, actor)
            actor.start()
    await stage.all_train()
    return "both train with wrong clocks, weights equal"


@scenario("same-wallet")
async def same_wallet(stage: Stage) -> str:
    """A second process with a wallet that is in use is refused in one sentence; the first trains on."""
    actor = stage.actors[1]
    code, said = await trio.to_thread.run_sync(join_by_hand, stage, actor, stage.folder / "second", {})
    if code != exit_codes.ERROR or "with the same wallet" not in said or "Traceback" in said:
        raise Problem(f"the second process ended with {code}: {said[-300:]}")
    await stage.until_trains(actor, time.time())
    return f'exit status {code}: "{said.strip().splitlines()[0][:110]}"'


@scenario("everyone-leaves")
async def everyone_leaves(stage: Stage) -> str:
    """All leave, the members of tier 1 lose their disks; all return and go on from the agreed checkpoint."""
    state = await stage.pause()
    step = state.checkpoint.step
    for actor in stage.actors:
        await _end(stage, actor)
    for actor in stage.actors[2:]:
        shutil.rmtree(actor.state_dir)
    await stage.resume()
    await stage.all_train()
    state = await stage.until_steps(2)
    if state.step < step:
        raise Problem(f"the run went back to step {state.step} behind its checkpoint of step {step}")
    took = [bool(actor.events("restore")) for actor in stage.actors[2:]]
    if not all(took):
        raise Problem(f"who lost its disk did not take the checkpoint: {took}")
    return f"goes on from step {step}, both newcomers took the checkpoint from peers"


@scenario("last-peer-lost")
async def last_peer_lost(stage: Stage) -> str:
    """All members are killed, one after the other, in the middle of an epoch; all come back from their disks."""
    for actor in stage.actors[:-1]:
        actor.kill()
    number = (await stage.state()).next_round
    await stage.until("the last one goes on alone", lambda s: s.next_round > number + 1, 60)
    stage.actors[-1].kill()
    step = (await stage.state()).step
    await stage.all_train()
    state = await stage.state()
    if state.step < step:
        raise Problem(f"the run went back from step {step} to {state.step}")
    return f"stopped at step {step}, goes on at {state.step}"


@scenario("pause-and-resume")
async def pause_and_resume(stage: Stage) -> str:
    """The operator pauses: the epoch ends in a checkpoint, members wait; resumed, all train on from there."""
    state = await stage.pause()
    if state.checkpoint.step != state.step or not state.checkpoint.uri:
        raise Problem("the pause left no agreed checkpoint of the last step")
    step, pids = state.step, [a.process and a.process.pid for a in stage.actors]
    await stage.resume()
    await stage.all_train()
    if pids != [a.process and a.process.pid for a in stage.actors]:
        raise Problem("a member had to be started again")
    return f"paused at step {step} with an agreed checkpoint, resumed by the same processes"


@scenario("version-gate")
async def version_gate(stage: Stage) -> str:
    """The run asks for a newer client: who starts is refused with what to do; members in training stay."""
    actor = stage.actors[3]
    await _end(stage, actor)
    await _set_version(stage, "99.0.0")
    try:
        code, said = await trio.to_thread.run_sync(join_by_hand, stage, actor, actor.state_dir, {})
        if code != exit_codes.VERSION or "99.0.0" not in said or "Traceback" in said:
            raise Problem(f"it ended with {code}: {said[-300:]}")
        await stage.until_steps(2)
    finally:
        await _set_version(stage, "0.1.0")
    back = time.time()
    actor.start()
    await stage.until_trains(actor, back)
    return f'exit status {code}: "{said.strip().splitlines()[0][:110]}"'


async def _set_version(stage: Stage, version: str) -> None:
    config: RunConfig = stage.config.model_copy(update={"min_client_version": version})
    await update_run(stage.session, stage.run, config, dry_run=False, report=lambda _line: None)


@scenario("straggler")
async def straggler(stage: Stage) -> str:
    """A member at a tenth of the speed (stopped nine tenths of the time): the others do not wait for it for ever."""
    actor = stage.actors[3]
    began, first = time.time(), (await stage.state()).step
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_slow_down, actor, 0.1)
        try:
            await stage.until_steps(6, limit_s=120)
        finally:
            nursery.cancel_scope.cancel()
    steps, rounds = (await stage.state()).step - first, len(actor.events("commit", since=began))
    back = time.time()
    await stage.until_trains(actor, back)
    return f"{steps} steps with it slow, it committed in {rounds} of them"


async def _slow_down(actor: Actor, share: float, period_s: float = 0.5) -> None:
    while actor.is_up:
        with actor.frozen():
            await trio.sleep(period_s * (1 - share))
        await trio.sleep(period_s * share)
