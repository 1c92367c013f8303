"""A run in memory: the coordinator's rules in short, peers in a dictionary, and a model that is a hash.

Enough of the real thing for the member's loop to run against it, with every fault that a test wants.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import trio
from solders.pubkey import Pubkey

from psyche_chain.chain.state import Checkpoint, Phase, RoundStatus, RoundView, Slot, SlotStatus, set_to_bits
from psyche_chain.client.ledger import record_of
from psyche_chain.client.ports import Member, Refused, Snapshot
from psyche_chain.client.view import GENESIS, ChainView
from psyche_train.blobs import BlobCorrupt, blob_id
from psyche_train.checkpoints.part_index import Offered, Part, PartIndex
from psyche_train.network import FetchError
from psyche_train.records import RecordLog, RoundRecord
from tests.client.views import CONFIG, NO_CHECKPOINT, SPEC, member

EMPTY = frozenset[int]()
FAST = replace(
    CONFIG,
    warmup_time=20,
    cooldown_time=10,
    max_round_train_time=3,
    round_witness_time=2,
    waiting_for_members_extra_time=0,
    total_steps=12,
    epoch_time=10**6,
)


class FakeRun:
    """The coordinator, for tests: everybody weighs 1, everybody is a witness, no pay."""

    def __init__(self, *, steps_per_epoch: int = 6, config: Any = FAST) -> None:
        self.steps_per_epoch = steps_per_epoch
        self.slots: dict[int, Slot] = {}
        self.contacts: dict[int, str] = {}
        self.votes: dict[int, frozenset[int]] = {}
        self.digests: dict[int, bytes] = {}
        self.draining = False
        self.ends: dict[int, ChainView] = {}
        """The last state of every slot: what a node that lags behind shows."""
        self.sent: list[tuple[str, int]] = []
        self.view = ChainView(
            nonce=0,
            chain_slot=0,
            phase=Phase.WAITING_FOR_MEMBERS,
            epoch=0,
            step=0,
            next_round=1,
            history=GENESIS,
            spec_hash=SPEC,
            phase_start=self.now,
            epoch_start=self.now,
            config=config,
            checkpoint=NO_CHECKPOINT,
            pending=NO_CHECKPOINT,
        )

    @property
    def now(self) -> int:
        return int(time.time())

    @property
    def slot(self) -> int:
        """Slots are long: many changes happen in one."""
        return int(time.time() * 2.5)

    def change(self, **changes: Any) -> None:
        view = self.view
        self.view = replace(
            view, nonce=view.nonce + 1, chain_slot=self.slot, slots=dict(self.slots), **changes
        )
        self.ends[self.slot] = self.view

    def set_slot(self, index: int, **changes: Any) -> None:
        self.slots[index] = replace(self.slots[index], **changes)
        self.change()

    def set_round(self, number: int, **changes: Any) -> None:
        rounds = tuple(replace(r, **changes) if r.number == number else r for r in self.view.rounds)
        self.change(rounds=rounds)

    def enter(self, phase: Phase, **changes: Any) -> None:
        self.change(phase=phase, phase_start=self.now, **changes)

    def lasted(self, seconds: int) -> bool:
        return self.now >= self.view.phase_start + seconds

    def active(self, slots: Collection[int]) -> bool:
        return any(self.slots[s].status is SlotStatus.ACTIVE for s in slots)

    def attested_round(self) -> RoundView | None:
        before = [r for r in self.view.rounds[:-1] if r.status is RoundStatus.COMMITTED]
        return before[-1] if before else None

    def all_attested(self) -> bool:
        before = self.attested_round()
        return before is None or not self.active(before.witnesses - before.attested)

    def tick(self) -> int:
        made = 0
        while made < 4 and self._transition():
            made += 1
        return made

    def _transition(self) -> bool:
        view, config = self.view, self.view.config
        match view.phase:
            case Phase.WAITING_FOR_MEMBERS:
                if len(view.present()) < config.init_min_clients:
                    return False
                for index, slot in self.slots.items():
                    if slot.status is SlotStatus.WAITING:
                        self.slots[index] = replace(
                            slot, status=SlotStatus.ACTIVE, ready=False, attested=False
                        )
                self.enter(Phase.WARMUP, epoch=view.epoch + 1)
            case Phase.WARMUP:
                if not all(s.ready for s in view.active()) and not self.lasted(config.warmup_time):
                    return False
                self.open(trained=True)
            case Phase.ROUND_TRAIN:
                newest = view.rounds[-1]
                late = newest.assigned - newest.committed
                if (self.active(late) or not self.all_attested()) and not self.lasted(
                    config.max_round_train_time
                ):
                    return False
                for slot in late:
                    self.slots[slot] = replace(self.slots[slot], ready=False)
                self.set_round(newest.number, status=RoundStatus.COMMITTED)
                self.enter(Phase.ROUND_WITNESS)
            case Phase.ROUND_WITNESS:
                if not self.all_attested() and not self.lasted(config.round_witness_time):
                    return False
                if before := self.attested_round():
                    self.close(before)
                if self.draining:
                    self.draining = False
                    self.close(self.view.rounds[-1])
                    self._begin_cooldown()
                else:
                    goes_on = self.view.step % self.steps_per_epoch and self.view.step < config.total_steps
                    self.draining = not goes_on
                    self.open(trained=bool(goes_on))
            case Phase.COOLDOWN:
                recorded = view.pending.agreed and not view.uri_missing
                if not recorded and not self.lasted(config.cooldown_time):
                    return False
                for index, slot in self.slots.items():
                    if slot.status is SlotStatus.ACTIVE:
                        self.slots[index] = replace(
                            slot, status=SlotStatus.WAITING, ready=False, attested=False
                        )
                done = view.step >= config.total_steps
                self.enter(Phase.FINISHED if done else Phase.WAITING_FOR_MEMBERS, uri_missing=False)
            case _:
                return False
        return True

    def open(self, *, trained: bool) -> None:
        view = self.view
        ready = frozenset(s.index for s in view.active() if s.ready)
        if (before := [r for r in view.rounds if r.status is RoundStatus.COMMITTED]) and before[-1].committed:
            self.set_round(before[-1].number, witnesses=ready, attested=EMPTY)
            self.votes = {}
        assigned = ready if trained else EMPTY
        newest = RoundView(
            number=view.next_round,
            step=view.step,
            epoch=view.epoch,
            data_index=12 * view.step,
            opened_at=self.now,
            seed=hashlib.sha256(view.history).digest(),
            assigned=assigned,
            committed=EMPTY,
            witnesses=EMPTY,
            attested=EMPTY,
            accepted=EMPTY,
            assigned_bits=set_to_bits(assigned),
            fills=(),
            samples=12 if trained else 0,
            trained=trained,
            status=RoundStatus.OPEN,
            commitments=(bytes(32),) * 16,
        )
        self.enter(
            Phase.ROUND_TRAIN,
            rounds=(*self.view.rounds[-3:], newest),
            next_round=view.next_round + 1,
            step=view.step + trained,
        )

    def close(self, round_: RoundView) -> None:
        accepted = set()
        for slot in round_.committed:
            others = round_.attested - {slot} or round_.attested
            votes = sum(slot in self.votes.get(w, EMPTY) for w in others)
            if others and votes * 3 >= len(others) * 2:
                accepted.add(slot)
        self.set_round(round_.number, status=RoundStatus.CLOSED, accepted=frozenset(accepted))
        closed = self.view.round(round_.number)
        assert closed is not None
        record = record_of(self.view, closed)
        assert record is not None
        self.change(history=record.next_history(self.view.history))

    def _begin_cooldown(self) -> None:
        view = self.view
        pending = Checkpoint(
            weights_hash=bytes(32),
            history=view.history,
            step=view.step,
            round=view.next_round,
            data_index=12 * view.step,
            epoch=view.epoch,
            agreed=False,
            uri="",
        )
        full = [s.index for s in view.active() if s.tier == 0 and s.ready]
        self.digests = {}
        self.enter(Phase.COOLDOWN, pending=pending, uploader=full[0] if full else None)

    def attest(self, slot: int, digest: bytes) -> None:
        view = self.view
        self.digests[slot] = digest
        self.set_slot(slot, attested=True)
        last = view.rounds[-1]
        row = tuple(self.digests.get(i, c) for i, c in enumerate(last.commitments))
        self.set_round(last.number, commitments=row)
        votes = list(self.digests.values())
        holders = [s for s in self.view.active() if s.ready or s.attested]
        full = any(self.slots[s].tier == 0 for s in self.digests)
        if 2 * votes.count(digest) > len(holders) and full and not self.view.pending.agreed:
            pending = replace(self.view.pending, agreed=True, weights_hash=digest)
            self.change(pending=pending, uri_missing=True)

    def record(self, uri: str) -> None:
        pending = replace(self.view.pending, uri=uri)
        self.change(pending=pending, checkpoint=pending, uri_missing=False)


class FakePort:
    """One member's way to a `FakeRun`; refuses what the program would refuse."""

    def __init__(self, run: FakeRun, wallet: Pubkey, p2p_key: bytes, tier: int) -> None:
        self.run = run
        self.wallet = wallet
        self.p2p_key = p2p_key
        self.tier = tier
        self.lag: Callable[[], bool] = lambda: False

    async def snapshot(self) -> Snapshot:
        run = self.run
        snapshot = Snapshot(replace(run.view, chain_slot=run.slot), run.now)
        if self.lag() and (older := [s for s in run.ends if s < run.slot]):
            snapshot = Snapshot(run.ends[older[-1]], run.now)
        await trio.sleep(0.002)
        return snapshot

    async def members(self) -> list[Member]:
        return [
            Member(s.index, s.wallet, s.p2p_key, self.run.contacts[s.index]) for s in self.run.slots.values()
        ]

    async def _land(self, name: str, slot: int) -> None:
        await trio.sleep(0.02)
        self.run.sent.append((name, slot))

    def _after(self) -> int:
        self.run.tick()
        return self.run.slot

    async def join(self, contact: str) -> int:
        run = self.run
        await self._land("join", -1)
        own = run.view.slot_of(self.wallet)
        if own is not None and own.status in (SlotStatus.WAITING, SlotStatus.ACTIVE):
            raise Refused("AlreadyJoined", "a member already")
        index = own.index if own else len(run.slots)
        run.slots[index] = replace(
            member(index, tier=self.tier, status=SlotStatus.WAITING), wallet=self.wallet, p2p_key=self.p2p_key
        )
        run.contacts[index] = contact
        run.change()
        return self._after()

    async def leave(self, slot: int) -> int:
        await self._land("leave", slot)
        self.run.set_slot(slot, status=SlotStatus.DEPARTED, ready=False)
        return self._after()

    async def update_contact(self, contact: str) -> int:
        own = self.run.view.slot_of(self.wallet)
        assert own is not None
        await self._land("update_contact", own.index)
        self.run.contacts[own.index] = contact
        return self._after()

    async def ready(self, slot: int) -> int:
        await self._land("ready", slot)
        if self.run.slots[slot].ready:
            raise Refused("AlreadyReady", "ready already")
        self.run.set_slot(slot, ready=True)
        return self._after()

    async def commit(self, slot: int, round: int, blob_id: bytes) -> int:
        await self._land("commit", slot)
        newest = self.run.view.rounds[-1]
        if newest.number != round or newest.status is not RoundStatus.OPEN:
            raise Refused("WrongRound", "another round")
        if slot in newest.committed:
            raise Refused("AlreadyCommitted", "committed already")
        row = tuple(blob_id if i == slot else c for i, c in enumerate(newest.commitments))
        self.run.set_round(round, committed=newest.committed | {slot}, commitments=row)
        return self._after()

    async def witness(self, slot: int, round: int, seen: Collection[int]) -> int:
        await self._land("witness", slot)
        before = self.run.attested_round()
        if before is None or before.number != round:
            raise Refused("WrongRound", "another round")
        if slot in before.attested:
            raise Refused("AlreadyAttested", "attested already")
        self.run.votes[slot] = frozenset(seen)
        self.run.set_round(round, attested=before.attested | {slot})
        return self._after()

    async def attest(self, slot: int, step: int, digests: Sequence[bytes]) -> int:
        await self._land("attest", slot)
        if self.run.view.phase is not Phase.COOLDOWN:
            raise Refused("NotCooldown", "no cooldown")
        self.run.attest(slot, digests[0])
        return self._after()

    async def record(self, slot: int, uri: str) -> int:
        await self._land("record", slot)
        if self.run.view.uploader != slot:
            raise Refused("NotUploader", "another one was drawn")
        self.run.record(uri)
        return self._after()

    async def tick(self) -> int:
        await self._land("tick", -1)
        if not self.run.tick():
            raise Refused("NothingDue", "nothing is due")
        return self.run.slot


@dataclass
class FakeMember:
    """What the peers know of one another."""

    blobs: dict[bytes, bytes]
    hidden: dict[bytes, int]
    revealed: int
    log: Path
    up: bool = True


class FakeNetwork:
    """Peers in one dictionary. Blobs are on each member's own disk; a member that is down serves nothing."""

    def __init__(self, peers: dict[bytes, FakeMember], key: bytes, log: Path) -> None:
        self.peers = peers
        self.peer_key = key
        old = peers.get(key)
        peers[key] = FakeMember(old.blobs if old else {}, old.hidden if old else {}, -1, log)
        self.corrupt: set[bytes] = set()
        self.fetched_bytes = 0

    @property
    def own(self) -> FakeMember:
        return self.peers[self.peer_key]

    async def addresses(self) -> list[str]:
        return ["/ip4/127.0.0.1/tcp/" + str(4000 + self.peer_key[0])]

    async def set_members(self, members: Sequence[Any]) -> None:
        self.members = members

    async def publish(self, blob: bytes, hidden_until: int | None = None) -> bytes:
        name = blob_id(blob)
        self.own.blobs[name] = blob
        if hidden_until is not None:
            self.own.hidden[name] = hidden_until
        return name

    async def publish_file(self, path: Path, blob_id: bytes) -> None:
        self.own.blobs[blob_id] = await trio.Path(path).read_bytes()

    async def obtain(
        self, blob_id: bytes, *, deadline_s: float, max_bytes: int, holders: Sequence[bytes] = ()
    ) -> None:
        await self.fetch(blob_id, deadline_s=deadline_s, max_bytes=max_bytes)

    def path(self, blob_id: bytes) -> Path:
        path = self.own.log.parent / "blobs" / blob_id.hex()
        path.unlink(missing_ok=True)
        if blob_id in self.own.blobs:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.own.blobs[blob_id])
        return path

    async def verify(self, name: bytes) -> None:
        if blob_id(self.own.blobs[name]) != name:
            del self.own.blobs[name]
            raise BlobCorrupt(f"blob {name.hex()} was damaged")

    async def reveal(self, round: int) -> None:
        self.own.revealed = max(self.own.revealed, round)

    async def fetch(
        self, blob_id: bytes, *, deadline_s: float, max_bytes: int, holders: Sequence[bytes] = ()
    ) -> bytes:
        if blob_id in self.own.blobs:
            return self.own.blobs[blob_id]
        with trio.move_on_after(deadline_s):
            while True:
                await trio.sleep(0.01)
                for peer in self.peers.values():
                    if peer.up and blob_id in peer.blobs and peer.hidden.get(blob_id, -1) <= peer.revealed:
                        self.own.blobs[blob_id] = peer.blobs[blob_id]
                        self.fetched_bytes += len(peer.blobs[blob_id])
                        return peer.blobs[blob_id]
        raise FetchError(blob_id, "nobody has it", {})

    async def fetch_log(
        self, after: bytes, *, deadline_s: float, peers: Sequence[bytes] = ()
    ) -> list[list[RoundRecord]]:
        await trio.sleep(0.01)
        asked = [p for k, p in self.peers.items() if k != self.peer_key and (not peers or k in peers)]
        others = [p for p in asked if p.up and p.log.exists()]
        chains = [RecordLog(p.log, read_only=True).after(after) for p in others]
        return [c for c in chains if c]

    async def prune(self, keep: Collection[bytes]) -> None:
        for name in [b for b in self.own.blobs if b not in keep]:
            del self.own.blobs[name]


@dataclass(frozen=True)
class FakePosition:
    """Where a `FakeModel` is in the log."""

    history: bytes
    step: int


@dataclass(frozen=True)
class FakeJob:
    """What a `FakeModel` trains."""

    round: int
    slot: int


@dataclass(frozen=True)
class FakeResult:
    """What training gave."""

    blob: bytes
    loss: float = 1.0
    tokens: int = 1
    seconds: float = 0.0


class FakeModel:
    """Weights are a hash of everything that was folded; a checkpoint is a file with the hash in it."""

    parameters = 1
    max_update_bytes = 1000
    data: Any = SimpleNamespace(missing=(), blobs=frozenset(), offers=list, refresh=lambda: None)

    def __init__(self, state_dir: Path, *, train_s: float = 0.02) -> None:
        self.folder = state_dir / "checkpoints"
        self.train_s = train_s
        self.reset()
        self.load()

    def reset(self) -> None:
        self.position = FakePosition(GENESIS, 0)
        self.weights = b"init"

    def load(self) -> None:
        paths = sorted(self.folder.glob("step-*"))
        if paths:
            history = bytes.fromhex((paths[-1] / "history").read_text())
            self.restore(paths[-1], FakePosition(history, int(paths[-1].name[5:13])))

    def train(self, job: FakeJob, cancelled: Callable[[], bool]) -> FakeResult | None:
        end = time.monotonic() + self.train_s
        while time.monotonic() < end:
            if cancelled():
                return None
            time.sleep(0.005)
        return FakeResult(b"update" + self.weights + bytes([job.slot]) + job.round.to_bytes(8, "little"))

    def check(self, blob: bytes, header: Any) -> None:
        if not blob.startswith(b"update"):
            raise ValueError("not an update")

    def fold(self, record: RoundRecord, blobs: Mapping[int, bytes], own_slot: int | None) -> None:
        assert set(blobs) == {a.slot for a in record.accepted}
        for accepted in record.accepted:
            assert blob_id(blobs[accepted.slot]) == accepted.commitment
            self.weights = hashlib.sha256(self.weights + blobs[accepted.slot]).digest()
        self.position = FakePosition(
            record.next_history(self.position.history), self.position.step + record.trained
        )

    def digests(self) -> list[bytes]:
        return [hashlib.sha256(self.weights).digest()]

    def weights_hash(self) -> bytes:
        return self.digests()[0]

    def save(self) -> Path:
        path = self.folder / f"step-{self.position.step:08d}-{self.position.history.hex()[:8]}"
        path.mkdir(parents=True, exist_ok=True)
        (path / "history").write_text(self.position.history.hex())
        (path / "position.json").write_text(json.dumps({"history": self.position.history.hex()}))
        (path / "model.safetensors").write_bytes(self.weights)
        return path

    def pin(self, path: Path | None) -> None:
        self.pinned = path

    def restore(self, path: Path, position: FakePosition) -> None:
        self.weights = (path / "model.safetensors" if path.is_dir() else path).read_bytes()
        self.position = position

    def validation_loss(self) -> float:
        return 1.0


class FakeEvals:
    """An evaluation without end, in slices of `slice_s`."""

    def __init__(self, slice_s: float = 0.01) -> None:
        self.slice_s = slice_s
        self.began: list[int] = []
        """Steps of all slices."""
        self.results: dict[int, dict[str, Any]] = {}
        """What a slice finishes, by its number."""

    def is_due(self, step: int) -> bool:
        return not any("error" in self.results.get(n, {}) for n in range(len(self.began)))

    def slice(self, step: int) -> dict[str, Any] | None:
        self.began.append(step)
        time.sleep(self.slice_s)
        return self.results.get(len(self.began) - 1)


class FakeAdapter:
    """The fakes' own types."""

    def job(self, round_: RoundView, slot: int, tier: int, share: Sequence[range]) -> FakeJob:
        assert sum(len(r) for r in share) > 0
        return FakeJob(round_.number, slot)

    def expected(self, round_: RoundView, slot: int, tier: int, share: Sequence[range]) -> None:
        return None

    def position_of(self, checkpoint: Checkpoint) -> FakePosition:
        return FakePosition(checkpoint.history, checkpoint.step)

    def offered(self, path: Path, folder: Path) -> list[Offered]:
        data = (path / "model.safetensors").read_bytes()
        (folder / "part").write_bytes(data)
        part = Part(hashlib.sha256(data).digest(), ((blob_id(data), len(data)),))
        return [Offered(part, (folder / "part",))]

    def is_full(self, index: PartIndex) -> bool:
        return len(index.parts) == 1

    def needed(self, index: PartIndex) -> tuple[Part, ...]:
        return index.parts

    def assembled(self, parts: Sequence[Part], path_of: Callable[[bytes], Path]) -> Path:
        (part,) = parts
        ((name, _),) = part.blobs
        if hashlib.sha256(path_of(name).read_bytes()).digest() != part.digest:
            raise ValueError("another part")
        return path_of(name)

    def verify_own(self, path: Path, checkpoint: Checkpoint) -> None:
        self.verify(path / "model.safetensors", checkpoint.weights_hash)

    def verify(self, path: Path, weights_hash_: bytes) -> None:
        if hashlib.sha256(path.read_bytes()).digest() != weights_hash_:
            raise ValueError("another model")
