"""The member's loop: look at the chain, decide what is owed, do it, again.

One task looks at the chain, one keeps the peers' addresses, and every duty runs in a task of its own. They
share a `Client` and change it only between two awaits, so no locks are needed. Nothing that a duty does is
remembered as done: the next snapshot shows it, or the duty is decided again.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import trio
from solders.pubkey import Pubkey

from psyche_chain.cli.exit_codes import ERROR, TRAINER
from psyche_chain.client.acts import Acts
from psyche_chain.client.clock import ChainClock
from psyche_chain.client.due import needed_by_others, state_of, training_is_over
from psyche_chain.client.duties import decide
from psyche_chain.client.duty import Duty, Evaluate, Finish, Join, Tick, Weights
from psyche_chain.client.events import EventLog
from psyche_chain.client.ports import Chain, NotYet, Refused
from psyche_chain.client.view import PRESENT, ChainView, MyState, Phase
from psyche_chain.errors import PsycheError
from psyche_train.blobs import BlobStoreError
from psyche_train.jobs import TrainerLost
from psyche_train.network import NetworkError

logger = logging.getLogger(__name__)

HARMLESS = frozenset(
    {
        "AlreadyAttested",
        "AlreadyCommitted",
        "AlreadyJoined",
        "AlreadyReady",
        "NotAssigned",
        "NotCooldown",
        "NothingDue",
        "NotTraining",
        "NotWitness",
        "NotWitnessing",
        "ReadyNotNow",
        "UriRecorded",
        "WeightsNotAgreed",
        "WrongRound",
        "WrongStep",
    }
)
"""Refusals that only say that the chain moved on while a transaction was under way."""

LEAVE_DEADLINE_S = 10.0
REFRESH_MEMBERS_S = 4.0
MAX_RETRY_S = 15.0
OLDER_S = 10.0
"""How long states older than the newest one are ignored; one that was never true must not stop a member."""
FINISH_DEADLINE_S = 180.0
"""A member that cannot get the end of a finished run for this long gives up."""


@dataclass(slots=True)
class Busy:
    """Why a duty is not decided now: it runs, its transaction is not visible yet, or it failed just now."""

    running: bool = True
    landed_at: int = 0
    """Slot of the chain; busy until a snapshot is at least as new and was asked for after the landing was
    seen (a slot is long: a snapshot of the same slot may be older than the transaction)."""
    seen_at: float = 0.0
    """Time of trio's clock at which the landing was seen."""
    retry_at: float = 0.0
    """Time of trio's clock."""
    failures: int = 0

    def holds(self, chain_slot: int, asked_at: float) -> bool:
        """Whether the duty must not be decided from a snapshot of `chain_slot` that was asked for then."""
        now = trio.current_time()
        is_old = (chain_slot < self.landed_at and now < self.seen_at + OLDER_S) or asked_at < self.seen_at
        return self.running or is_old or now < self.retry_at


class Client:
    """One member of one run."""

    def __init__(
        self,
        wallet: Pubkey,
        chain: Chain,
        acts: Acts,
        events: EventLog,
        *,
        poll_s: float,
        linger_s: float,
        rng: random.Random | None = None,
        listen: Callable[[Callable[[], None]], Awaitable[None]] | None = None,
    ) -> None:
        """Args:
        poll_s: seconds between two looks at the chain while something goes on.
        linger_s: how long a finished member stays for others.
        listen: calls what it is given when it may pay to look at the chain at once; never needed.
        """
        self._wallet = wallet
        self._chain = chain
        self._acts = acts
        self._events = events
        self._poll_s = poll_s
        self._linger_s = linger_s
        self._rng = rng or random.Random()
        self._listen = listen
        self._clock = ChainClock()
        self._view: ChainView | None = None
        self._asked_at = float("-inf")
        self._new_at = float("-inf")
        """When the last state came that was not ignored."""
        self._busy: dict[str, Busy] = {}
        self._poke = trio.Event()
        self._table_changed = trio.Event()
        self._stopping = False
        self._finished_at: float | None = None
        self._said_bye = False
        self._must_end = False
        self._behind_since: float | None = None
        self._nursery: trio.Nursery | None = None
        self._last_phase: tuple[Phase, int, int] | None = None
        self._exit_code = 0

    async def run(self) -> int:
        """Be a member until the run is finished or `stop` was called; return the exit status."""
        async with trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self._keep_members)
            if self._listen is not None:
                self._nursery.start_soon(self._listen, self.poke)
            await self._watch()
            self._nursery.cancel_scope.cancel()
        self._events.emit("exit", code=self._exit_code)
        return self._exit_code

    def stop(self) -> None:
        """Leave the run, then end."""
        if not self._stopping:
            self._events.emit("leaving")
            self._stopping = True
            self._acts.cancel_training()
            self._acts.end_evaluation()
            self.poke()

    def poke(self) -> None:
        """Look at the chain now."""
        self._poke.set()

    def my_state(self) -> MyState:
        """What duties are decided from."""
        chain_slot = self._view.chain_slot if self._view else 0
        busy = frozenset(key for key, why in self._busy.items() if why.holds(chain_slot, self._asked_at))
        return self._acts.state(self._wallet, busy, stopping=self._stopping)

    async def _watch(self) -> None:
        """Poll until there is nothing left to do."""
        failures, leave_by = 0, float("inf")
        while True:
            self._poke = trio.Event()
            asked_at = trio.current_time()
            try:
                snapshot = await self._chain.snapshot()
            except PsycheError as error:
                failures += 1
                self._events.emit("error", message=f"the chain cannot be read: {error}")
                if self._stopping:
                    leave_by = min(leave_by, trio.current_time() + LEAVE_DEADLINE_S)
                wait_until = trio.current_time() + min(MAX_RETRY_S, 0.5 * 2**failures) * self._rng.uniform(
                    0.5, 1.0
                )
                if trio.current_time() > leave_by:
                    return
                with trio.move_on_at(min(wait_until, leave_by + 0.1)):
                    await self._poke.wait()
                continue
            failures = 0
            if self._must_end:
                return
            if not self._is_older(snapshot.view):
                self._asked_at = asked_at
                self._clock.observe(snapshot.clock)
                self._see(snapshot.view)
                self._step()
            if self._stopping:
                leave_by = min(leave_by, trio.current_time() + LEAVE_DEADLINE_S)
                own = snapshot.view.slot_of(self._wallet)
                is_out = (own is None or own.status not in PRESENT) and not self._is_joining()
                if is_out or trio.current_time() > leave_by:
                    return
            if await self._may_go(snapshot.view) or self._is_too_late(snapshot.view):
                return
            with trio.move_on_after(self._pause_s(snapshot.view)):
                await self._poke.wait()

    def _is_joining(self) -> bool:
        """Whether a transaction that joins is under way, or not visible yet."""
        return Join().key in self.my_state().busy and self._busy[Join().key].failures == 0

    def _is_older(self, view: ChainView) -> bool:
        """Whether a node that lags behind shows less than what was seen before.

        The nonce grows with every change of the run. Slots are not compared: one that an endpoint made up
        would hide all that comes after it.
        """
        now = trio.current_time()
        if self._view is not None and view.nonce < self._view.nonce and now < self._new_at + OLDER_S:
            return True
        self._new_at = now
        return False

    def _pause_s(self, view: ChainView) -> float:
        is_quick = view.phase in (Phase.WARMUP, Phase.ROUND_TRAIN, Phase.ROUND_WITNESS, Phase.COOLDOWN)
        return self._poll_s * (1.0 if is_quick else 2.0) * self._rng.uniform(0.8, 1.2)

    def _see(self, view: ChainView) -> None:
        before, self._view = self._view, view
        if before is None or {s.p2p_key for s in before.slots.values()} != {
            s.p2p_key for s in view.slots.values()
        }:
            self._table_changed.set()
        number = view.next_round - 1
        phase = (view.phase, view.epoch, number)
        if phase != self._last_phase:
            self._last_phase = phase
            self._events.emit("phase", phase=view.phase.label, epoch=view.epoch, round=number, step=view.step)
        self._busy = {
            key: why
            for key, why in self._busy.items()
            if why.holds(view.chain_slot, self._asked_at) or trio.current_time() < why.retry_at + MAX_RETRY_S
        }
        training = self._acts.training
        if training is not None and training_is_over(view, *training):
            self._acts.cancel_training()
        self._acts.see(view)

    def _step(self) -> None:
        """Decide, and start what was decided."""
        view, nursery = self._view, self._nursery
        if view is None or nursery is None:
            return
        me = self.my_state()
        self._events.state(state_of(view, me))
        if self._acts.evaluating and self._model_is_needed(view, me):
            self._acts.end_evaluation()
        for duty in decide(view, me, self._clock.now()):
            if isinstance(duty, Finish):
                if self._finished_at is None:
                    self._finished_at = trio.current_time()
                continue
            why = self._busy.setdefault(duty.key, Busy())
            why.running = True
            nursery.start_soon(self._do, duty, why, view)

    def _model_is_needed(self, view: ChainView, me: MyState) -> bool:
        """Whether there would be another duty for the model, if it were not busy with the evaluation."""
        idle = replace(me, busy=me.busy - {Evaluate().key}, evaluates=False)
        return any(isinstance(duty, Weights) for duty in decide(view, idle, self._clock.now()))

    async def _do(self, duty: Duty, why: Busy, view: ChainView) -> None:
        """Do one duty; whatever goes wrong, it is decided again later if it is still owed."""
        try:
            if not isinstance(duty, Tick) or await self._is_my_turn(view):
                why.landed_at = await self._acts.do(duty, view)
                why.failures = 0
                if why.landed_at:
                    why.seen_at = trio.current_time()
        except Refused as error:
            quiet = error.name in HARMLESS
            self._failed(duty, why, error, first_retry_s=0.3 if quiet else 1.0, quiet=quiet)
        except (NotYet, NetworkError, BlobStoreError, OSError) as error:
            self._failed(duty, why, error, first_retry_s=0.5, quiet=why.failures == 0)
        except PsycheError as error:
            self._failed(duty, why, error, first_retry_s=0.5, quiet=False)
        except TrainerLost as error:
            self._give_up(duty, error)
        finally:
            why.running = False
        self._step()
        self.poke()

    def _failed(self, duty: Duty, why: Busy, error: Exception, *, first_retry_s: float, quiet: bool) -> None:
        delay_s = min(MAX_RETRY_S, first_retry_s * 2 ** min(why.failures, 8)) * self._rng.uniform(0.7, 1.0)
        why.failures += 1
        why.retry_at = trio.current_time() + delay_s
        logger.debug("%s: %s", duty.key, error)
        if not quiet:
            self._events.emit("error", message=f"{duty.key}: {error}")

    def _give_up(self, duty: Duty, error: Exception) -> None:
        """Leave the run, for there is no trainer any more."""
        if self._exit_code == 0:
            self._exit_code = TRAINER
            self._events.emit("error", message=f"{duty.key}: {error}")
            self._events.emit("leaving")
        self.stop()

    async def _is_my_turn(self, view: ChainView) -> bool:
        """Wait a random time, so that of all members about one sends; False if somebody else did."""
        others = len(view.present()) - 1
        await trio.sleep(self._rng.uniform(0, 0.3) * others)
        now = self._view
        return now is not None and now.nonce == view.nonce

    async def _keep_members(self) -> None:
        """Tell the network who may connect, whenever the table changes and every few seconds."""
        while True:
            self._table_changed = trio.Event()
            try:
                await self._acts.refresh_members(self._view)
            except PsycheError as error:
                self._events.emit("error", message=f"the members cannot be read: {error}")
            if self._acts.taken_over:
                self._events.emit(
                    "error",
                    message="another process is a member with this wallet now, at "
                    f"{self._acts.taken_over}; this one ends and leaves the place to it",
                )
                self._exit_code = ERROR
                self._must_end = True
                self.poke()
                return
            self._step()
            with trio.move_on_after(REFRESH_MEMBERS_S):
                await self._table_changed.wait()

    def _is_too_late(self, view: ChainView) -> bool:
        """Whether the run is finished and its end was not to be had from anybody for too long."""
        if view.phase is not Phase.FINISHED or self._finished_at is not None:
            self._behind_since = None
            return False
        now = trio.current_time()
        self._behind_since = now if self._behind_since is None else self._behind_since
        if now < self._behind_since + max(FINISH_DEADLINE_S, self._linger_s):
            return False
        self._events.emit("error", message="the run is finished, and nobody is left who has its last rounds")
        self._exit_code = ERROR
        return True

    async def _may_go(self, view: ChainView) -> bool:
        """Whether a finished member may end: nobody needs its blobs, or it stayed long enough."""
        if self._finished_at is None:
            return False
        if trio.current_time() >= self._finished_at + self._linger_s:
            return True
        digest = self._acts.smallest_digest(view.history)
        own = view.slot_of(self._wallet)
        votes = view.rounds[-1].commitments if view.rounds else ()
        if own is not None and own.status in PRESENT and votes[own.index] != digest and not self._said_bye:
            # Came late to the end: tell those who wait that nothing more is needed.
            self._said_bye = True
            try:
                await self._chain.leave(own.index)
            except (Refused, PsycheError) as error:
                logger.info("not left: %s", error)
        return not needed_by_others(view, self._wallet, digest)
