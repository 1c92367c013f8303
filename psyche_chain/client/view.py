"""What a member knows when it decides: one snapshot of the chain, and itself.

Both are plain frozen values, so that `psyche_chain.client.duties.decide` is a pure function of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from solders.pubkey import Pubkey

from psyche_chain.chain.state import (
    ChainConfig,
    Checkpoint,
    Phase,
    RoundStatus,
    RoundView,
    RunState,
    Slot,
    SlotStatus,
)
from psyche_train.records import GENESIS

__all__ = ["GENESIS", "ChainView", "MyState", "Phase", "RoundStatus", "RoundView", "Slot", "SlotStatus"]

PRESENT = frozenset({SlotStatus.WAITING, SlotStatus.ACTIVE})


@dataclass(frozen=True, slots=True)
class ChainView:
    """One snapshot of a run's state account."""

    nonce: int
    chain_slot: int
    """Slot of the chain at which the snapshot was read; a later snapshot never has a smaller one."""
    phase: Phase
    epoch: int
    step: int
    next_round: int
    history: bytes
    spec_hash: bytes
    phase_start: int
    epoch_start: int
    config: ChainConfig
    checkpoint: Checkpoint
    """The last agreed one."""
    pending: Checkpoint
    """In Cooldown: the one that is being agreed."""
    rounds: tuple[RoundView, ...] = ()
    """The rounds in the ring, ascending by number."""
    slots: Mapping[int, Slot] = field(default_factory=dict)
    """Every slot that is not free."""
    uploader: int | None = None
    pause_requested: bool = False
    uri_missing: bool = False
    """In Cooldown: the weights are agreed, the uri is not recorded yet."""

    @classmethod
    def of(cls, state: RunState) -> ChainView:
        """Take what duties depend on out of a decoded account."""
        return cls(
            nonce=state.nonce,
            chain_slot=state.seen_at,
            phase=state.phase,
            epoch=state.epoch,
            step=state.step,
            next_round=state.next_round,
            history=state.history,
            spec_hash=state.spec_hash,
            phase_start=state.phase_start,
            epoch_start=state.epoch_start,
            config=state.config,
            checkpoint=state.checkpoint,
            pending=state.pending,
            rounds=state.rounds,
            slots={slot.index: slot for slot in state.members()},
            uploader=state.uploader,
            pause_requested=state.pause_requested,
            uri_missing=state.uri_missing,
        )

    @property
    def open_round(self) -> RoundView | None:
        """The newest round while the run is training, else None."""
        if self.phase not in (Phase.ROUND_TRAIN, Phase.ROUND_WITNESS) or not self.rounds:
            return None
        return self.rounds[-1]

    def round(self, number: int) -> RoundView | None:
        """The round of that number, if it is in the ring."""
        return next((r for r in self.rounds if r.number == number), None)

    def slot_of(self, wallet: Pubkey) -> Slot | None:
        """The slot that belongs to a wallet: the present one before a departed one."""
        own = [s for s in self.slots.values() if s.wallet == wallet]
        return min(own, key=lambda s: (s.status not in PRESENT, s.index), default=None)

    def present(self) -> list[Slot]:
        """Members that wait for an epoch or are in one, by slot."""
        return [s for _, s in sorted(self.slots.items()) if s.status in PRESENT]

    def active(self) -> list[Slot]:
        """Members of this epoch, by slot."""
        return [s for _, s in sorted(self.slots.items()) if s.status == SlotStatus.ACTIVE]


@dataclass(frozen=True, slots=True)
class MyState:
    """What this member has done and holds, as far as duties depend on it."""

    wallet: Pubkey
    history: bytes = GENESIS
    """Head of the log that is folded into this member's weights."""
    trained: Mapping[int, bytes] = field(default_factory=dict)
    """Round number -> id of this member's own blob, stored and not served before its time."""
    held: Mapping[int, frozenset[int]] = field(default_factory=dict)
    """Round number -> slots whose blobs are in the store and decode."""
    given_up: Mapping[int, frozenset[int]] = field(default_factory=dict)
    """Round number -> slots whose blobs nobody reachable had, or that do not decode."""
    revealed: int = 0
    """Blobs of rounds up to this number are served."""
    saved: frozenset[bytes] = frozenset()
    """Histories of the checkpoints that this process wrote."""
    validated: frozenset[bytes] = frozenset()
    """Histories at which the validation loss was measured."""
    uris: Mapping[bytes, str] = field(default_factory=dict)
    """History -> uri under which this member offers the checkpoint of that history."""
    compared: bytes = GENESIS
    """History of the agreed checkpoint with which the own weights were last compared."""
    tidied: bytes = GENESIS
    """History of the agreed checkpoint for which this member last cleaned up."""
    has_data: bool = True
    """The run's data are complete here."""
    has_shared: bool = True
    """What is here of the run's data was offered to the others."""
    contact: str = ""
    """Addresses at which this member can be dialled; empty while unknown."""
    contact_on_chain: str | None = None
    """What its membership says; None while unknown."""
    busy: frozenset[str] = frozenset()
    """Keys of duties that are being done, wait for their transaction to show, or wait to be tried again."""
    evaluates: bool = False
    """An evaluation is under way or due; it is done only while nothing else is."""
    stopping: bool = False
