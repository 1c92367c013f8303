"""Play one plan from its first transaction to the last claim."""

from __future__ import annotations

import hashlib
import logging
import os
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio
from trio._core import _run as trio_run

from localnet.simulator.chain import SimChain
from localnet.simulator.machine import machine
from localnet.simulator.member import Parts, SimMember
from localnet.simulator.peers import Peers
from localnet.simulator.places import where
from localnet.simulator.plan import EVERYBODY, GLOBAL, Fault, Plan
from localnet.simulator.referee import MAX_TASKS, Referee, Violation
from localnet.simulator.threads import host, simulated_threads
from localnet.simulator.time import SimClock
from localnet.simulator.weather import Weather
from psyche_chain.client.view import Phase
from psyche_chain.errors import PsycheError

LIMIT_S = 2000.0
"""A run whose faults are over is finished within this time; without faults it takes about 300 s."""
CHECK_S = 5.0


@dataclass(slots=True)
class Outcome:
    """How a schedule went."""

    plan: Plan
    violations: list[Violation]
    digest: str
    """Of everything that happened, in order: two plays of one plan have the same."""
    seconds: float
    """Simulated time."""
    cpu_s: float
    awaits: int
    met: Counter[str]
    """Faults that really began."""
    places: Counter[tuple[str, str]]
    """Kind of fault and await point of the client at which one began."""
    events: Counter[str]
    trace: list[str] = field(default_factory=list)

    @property
    def signature(self) -> str:
        """The first thing that went wrong; empty if nothing did."""
        return self.violations[0].kind if self.violations else ""


class Trace:
    """What happened, with its simulated time."""

    def __init__(self, keep: bool) -> None:
        self._hash = hashlib.sha256()
        self._keep = keep
        self.lines: list[str] = []

    def __call__(self, line: str) -> None:
        line = f"{trio.current_time() - START_S:9.3f} {line}"
        self._hash.update(line.encode() + b"\n")
        if self._keep:
            self.lines.append(line)

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()


START_S = 0.0


class _Injector(trio.abc.Instrument):
    """Counts the await points of every member and lets faults begin at theirs."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        member = task.context.get(host)
        if isinstance(member, SimMember):
            self._schedule.stepped(member, task)


class Schedule:
    """One play of one plan."""

    def __init__(self, plan: Plan, folder: Path, parts: Parts, *, keep_trace: bool) -> None:
        self.plan = plan
        self.trace = Trace(keep_trace)
        self._rng = random.Random(f"{plan.seed} world")
        self._weather = Weather()
        self._peers = Peers(self._weather, self._rng)
        self._scope = trio.CancelScope()
        self.referee = Referee(plan, self._peers.published, self._scope.cancel, self.trace)
        self._peers.on_serve = self.referee.served
        self.members = [SimMember(n, plan, folder, self.referee, parts) for n in range(len(plan.tiers))]
        self._waiting: dict[int, list[Fault]] = {n: [] for n in range(EVERYBODY, len(self.members))}
        for fault in sorted(plan.faults, key=lambda f: -f.at):
            if fault.member in self._waiting:
                self._waiting[fault.member].append(fault)
        self.awaits = 0
        self.met: Counter[str] = Counter()
        self.places: Counter[tuple[str, str]] = Counter()
        self._at_places: list[Fault] = []
        """Faults that wait for somebody to come to their place."""
        self._calm_at = 0.0
        """When the faults that began are over."""
        self._nursery: trio.Nursery | None = None

    def stepped(self, member: SimMember, task: trio.lowlevel.Task) -> None:
        """A task of a member has yielded."""
        self.awaits += 1
        member.awaits += 1
        for key, count in ((member.number, member.awaits), (EVERYBODY, self.awaits)):
            waiting = self._waiting[key]
            while waiting and waiting[-1].at <= count:
                fault = waiting.pop()
                if fault.place:
                    self._at_places.append(fault)
                else:
                    self._begin(fault, member, where(task))
        if self._at_places:
            self._look_at_places(member, where(task))

    def _look_at_places(self, member: SimMember, here: list[str]) -> None:
        for fault in self._at_places:
            if fault.place in here and fault.member in (EVERYBODY, member.number):
                self._at_places.remove(fault)
                self._begin(fault, member, here)
                return

    def _begin(self, fault: Fault, member: SimMember, here: list[str]) -> None:
        try:
            self.met[fault.kind] += 1
            self.trace(f"FAULT {fault}")
            self._calm_at = max(self._calm_at, trio.current_time() + fault.for_s)
            if fault.kind not in GLOBAL:
                self.places.update((fault.kind, place) for place in here)
                member.meet(fault)
            else:
                self._weather.begin(fault)
                assert self._nursery is not None
                self._nursery.start_soon(self._whole_run, fault)
        except Exception as error:  # an instrument that raises is switched off without a word
            self.referee.wrong("simulator", f"{fault}: {error!r}")

    async def _whole_run(self, fault: Fault) -> None:
        """A fault of the chain or its operator, until it is over."""
        host.set(None)
        clock, rng = self.chain.clock, random.Random(fault.arg)
        match fault.kind:
            case "halt":
                self.chain.moment()
                clock.halted = True
                await trio.sleep(fault.for_s)
                self.chain.moment()
                clock.halted = False
            case "drift":
                self.chain.moment()
                clock.rate = rng.choice((0.5, 0.75, 1.25, 2.0))
                await trio.sleep(fault.for_s)
                self.chain.moment()
                clock.rate = 1.0
            case "pause":
                await self._steer(True)
                await trio.sleep(fault.for_s)
                await self._steer(False)

    async def _steer(self, paused: bool) -> None:
        while self.chain.clock.halted:
            await trio.sleep(1.0)
        try:
            self.chain.set_paused(paused)
        except PsycheError as error:
            self.trace(f"operator refused: {error}")

    async def play(self) -> None:
        """From the first transaction to the last claim."""
        with self._scope:
            wallets = [m.wallet for m in self.members]
            self.chain = SimChain(machine(), self.plan, wallets)
            self.chain.on_change = self.referee.changed
            self.referee.changed(self.chain.newest)
            async with trio.open_nursery() as self._nursery:
                for member in self.members:
                    self._nursery.start_soon(self._live, member)
                await self._watch()
                self._nursery.cancel_scope.cancel()
            self._look_at_the_end()

    async def _live(self, member: SimMember) -> None:
        assert self._nursery is not None
        try:
            await member.live(self.chain, self._peers, self._nursery)
        except* Exception as group:
            leaf: BaseException = group
            while isinstance(leaf, BaseExceptionGroup):
                leaf = leaf.exceptions[0]
            self.referee.wrong("exception", f"member {member.number}: {leaf!r}")

    async def _watch(self) -> None:
        """Until all members are done; too long without a fault is a violation."""
        while not all(m.is_done for m in self.members):
            await trio.sleep(CHECK_S)
            now = trio.current_time()
            for member in self.members:
                broke = member.weather.has("broke")
                self.chain.set_lamports(member.wallet.pubkey(), 1 if broke else 10**12)
            if now > max(self._calm_at, 0.0) + LIMIT_S:
                phase = self.chain.newest.view.phase
                self.referee.wrong("stuck", f"the run is still in {phase.label}: " + self._state())
            tasks = trio.lowlevel.current_statistics().tasks_living
            if tasks > MAX_TASKS * len(self.members):
                self.referee.wrong("leak", f"{tasks} tasks live")

    def _state(self) -> str:
        return ", ".join(
            f"member {m.number} {'done' if m.is_done else 'at step ' + str(m.model.position.step if m.model else None)}"
            for m in self.members
        )

    def _look_at_the_end(self) -> None:
        view = self.chain.newest.view
        if view.phase is not Phase.FINISHED:
            self.referee.wrong("stuck", f"everybody is done and the run is in {view.phase.label}")
        for member in self.members:
            if member.missed_the_end:
                continue
            if member.model is None or member.model.position.history != view.history:
                self.referee.wrong("weights", f"member {member.number} is done, not at the end of the log")
        self.referee.look_at_samples()
        for member in self.members:
            wallet = member.wallet.pubkey()
            if any(s.wallet == wallet for s in view.slots.values()):
                self.referee.look_at_pay(bytes(wallet), self.chain.claim(wallet))


def play(plan: Plan, *, parts: Parts | None = None, keep_trace: bool = False) -> Outcome:
    """Play a plan; the same plan always gives the same outcome."""
    base = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="psyche-sim-", dir=base if os.access(base, os.W_OK) else None))
    began = time.process_time()
    schedule = Schedule(plan, folder, parts or Parts(), keep_trace=keep_trace)
    try:
        clock = SimClock()
        with _deterministic(plan.seed), simulated_threads(clock), _quiet():
            trio.run(
                schedule.play, clock=clock, instruments=[_Injector(schedule)], strict_exception_groups=True
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Outcome(
        plan=plan,
        violations=schedule.referee.violations,
        digest=schedule.trace.digest,
        seconds=schedule.chain.shown[-1].since_s,
        cpu_s=time.process_time() - began,
        awaits=schedule.awaits,
        met=schedule.met,
        places=schedule.places,
        events=schedule.referee.events,
        trace=schedule.trace.lines,
    )


@contextmanager
def _deterministic(seed: int) -> Iterator[None]:
    """Trio orders what is runnable by a seeded draw, as it does for Hypothesis."""
    switch = "_ALLOW_DETERMINISTIC_SCHEDULING"  # `Final` for type checkers; pytest-trio sets it too
    before = getattr(trio_run, switch)
    setattr(trio_run, switch, True)
    state = trio_run._r.getstate()
    trio_run._r.seed(seed)
    try:
        yield
    finally:
        setattr(trio_run, switch, before)
        trio_run._r.setstate(state)


@contextmanager
def _quiet() -> Iterator[None]:
    """What members log is of no use without their processes; the trace has their events."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)
