"""What a member knows when it decides: one snapshot of the chain, and itself.

Both are plain frozen values, so that `psyche_chain.client.duties.decide` is a pure function of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

GENESIS = bytes(32)
"""History of a run in which no round was closed yet."""

NO_SLOT = 0xFFFF
"""`ChainView.uploader` when nobody was drawn."""


class Phase(IntEnum):
    """Phase of a run, numbered as in the program."""

    UNINITIALIZED = 0
    WAITING_FOR_MEMBERS = 1
    WARMUP = 2
    ROUND_TRAIN = 3
    ROUND_WITNESS = 4
    COOLDOWN = 5
    FINISHED = 6
    PAUSED = 7


class SlotStatus(IntEnum):
    """What a slot of the member table stands for."""

    FREE = 0
    WAITING = 1
    """Present, admitted at the next epoch."""
    ACTIVE = 2
    """Takes part in this epoch."""
    DEPARTED = 3
    """Gone; the slot is kept while it has unsettled pay or a live round names it."""


class RoundStatus(IntEnum):
    """How far a round of the ring is."""

    EMPTY = 0
    OPEN = 1
    COMMITTED = 2
    """Its commits are over: blobs may be served, witnesses attest."""
    CLOSED = 3


@dataclass(frozen=True, slots=True)
class SlotView:
    """One present or departed member of the table."""

    slot: int
    wallet: bytes
    p2p_key: bytes
    status: SlotStatus
    tier: int
    weight: int
    ready: bool = False
    attested: bool = False
    """Voted for a checkpoint in this cooldown."""

    @property
    def present(self) -> bool:
        """Waiting for an epoch or in one."""
        return self.status in (SlotStatus.WAITING, SlotStatus.ACTIVE)


@dataclass(frozen=True, slots=True)
class RoundView:
    """One round of the ring. Sets hold slots; `commitments` holds the blob id of every slot in `committed`."""

    number: int
    step: int
    epoch: int
    data_index: int
    seed: bytes
    trained: bool
    status: RoundStatus
    samples: int = 0
    fills: tuple[range, ...] = ()
    """Returned sample intervals that this round takes first."""
    assigned: frozenset[int] = frozenset()
    committed: frozenset[int] = frozenset()
    witnesses: frozenset[int] = frozenset()
    attested: frozenset[int] = frozenset()
    accepted: frozenset[int] = frozenset()
    commitments: Mapping[int, bytes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CheckpointView:
    """An agreed (or, in a cooldown, about to be agreed) checkpoint."""

    agreed: bool = False
    weights_hash: bytes = bytes(32)
    history: bytes = GENESIS
    step: int = 0
    round: int = 0
    """Number of the next round at that point."""
    data_index: int = 0
    epoch: int = 0
    uri: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """The parts of the run's configuration that duties depend on. Times in seconds."""

    warmup_time: int
    cooldown_time: int
    max_round_train_time: int
    round_witness_time: int
    epoch_time: int
    waiting_for_members_extra_time: int
    total_steps: int
    init_min_clients: int
    min_clients: int
    min_full_members: int
    max_tier: int


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
    limits: Limits
    rounds: tuple[RoundView, ...] = ()
    """The rounds in the ring, ascending by number."""
    slots: Mapping[int, SlotView] = field(default_factory=dict)
    """Every slot that is not free."""
    capacity: int = 16
    checkpoint: CheckpointView = CheckpointView()
    pending: CheckpointView = CheckpointView()
    uploader: int = NO_SLOT
    pause_requested: bool = False
    uri_missing: bool = False
    """In Cooldown: the weights are agreed, the uri is not recorded yet."""

    @property
    def open_round(self) -> RoundView | None:
        """The newest round while the run is training, else None."""
        if self.phase not in (Phase.ROUND_TRAIN, Phase.ROUND_WITNESS) or not self.rounds:
            return None
        return self.rounds[-1]

    def round(self, number: int) -> RoundView | None:
        """The round of that number, if it is in the ring."""
        return next((r for r in self.rounds if r.number == number), None)

    def slot_of(self, wallet: bytes) -> SlotView | None:
        """The slot that belongs to a wallet: the present one before a departed one."""
        own = [s for s in self.slots.values() if s.wallet == wallet]
        own.sort(key=lambda s: (not s.present, s.slot))
        return own[0] if own else None

    def present(self) -> list[SlotView]:
        """Members that wait for an epoch or are in one, by slot."""
        return [s for _, s in sorted(self.slots.items()) if s.present]

    def active(self) -> list[SlotView]:
        """Members of this epoch, by slot."""
        return [s for _, s in sorted(self.slots.items()) if s.status == SlotStatus.ACTIVE]


@dataclass(frozen=True, slots=True)
class MyState:
    """What this member has done and holds, as far as duties depend on it."""

    wallet: bytes
    loaded: bool = False
    """The model is in memory."""
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
    """Histories of the checkpoints on this disk."""
    uris: Mapping[bytes, str] = field(default_factory=dict)
    """History -> uri under which this member offers the checkpoint of that history."""
    contact: str = ""
    """Addresses at which this member can be dialled; empty while unknown."""
    contact_on_chain: str | None = None
    """What its membership says; None while unknown."""
    busy: frozenset[str] = frozenset()
    """Keys of duties that are being done, wait for their transaction to show, or wait to be tried again."""
    stopping: bool = False
