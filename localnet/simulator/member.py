"""A member of a schedule: its disk, its process, and how the process is ended and started again.

A crash takes the disk as it is at that await point and lets the tasks go; what their cleanup then writes is
undone, because a killed process cleans nothing up.
"""

from __future__ import annotations

import io
import os
import random
import shutil
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, cast

import trio

from localnet.simulator.chain import SimChain, key_of
from localnet.simulator.model import Position, SimAdapter, SimModel
from localnet.simulator.peers import Disk, Peer, Peers, SimNetwork
from localnet.simulator.plan import Fault, Plan
from localnet.simulator.port import SimPort, SimRpc, SimSender
from localnet.simulator.threads import host
from localnet.simulator.weather import Weather
from psyche_chain.client.acts import Acts
from psyche_chain.client.catchup import CatchUp
from psyche_chain.client.events import EventLog
from psyche_chain.client.loop import Client
from psyche_chain.client.sharing import blob_id_of
from psyche_chain.client.view import GENESIS, PRESENT, ChainView
from psyche_chain.client.weights import Weights
from psyche_train.checkpoints.part_index import PartIndex

LINGER_S = 400.0
SLOW_TRAINING = 10.0
WORK_S = (0.0, 0.05)


@dataclass(frozen=True, slots=True)
class Parts:
    """The classes that a member is made of; tests put broken ones here."""

    client: type[Client] = Client
    acts: type[Acts] = Acts
    catch_up: type[CatchUp] = CatchUp
    weights: type[Weights] = Weights
    model: type[SimModel] = SimModel


class Witnessed(Protocol):
    """Who looks at what members do."""

    expected: dict[bytes, list[bytes]]
    """History -> all parts of the weights at it."""

    def folded(self, member: int, position: Position, parts: Sequence[bytes], tier: int) -> None: ...
    def said(self, member: int, event: dict[str, Any]) -> None: ...
    def updates_between(self, have: Collection[bytes], end: bytes) -> Iterator[bytes]: ...
    def wrong(self, kind: str, message: str) -> None: ...


class SimMember:
    """One wallet, one disk, and at most one process at a time."""

    def __init__(
        self,
        number: int,
        plan: Plan,
        folder: Path,
        referee: Witnessed,
        parts: Parts,
    ) -> None:
        self.number, self.plan, self._referee, self._parts = number, plan, referee, parts
        self.tier, self.weight = plan.tiers[number], plan.weights[number]
        self._top = max(1, *plan.tiers)
        self.wallet = key_of("wallet", number)
        self.weather = Weather()
        self.folder = folder / f"member{number}"
        self.folder.mkdir()
        self.peer = Peer(bytes([number + 1]) * 32, self.folder / "records.log", self.weather, side=number % 2)
        self.awaits = 0
        """Steps that tasks of this member took so far, over all its processes."""
        self.is_done = False
        self.missed_the_end = False
        """It was not there when the run ended, and came back when everybody else had gone."""
        self.starts = 0
        self.model: SimModel | None = None
        self.client: Client | None = None
        self._rng = random.Random(f"{plan.seed} member {number}")
        self._scope: trio.CancelScope | None = None
        self._at_work: dict[trio.CancelScope, Callable[[], Any] | None] = {}
        self._owed: tuple[float, Callable[[], bool]] | None = None
        self._after_crash: tuple[Path | None, Disk] | None = None
        self._down_s = 0.0
        self._lost_its_disk = False
        self._restarts = False

    # its life

    async def live(self, chain: SimChain, peers: Peers, outside: trio.Nursery) -> None:
        """Be a member until the run is finished, over any number of processes."""
        host.set(self)
        peers.all[self.peer.key] = self.peer
        late_s = self.plan.late_s[self.number] if self.plan.late_s else 0.0
        await trio.sleep(late_s + self._rng.uniform(0.0, 5.0))
        while not self.is_done:
            self._restarts = False
            with trio.CancelScope() as self._scope:
                try:
                    await self._process(chain, peers, outside)
                finally:
                    self.peer.up = False
                self.is_done = not self._restarts
            self._scope = None
            self._put_disk_back()
            if not self.is_done:
                await trio.sleep(self._down_s)

    async def _process(self, chain: SimChain, peers: Peers, outside: trio.Nursery) -> None:
        self.starts += 1
        rng = random.Random(f"{self.plan.seed} process {self.number} {self.starts}")
        parts = self._parts
        with EventLog(Path(os.devnull), [lambda event: self._referee.said(self.number, event)]) as events:
            events._file.close()
            events._file = cast(IO[bytes], _Pen(self))
            network = SimNetwork(peers, self.peer, rng, self.edge)
            rpc = SimRpc(chain, self.weather, rng, self.edge)
            sender = SimSender(rpc, self.wallet, self.weather, rng, self.edge, outside)
            port = SimPort(sender, self.wallet, p2p_key=self.peer.key, tier=self.tier, weight=self.weight)
            self.peer.up = True
            self.model = parts.model(self.folder, top=self._top, tier=self.tier, lab=self)
            weights = parts.weights(self.model, self.folder / "records.log", events)
            adapter = SimAdapter(top=self._top, tier=self.tier)
            catch_up = parts.catch_up(weights, network, adapter, self.folder, events, tier=self.tier)
            wallet = self.wallet.pubkey()
            acts = parts.acts(wallet, port, network, weights, adapter, catch_up, events, tier=self.tier)
            self.client = parts.client(
                wallet, port, acts, events, poll_s=self.plan.poll_s, linger_s=LINGER_S, rng=rng
            )
            code = await self.client.run()
        if code != 0:
            self.missed_the_end = self._may_miss_the_end(chain.newest.view, peers)
            if not self.missed_the_end:
                self._referee.wrong("exit", f"member {self.number} ended with status {code}")

    def _may_miss_the_end(self, view: ChainView, peers: Peers) -> bool:
        """Whether nobody had to wait: the others stay for those who are present and did not vote for the end yet.

        Nor can anybody help where faults took the last copy of what leads to the end.
        """
        own = view.slot_of(self.wallet.pubkey())
        if own is None or own.status not in PRESENT:
            return True
        vote = view.rounds[-1].commitments[own.index]
        if self._lost_its_disk and vote == self._referee.expected[view.history][0]:
            return True
        return self._is_cut_off(view, peers)

    def _is_cut_off(self, view: ChainView, peers: Peers) -> bool:
        """Whether, back from the end, an update is on no disk before weights that this member has or could fetch."""
        have = {GENESIS}
        if self.model is not None:
            have.add(self.model.position.history)
        blob = blob_id_of(view.checkpoint.uri) if view.checkpoint.agreed else None
        if blob is not None and peers.keep(blob):
            index = PartIndex.from_bytes(peers.published[blob])
            needed = SimAdapter(top=self._top, tier=self.tier).needed(index)
            if all(peers.keep(name) for part in needed for name, _ in part.blobs):
                have.add(view.checkpoint.history)
        return any(not peers.keep(name) for name in self._referee.updates_between(have, view.history))

    # what happens to it

    def meet(self, fault: Fault) -> None:
        """A fault begins at this await point."""
        match fault.kind:
            case "crash" | "wipe":
                self._crash(fault)
            case "cancel":
                self._end(fault)
                if self._scope is not None:
                    self._scope.cancel()
            case "leave":
                if self._scope is not None and self.client is not None:
                    self._end(fault)
                    self.client.stop()
            case "damage":
                self._damage(random.Random(fault.arg))
            case _:
                self.weather.begin(fault)

    def _damage(self, rng: random.Random) -> None:
        """Some of what is on the disk is not what was written; whoever reads it can tell."""
        self._lost_its_disk = True
        blobs = self.peer.disk.blobs
        for name in sorted(blobs):
            if rng.random() < 0.5:
                blobs[name] = b"damaged " + blobs[name][8:]
        for path in sorted((self.folder / "checkpoints").glob("step-*/model.safetensors")):
            if rng.random() < 0.3:
                path.write_bytes(b"damaged " + path.read_bytes()[8:])

    def _end(self, fault: Fault) -> None:
        self._restarts, self._down_s = True, fault.for_s

    def _crash(self, fault: Fault) -> None:
        if self._scope is None or self._after_crash is not None:
            return
        self._end(fault)
        self._lost_its_disk |= fault.kind == "wipe"
        rng = random.Random(fault.arg)
        self._tear(rng)
        kept = None
        if fault.kind == "crash":
            kept = self.folder.with_suffix(".kept")
            shutil.copytree(self.folder, kept)
        self._after_crash = kept, self.peer.disk.copy() if fault.kind == "crash" else Disk()
        self.peer.up = False
        self._scope.cancel()
        for scope in self._at_work:
            scope.cancel()

    def _tear(self, rng: random.Random) -> None:
        """A call that a thread was in has done some of its writing, or all."""
        for call in list(self._at_work.values()):
            if call is None or rng.random() < 0.5:
                continue
            log = self.peer.log
            before = log.stat().st_size if log.exists() else 0
            try:
                call()
            except Exception:  # the thread died with the process
                continue
            if log.exists() and (grown := log.stat().st_size - before) > 0 and rng.random() < 0.5:
                os.truncate(log, before + rng.randrange(grown))

    def _put_disk_back(self) -> None:
        if self._after_crash is None:
            return
        (kept, disk), self._after_crash = self._after_crash, None
        shutil.rmtree(self.folder)
        if kept is None:
            self.folder.mkdir()
        else:
            kept.rename(self.folder)
        self.peer.disk = disk

    # the simulated process (`threads.Host`, `model.Lab`)

    async def edge(self) -> None:
        """Every call that leaves the process passes here; a process that sleeps makes none."""
        while (left_s := self.weather.left_s("sleep")) > 0:
            await trio.sleep(left_s)
        if self.weather.has("slow"):
            await trio.sleep(self._rng.uniform(0.0, 3.0))

    async def work(self, call: Callable[[], Any], *, abandon: bool) -> Any:
        """See `threads.Host`."""
        with trio.CancelScope(shield=not abandon) as scope:
            self._at_work[scope] = call
            try:
                await self.edge()
                await trio.sleep(self._rng.uniform(*WORK_S))
                self._at_work[scope] = None
                if getattr(getattr(call, "func", None), "__name__", "") == "offered":
                    self.sync()
                result = call()
                await self._take_time()
                return result
            finally:
                del self._at_work[scope]
        await trio.lowlevel.checkpoint()
        assert self._after_crash is not None, "a process that was killed goes on"
        return call()  # cleanup that its caller shields; what it does to the disk is undone

    async def _take_time(self) -> None:
        if self._owed is None:
            return
        (left_s, cancelled), self._owed = self._owed, None
        step_s = left_s / 8
        while left_s > 0 and not cancelled():
            await trio.sleep(step_s)
            left_s -= step_s
        await self.edge()

    def before(self, what: str) -> None:
        if self.weather.has("trainer_error", chance=0.5):
            raise RuntimeError(f"{what}: out of memory")
        if what == "save":
            self.sync()

    def sync(self) -> None:
        """Bring something to the disk."""
        if self.weather.has("disk_full"):
            raise OSError(28, "No space left on device")

    def takes(self, what: str, cancelled: Callable[[], bool]) -> None:
        factor = SLOW_TRAINING if self.weather.has("slow_training") else 1.0
        self._owed = self.plan.train_s * self._rng.uniform(0.7, 1.3) * factor, cancelled

    def folded(self, position: Position, parts: Sequence[bytes], tier: int) -> None:
        self._referee.folded(self.number, position, parts, tier)


class _Pen(io.RawIOBase):
    """What a diary is written with: nothing is kept, but the disk may be full."""

    def __init__(self, member: SimMember) -> None:
        self._member = member

    def write(self, line: Any) -> int:
        self._member.sync()
        return len(line)
