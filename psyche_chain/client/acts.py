"""How each duty is done. What must be remembered between duties is in `Memory`, and only a help: all of it
can be lost in a crash without harm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import trio
from solders.pubkey import Pubkey

from psyche_chain.client import duty as kinds
from psyche_chain.client.catchup import CatchUp, holders_of
from psyche_chain.client.duty import Duty
from psyche_chain.client.events import EventLog
from psyche_chain.client.ports import Adapter, Chain, Network, NotYet
from psyche_chain.client.rundata import RunData
from psyche_chain.client.sharing import blob_id_of
from psyche_chain.client.upload import Upload, Uploader
from psyche_chain.client.view import GENESIS, ChainView, MyState, RoundView
from psyche_chain.client.weights import Weights
from psyche_train.assign import intervals
from psyche_train.network import FetchError, Peer

NO_ADDRESS = "-"
"""Contact of a member that nobody can dial: it dials out, and pushes its blobs to others."""
COPIES = 2
"""Disks that hold the agreed checkpoint, where the run has as many members."""


def patience_s(view: ChainView) -> float:
    """How long a witness tries to get a blob before it is ready to attest without it.

    The witness time is meant to be enough for all blobs; half of it without success is a failure.
    """
    return min(15.0, max(2.0, view.config.round_witness_time / 2))


@dataclass(slots=True)
class Memory:
    """What this process did; rounds that left the ring are forgotten."""

    trained: dict[int, bytes] = field(default_factory=dict)
    held: dict[int, set[int]] = field(default_factory=dict)
    given_up: dict[int, set[int]] = field(default_factory=dict)
    first_try: dict[tuple[int, int], float] = field(default_factory=dict)
    revealed: int = 0
    uris: dict[bytes, str] = field(default_factory=dict)
    """History -> uri of what this member offers of that checkpoint; empty if it is a slice."""
    offered: dict[bytes, frozenset[bytes]] = field(default_factory=dict)
    """History -> the blobs of it."""
    contact: str = ""
    contact_on_chain: str | None = None
    contact_before: str | None = None
    """What the chain showed before the own addresses were there."""
    contact_strange: str = ""
    """Addresses on chain that are not this process's, as seen by the last look."""
    tidied: bytes = GENESIS
    uploaded: bytes = GENESIS

    def forget_before(self, number: int) -> None:
        """Drop what belongs to rounds older than `number`."""
        for by_round in (self.trained, self.held, self.given_up):
            for old in [r for r in by_round if r < number]:
                del by_round[old]
        self.first_try = {k: v for k, v in self.first_try.items() if k[0] >= number}


def keepers(view: ChainView) -> set[Pubkey]:
    """Wallets of the members that see to it that the agreed checkpoint is on `COPIES` disks.

    All full members, and if these are too few, as many others as are missing, the lowest slots first.
    """
    present = view.present()
    full = [slot.wallet for slot in present if slot.next_tier == 0]
    others = [slot.wallet for slot in present if slot.next_tier != 0]
    return {*full, *others[: max(0, COPIES - len(full))]}


class Acts:
    """Does duties for one member."""

    def __init__(
        self,
        wallet: Pubkey,
        chain: Chain,
        network: Network,
        weights: Weights,
        adapter: Adapter,
        catch_up: CatchUp,
        events: EventLog,
        *,
        tier: int,
        uploader: Uploader | None = None,
        archive: bool = False,
    ) -> None:
        self._archive = archive
        self._wallet = wallet
        self._chain = chain
        self._network = network
        self._weights = weights
        self._adapter = adapter
        self._catch_up = catch_up
        self._events = events
        self._tier = tier
        self._uploader = uploader
        self._memory = Memory()
        self._data = RunData(weights, network, events)
        self.training: tuple[int, int] | None = None
        """Round and slot of the training in progress."""
        self.taken_over = ""
        """Addresses of another process that became a member with this wallet."""
        self.evaluating = False
        """An evaluation is in progress."""
        self._evaluation_ends = False

    def state(self, wallet: Pubkey, busy: frozenset[str], *, stopping: bool) -> MyState:
        """What `decide` needs to know of this member."""
        memory = self._memory
        return MyState(
            wallet=wallet,
            history=self._weights.history,
            trained=dict(memory.trained),
            held={number: frozenset(slots) for number, slots in memory.held.items()},
            given_up={number: frozenset(slots) for number, slots in memory.given_up.items()},
            revealed=memory.revealed,
            saved=frozenset(self._weights.saved),
            validated=frozenset(self._weights.validated),
            uris=dict(memory.uris),
            compared=self._catch_up.compared,
            tidied=memory.tidied,
            has_data=self._data.complete,
            has_shared=self._data.shared,
            contact=memory.contact,
            contact_on_chain=memory.contact_on_chain,
            evaluates=self._weights.evaluates(),
            busy=busy,
            stopping=stopping,
        )

    def smallest_digest(self, history: bytes) -> bytes:
        """Digest of the smallest slice of the weights that were saved at `history`; empty if none were."""
        saved = self._weights.saved.get(history)
        return saved.digests[0] if saved else b""

    def see(self, view: ChainView) -> None:
        """Note a new snapshot."""
        if view.rounds:
            self._memory.forget_before(view.rounds[0].number)

    def cancel_training(self) -> None:
        """Drop the training in progress."""
        if self.training is not None:
            self._weights.cancel_training()

    def end_evaluation(self) -> None:
        """Begin no further slice of the evaluation: a duty needs the model."""
        self._evaluation_ends = True

    async def refresh_members(self, view: ChainView | None) -> None:
        """Tell the network who is a member and where; learn what the chain says of the own addresses."""
        if not self._memory.contact:
            self._memory.contact = ",".join(await self._network.addresses()) or NO_ADDRESS
        if view is None:
            return
        keys = {slot.p2p_key: slot for slot in view.slots.values()}
        members = await self._chain.members()
        for member in members:
            if member.wallet == self._wallet:
                self._see_own_contact(member.contact)
        await self._network.set_members(
            [
                Peer(m.p2p_key, tuple(a for a in m.contact.split(",") if a not in ("", NO_ADDRESS)), m.slot)
                for m in members
                if m.p2p_key in keys and m.p2p_key != self._network.peer_key
            ]
        )

    def _see_own_contact(self, contact: str) -> None:
        """Learn what the chain says of the own addresses; whether somebody else wrote others there.

        Two processes with one wallet would write theirs in turns for ever, and commit against each other.
        """
        memory = self._memory
        memory.contact_on_chain = contact
        if memory.contact_before is None:
            memory.contact_before = contact
        if contact in (memory.contact, memory.contact_before):
            memory.contact_strange = ""
        elif memory.contact_strange == contact:
            self.taken_over = contact  # seen twice: it stays
        else:
            memory.contact_strange = contact

    async def do(self, duty: Duty, view: ChainView) -> int:
        """Do one duty; return the slot of the chain at which its transaction landed, 0 without one.

        Raises:
            Refused: a program refused.
            NotYet: something is missing that may come.
            PsycheError: the chain cannot be reached.
        """
        if isinstance(duty, kinds.Weights):
            await self._with_weights(duty, view)
            return 0
        match duty:
            case kinds.Reveal(number):
                await self._network.reveal(number)
                self._memory.revealed = max(self._memory.revealed, number)
            case kinds.Fetch():
                await self._fetch(duty, view)
            case kinds.Share():
                await self._data.share()
            case kinds.Gather():
                await self._data.fetch()
            case kinds.Offer(history):
                await self._offer(history)
            case kinds.Tidy(history):
                await self._tidy(view)
                self._memory.tidied = history
            case _:
                return await self._send(duty)
        return 0

    async def _send(self, duty: Duty) -> int:
        """Duties that are one transaction."""
        chain, events = self._chain, self._events
        match duty:
            case kinds.Join():
                landed = await chain.join(self._memory.contact)
                self._memory.contact_on_chain = self._memory.contact_before = self._memory.contact
                events.emit("joined")
            case kinds.Leave(slot):
                landed = await chain.leave(slot)
            case kinds.UpdateContact(contact):
                landed = await chain.update_contact(contact)
                self._memory.contact_on_chain = contact
            case kinds.Ready(slot):
                landed = await chain.ready(slot)
            case kinds.Commit(slot, number, blob_id):
                landed = await chain.commit(slot, number, blob_id)
                events.emit("commit", round=number)
            case kinds.Witness(slot, number, seen):
                landed = await chain.witness(slot, number, seen)
                events.emit("witness", round=number, bits=sorted(seen))
            case kinds.Attest(slot, step, history):
                landed = await chain.attest(slot, step, self._weights.saved[history].digests)
                events.emit("attest", step=step)
            case kinds.Record(slot, _, uri):
                landed = await chain.record(slot, uri)
            case kinds.Tick():
                landed = await chain.tick()
            case _:
                raise AssertionError(f"no way to do {duty}")
        return landed

    async def _with_weights(self, duty: kinds.Weights, view: ChainView) -> None:
        match duty:
            case kinds.Fold(records):
                await self._catch_up.fold(records, view)
            case kinds.CatchUp():
                await self._catch_up.catch_up(view)
            case kinds.Compare():
                await self._catch_up.compare(view.checkpoint)
            case kinds.Save():
                await self._weights.save()
            case kinds.Validate():
                await self._weights.validate()
            case kinds.Train(round_, slot):
                await self._train(round_, slot, view)
            case kinds.Evaluate():
                await self._evaluate()

    async def _evaluate(self) -> None:
        self.evaluating, self._evaluation_ends = True, False
        try:
            while self._weights.evaluates() and not self._evaluation_ends:
                await self._weights.evaluate()
        finally:
            self.evaluating = False

    async def _train(self, round_: RoundView, slot: int, view: ChainView) -> None:
        share = self._share(round_, slot, view)
        self.training = (round_.number, slot)
        try:
            result = await self._weights.train(self._adapter.job(round_, slot, self._tier, share))
        finally:
            self.training = None
        if result is None:
            return
        self._memory.trained[round_.number] = await self._network.publish(
            result.blob, hidden_until=round_.number
        )
        self._memory.held.setdefault(round_.number, set()).add(slot)
        self._events.emit(
            "train",
            round=round_.number,
            step=round_.step,
            epoch=round_.epoch,
            slot=slot,
            tier=self._tier,
            loss=result.loss,
            tokens=result.tokens,
            seconds=round(result.seconds, 4),
            bytes=len(result.blob),
            parameters=self._weights.parameters,
        )

    async def _fetch(self, duty: kinds.Fetch, view: ChainView) -> None:
        round_ = view.round(duty.round)
        member = view.slots.get(duty.slot)
        if round_ is None or member is None:
            return
        limit_s = patience_s(view)
        started = self._memory.first_try.setdefault((duty.round, duty.slot), trio.current_time())
        try:
            blob = await self._network.fetch(
                duty.blob_id,
                deadline_s=limit_s,
                max_bytes=self._weights.max_update_bytes,
                holders=holders_of(view, duty.round, duty.slot),
            )
        except FetchError as error:
            if trio.current_time() >= started + limit_s:
                self._memory.given_up.setdefault(duty.round, set()).add(duty.slot)
            raise NotYet(str(error)) from error
        try:
            await self._weights.check(
                blob,
                self._adapter.expected(round_, duty.slot, member.tier, self._share(round_, duty.slot, view)),
            )
        except ValueError as error:
            self._memory.given_up.setdefault(duty.round, set()).add(duty.slot)
            raise NotYet(
                f"the blob of slot {duty.slot} is no update of round {duty.round}: {error}"
            ) from error
        self._memory.held.setdefault(duty.round, set()).add(duty.slot)

    @staticmethod
    def _share(round_: RoundView, slot: int, view: ChainView) -> Sequence[range]:
        weights_of = [(s, view.slots[s].weight) for s in sorted(round_.assigned)]
        return intervals(round_.samples, round_.fills, round_.data_index, weights_of)[slot]

    async def _offer(self, history: bytes) -> None:
        """Put the parts of a saved checkpoint into the store."""
        uri, blobs = await self._catch_up.sharing.offer(self._weights.saved[history].path)
        self._memory.offered[history] = blobs
        self._memory.uris[history] = uri

    async def _tidy(self, view: ChainView) -> None:
        """Pin the agreed checkpoint and drop older blobs; nobody who can catch up needs those.

        A run with few full members would lose the wide part of the model with their disks. Some of the others
        hold the agreed checkpoint too, as a blob, and drop nothing before they have it.
        """
        checkpoint = view.checkpoint
        await self._weights.pin(checkpoint.history)
        saved = self._weights.saved.get(checkpoint.history)
        if self._uploader is not None and saved is not None and checkpoint.history != self._memory.uploaded:
            self._memory.uploaded = checkpoint.history  # this duty may be done again
            self._uploader.offer(Upload(saved.path, saved.step, saved.weights_hash))
        shared = await self._blobs_of(view)
        if shared is None:
            return
        current = (checkpoint.history, view.pending.history, view.history)
        for old in [history for history in self._memory.uris if history not in current]:
            del self._memory.uris[old], self._memory.offered[old]
        keep = {a.commitment for r in self._weights.records_after(checkpoint.history) for a in r.accepted}
        keep |= {r.commitments[slot] for r in view.rounds for slot in r.committed}
        keep |= {*self._memory.trained.values(), *shared, *self._data.blobs}
        keep |= {blob for blobs in self._memory.offered.values() for blob in blobs}
        if not self._archive:
            await self._network.prune(keep)

    async def _blobs_of(self, view: ChainView) -> frozenset[bytes] | None:
        """The blobs of the agreed checkpoint; those who keep a copy of it have them all. None: it is elsewhere."""
        checkpoint, sharing = view.checkpoint, self._catch_up.sharing
        name = blob_id_of(checkpoint.uri)
        if name is None:
            return None
        full = [slot.p2p_key for slot in view.present() if slot.next_tier == 0]
        if self._wallet in keepers(view):
            await sharing.copy(checkpoint, full)
        try:
            return (await sharing.index(checkpoint, full)).blobs | {name}
        except NotYet:  # of others than keepers nobody depends on it
            return frozenset({name})
