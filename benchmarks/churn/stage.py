"""The stage on which scenarios are played: a chain, one run that never ends, four members, a network to spoil.

Starting a member costs seconds of CPU, so scenarios share a stage: each begins with all members in training and
ends with `Stage.settle`, which pauses the run and compares everything.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio
from solders.keypair import Keypair

from benchmarks.churn.checks import Problem, broken_promises
from localnet.chain.process import ChainProcess
from localnet.faults.links import Fabric
from localnet.run import chain_side
from localnet.run.badnet import NOTHING_BAD, open_bad_network
from localnet.run.members import Member
from localnet.run.progress import MemberProgress
from psyche_chain.admin.create import create_run
from psyche_chain.admin.manage import set_paused
from psyche_chain.admin.session import Session, open_session
from psyche_chain.chain import accounts
from psyche_chain.chain.accounts import Run
from psyche_chain.chain.state import Phase, RunState, Slot, SlotStatus
from psyche_chain.config import RunConfig, load_config
from psyche_chain.wallet import new_wallet

ROOT = Path(__file__).resolve().parents[2]
CONFIG = Path(__file__).with_name("run.toml")
TIERS = (0, 0, 1, 1)
POLL_S = 0.05


@dataclass
class Actor(Member):
    """A member of the stage: what `psyche-localnet run` starts, with more ways to be hurt."""

    extra_env: dict[str, str] = field(default_factory=dict)

    def start(self) -> None:
        with _environment(self.extra_env):
            super().start()

    @property
    def index(self) -> int:
        return self.progress.index

    @property
    def is_up(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def events(self, kind: str | None = None, *, since: float = 0.0) -> list[dict[str, Any]]:
        """What the member wrote down, oldest first; torn lines are left out."""
        path = self.state_dir / "events.jsonl"
        found = []
        for line in path.read_bytes().splitlines() if path.exists() else []:
            with suppress(ValueError):
                event = json.loads(line)
                if kind in (None, event["event"]) and event["t"] >= since:
                    found.append(event)
        return found

    def signal_all(self, number: signal.Signals) -> None:
        """To the member's whole process group: client, network, ranks."""
        assert self.process is not None
        os.killpg(self.process.pid, number)

    def end_at_once(self) -> None:
        """Kill the whole group, whatever state it is in."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                self.signal_all(signal.SIGKILL)
            self.process.wait()

    @contextmanager
    def frozen(self) -> Any:
        """Stopped as long as the context lasts, as a machine is that sleeps."""
        self.signal_all(signal.SIGSTOP)
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                self.signal_all(signal.SIGCONT)


@contextmanager
def _environment(extra: dict[str, str]) -> Any:
    before = {name: os.environ.get(name) for name in extra}
    os.environ.update(extra)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@dataclass
class Stage:
    """Everything that a scenario can see and break."""

    folder: Path
    url: str
    session: Session
    run: Run
    config: RunConfig
    fabric: Fabric
    actors: list[Actor]
    keys: list[Keypair]
    kind: str
    """How the network is spoilt: "proxy" or "packets"."""

    async def state(self) -> RunState:
        return await accounts.fetch_state(self.session.rpc, self.run)

    def slot_of(self, state: RunState, actor: Actor) -> Slot:
        found = state.slot_of(self.keys[actor.index].pubkey())
        assert found is not None, f"{actor.name} has no slot"
        return found

    async def until(
        self, what: str, done: Callable[[RunState], bool], limit_s: float = 120.0, *, may_end: bool = False
    ) -> RunState:
        """Poll until `done`; a member that ends by itself ends the wait, unless it may.

        Raises:
            Problem: not in time, or a member ended.
        """
        state = await self.state()
        with trio.move_on_after(limit_s):
            while True:
                state = await self.state()
                if done(state):
                    return state
                for actor in self.actors:
                    code = None if actor.process is None else actor.process.poll()
                    if code not in (None, 0, -signal.SIGKILL) and not may_end:
                        raise Problem(f"{actor.name} ended with {code}:\n{actor.log_tail()}")
                await trio.sleep(POLL_S)
        last = "\n".join(
            f"  {a.name} ({'up' if a.is_up else 'down'}): {[_short(e) for e in a.events()[-4:]]}"
            for a in self.actors
        )
        raise Problem(f"{what}: not within {limit_s:g} s; {state.phase.label}, step {state.step}\n{last}")

    async def until_steps(self, more: int, limit_s: float = 120.0) -> RunState:
        """Wait until so many steps more are done."""
        goal = (await self.state()).step + more
        return await self.until(f"{more} more steps", lambda s: s.step >= goal, limit_s)

    async def until_trains(self, actor: Actor, since: float, rounds: int = 2, limit_s: float = 150.0) -> None:
        """Wait until a member's updates are committed again."""
        await self.until(
            f"{actor.name} trains again",
            lambda _: len(actor.events("commit", since=since)) >= rounds,
            limit_s,
        )

    async def until_in(self, phase: Phase, limit_s: float = 120.0) -> RunState:
        return await self.until(f"phase {phase.label}", lambda s: s.phase is phase, limit_s)

    async def all_train(self, limit_s: float = 150.0) -> None:
        """Start who is down, and wait until every member is in the epoch and its work is accepted."""
        for actor in self.actors:
            if not actor.is_up:
                actor.start()

        def trained(state: RunState) -> bool:
            active = {s.wallet for s in state.members() if s.status is SlotStatus.ACTIVE and s.ready}
            accepted = {slot for r in state.rounds for slot in r.accepted}
            return (
                state.phase in (Phase.ROUND_TRAIN, Phase.ROUND_WITNESS)
                and active == {key.pubkey() for key in self.keys}
                and accepted == {s.index for s in state.members()}
            )

        await self.until("every member trains", trained, limit_s)

    async def pause(self, limit_s: float = 90.0) -> RunState:
        """End the epoch, with a checkpoint."""
        await set_paused(self.session, self.run, True)
        return await self.until("the run pauses", lambda s: s.phase is Phase.PAUSED, limit_s)

    async def resume(self) -> None:
        await set_paused(self.session, self.run, False)

    async def settle(self, limit_s: float = 120.0) -> list[str]:
        """Pause, let every living member save, compare everything, go on; what is wrong, one sentence each."""
        state = await self.pause(limit_s)
        living = [actor for actor in self.actors if actor.is_up]
        await self.until(
            "all save",
            lambda s: all(any(e["step"] == s.step for e in a.events("checkpoint")) for a in living),
            limit_s,
        )
        found = await trio.to_thread.run_sync(
            broken_promises, self.url, self.run, await self.state(), self.config, [_shown(a) for a in living]
        )
        if state.lost_samples:
            found.append(f"{state.lost_samples} samples were lost")
        await self.resume()
        return found

    def stop_all(self) -> None:
        for actor in self.actors:
            actor.end_at_once()


def _shown(actor: Actor) -> tuple[str, int, Path, str]:
    last = actor.events("checkpoint")[-1]
    return actor.name, actor.progress.tier, Path(last["path"]), last["weights_sha256"]


def _short(event: dict[str, Any]) -> str:
    detail = event.get("message") or event.get("state") or event.get("phase") or event.get("round") or ""
    return f"{event['event']} {detail}".strip()[:160]


@asynccontextmanager
async def open_stage(
    folder: Path, *, seed: int = 0, tiers: Sequence[int] = TIERS, kind: str = "proxy"
) -> AsyncIterator[Stage]:
    """Chain, run and members' wallets; nobody is started yet.

    Args:
        kind: "proxy" for the fault proxy, "packets" for network namespaces (Linux, root).
    """
    await trio.Path(folder).mkdir(parents=True, exist_ok=True)
    folders = [folder / f"member-{i}" for i in range(len(tiers))]
    async with open_bad_network(NOTHING_BAD, folders, seed, packets=kind == "packets") as network:
        chain = ChainProcess(folder / "chain", host=network.chain_host)
        try:
            await trio.to_thread.run_sync(chain.start)
            await trio.to_thread.run_sync(chain.wait_ready)
            creator = new_wallet(folder / "creator.json")
            keys = [new_wallet(folder / f"wallet-{i}.json") for i in range(len(tiers))]
            await chain_side.fund_wallets(chain.url, [(creator, 50), *((key, 10) for key in keys)])
            await chain_side.deploy(chain.url, creator, lambda _line: None)
            async with open_session([chain.url], creator) as session:
                config = load_config(CONFIG)
                run = await create_run(session, config, paused=False, report=lambda _line: None)
                actors = [
                    Actor(
                        progress=MemberProgress(i, tier, str(keys[i].pubkey())),
                        keypair=folder / f"wallet-{i}.json",
                        state_dir=folders[i],
                        run=str(run.key),
                        rpc=chain.url,
                        listen=network.listen(i),
                        announce=network.announced(i),
                        prefix=network.prefix(i),
                    )
                    for i, tier in enumerate(tiers)
                ]
                stage = Stage(folder, chain.url, session, run, config, network.fabric, actors, keys, kind)
                try:
                    yield stage
                finally:
                    stage.stop_all()
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(chain.stop)


def join_by_hand(stage: Stage, actor: Actor, folder: Path, env: dict[str, str]) -> tuple[int, str]:
    """A further `psyche-chain join` with an actor's wallet that is expected to be refused; its status and words."""
    command = [sys.executable, "-m", "psyche_chain", "join", str(stage.run.key), "--rpc", stage.url]
    command += ["--keypair", str(actor.keypair), "--tier", str(actor.progress.tier)]
    command += ["--state-dir", str(folder), "--device", "cpu", "--threads", "1"]
    done = subprocess.run(
        [*actor.prefix, *command],
        capture_output=True,
        text=True,
        timeout=90,
        cwd=ROOT,
        env={**os.environ, "NO_COLOR": "1", **env},
        check=False,
    )
    return done.returncode, done.stderr
