"""Typed values of a run's log: phases, configuration, rounds, slots, and how they are read from raw records."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

import numpy as np
from solders.pubkey import Pubkey

from psyche_chain.chain import layout

SLOT_READY: Final = 1
SLOT_ATTESTED: Final = 2


class Phase(IntEnum):
    """Where a run is; the numbers are those on chain."""

    UNINITIALIZED = 0
    WAITING_FOR_MEMBERS = 1
    WARMUP = 2
    ROUND_TRAIN = 3
    ROUND_WITNESS = 4
    COOLDOWN = 5
    FINISHED = 6
    PAUSED = 7

    @property
    def label(self) -> str:
        """The phase's name as the program writes it, for example `RoundTrain`."""
        return "".join(word.capitalize() for word in self.name.split("_"))

    @property
    def halted(self) -> bool:
        """Nothing moves and the authority may configure the run."""
        return self in (Phase.UNINITIALIZED, Phase.FINISHED, Phase.PAUSED)


class SlotStatus(IntEnum):
    """Presence of the member that holds a slot."""

    FREE = 0
    WAITING = 1
    ACTIVE = 2
    DEPARTED = 3


class RoundStatus(IntEnum):
    """Life of a round in the ring."""

    EMPTY = 0
    OPEN = 1
    COMMITTED = 2
    CLOSED = 3


@dataclass(frozen=True, slots=True)
class ChainConfig:
    """The run's configuration on chain; times in seconds."""

    warmup_time: int
    cooldown_time: int
    max_round_train_time: int
    round_witness_time: int
    epoch_time: int
    waiting_for_members_extra_time: int
    global_batch_size_warmup_tokens: int
    total_steps: int
    global_batch_size_start: int
    global_batch_size_end: int
    max_seq_len: int
    pay_per_tier: tuple[int, int, int, int]
    init_min_clients: int
    min_clients: int
    min_full_members: int
    witness_nodes: int
    max_missed: int
    max_failed_warmups: int
    max_tier: int


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint that the members agreed on, or are agreeing on. `agreed` is False before the first."""

    weights_hash: bytes
    history: bytes
    step: int
    round: int
    data_index: int
    epoch: int
    agreed: bool
    uri: str

    def is_same(self, other: "Checkpoint") -> bool:
        """Whether both are the same weights at the same place of the log, wherever they are kept."""
        return (self.agreed, self.step, self.history, self.weights_hash) == (
            other.agreed,
            other.step,
            other.history,
            other.weights_hash,
        )


@dataclass(frozen=True, slots=True)
class RoundView:
    """One round of the ring. Sets hold slot numbers."""

    number: int
    step: int
    epoch: int
    data_index: int
    opened_at: int
    seed: bytes
    assigned: frozenset[int]
    committed: frozenset[int]
    witnesses: frozenset[int]
    attested: frozenset[int]
    accepted: frozenset[int]
    assigned_bits: bytes
    """The set as the 32 bytes that `history` hashes."""
    fills: tuple[range, ...]
    """Returned sample intervals that come first in this round."""
    samples: int
    trained: bool
    status: RoundStatus
    commitments: tuple[bytes, ...]
    """By slot; meaningful for `committed` slots."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A row of the member table."""

    index: int
    wallet: Pubkey
    hot_key: Pubkey
    p2p_key: bytes
    earned: int
    """Points earned in this slot that `settle` has not yet moved to the membership account."""
    last_epoch: int
    weight: int
    next_weight: int
    missed: int
    missed_warmups: int
    status: SlotStatus
    ready: bool
    attested: bool
    tier: int
    next_tier: int

    @property
    def assignable(self) -> bool:
        """Would be asked to train if a round opened now."""
        return self.status is SlotStatus.ACTIVE and self.ready


def bits_to_set(words: Any, limit: int = layout.MAX_CAPACITY) -> frozenset[int]:
    """Slot numbers below `limit` whose bit is set in four little-endian 64-bit words."""
    bits = np.unpackbits(np.ascontiguousarray(words, dtype="<u8").view(np.uint8), bitorder="little")
    return frozenset(np.flatnonzero(bits[:limit]).tolist())


def set_to_bits(slots: frozenset[int] | set[int]) -> bytes:
    """The 32 bytes of a set of slot numbers, as `witness` takes them."""
    return sum(1 << slot for slot in slots).to_bytes(32, "little")


def interval(raw: Any) -> range:
    start = int(raw["start"][0]) | int(raw["start"][1]) << 32
    return range(start, start + int(raw["len"]))


def checkpoint_of(raw: Any) -> Checkpoint:
    return Checkpoint(
        weights_hash=raw["weights_hash"].tobytes(),
        history=raw["history"].tobytes(),
        step=int(raw["step"]),
        round=int(raw["round"]),
        data_index=int(raw["data_index"]),
        epoch=int(raw["epoch"]),
        agreed=bool(raw["agreed"]),
        uri=raw["uri"].tobytes()[: int(raw["uri_len"])].decode("utf-8", "replace"),
    )


def slot_of(index: int, raw: Any) -> Slot:
    flags = int(raw["flags"])
    numbers = (
        "earned",
        "last_epoch",
        "weight",
        "next_weight",
        "missed",
        "missed_warmups",
        "tier",
        "next_tier",
    )
    return Slot(
        index=index,
        wallet=Pubkey.from_bytes(raw["wallet"].tobytes()),
        hot_key=Pubkey.from_bytes(raw["hot_key"].tobytes()),
        p2p_key=raw["p2p_key"].tobytes(),
        status=SlotStatus(int(raw["status"])),
        ready=bool(flags & SLOT_READY),
        attested=bool(flags & SLOT_ATTESTED),
        **{name: int(raw[name]) for name in numbers},
    )
