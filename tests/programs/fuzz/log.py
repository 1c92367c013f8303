"""The model's copy of a run's log, and how it compares with the account's bytes."""

from dataclasses import dataclass, field
from typing import Any

from tests.programs.fuzz.names import Keyring
from tests.programs.fuzz.packing import CHECKPOINT, CONFIG, HEADER, LAYOUT, ROUND, SLOT

UNINITIALIZED, WAITING, WARMUP, TRAIN, WITNESS, COOLDOWN, FINISHED, PAUSED = range(8)
PHASES = (
    "Uninitialized",
    "Waiting",
    "Warmup",
    "RoundTrain",
    "RoundWitness",
    "Cooldown",
    "Finished",
    "Paused",
)
FREE, PRESENT, ACTIVE, DEPARTED = range(4)
EMPTY, OPEN, COMMITTED, CLOSED = range(4)
NOBODY = 0xFFFF
DISCRIMINATOR = bytes([196, 228, 198, 184, 77, 229, 44, 21])
PER_SLOT = sum(part["per_slot"] for part in LAYOUT["account"]["parts"])
FIXED = 8 + sum(part["size"] for part in LAYOUT["account"]["parts"])
NO_HASH = bytes(32)


def account_size(capacity: int) -> int:
    """Bytes of a log's account."""
    return FIXED + PER_SLOT * capacity


def bits(mask: int) -> list[int]:
    """The slots of a set, ascending."""
    found = []
    while mask:
        low = mask & -mask
        found.append(low.bit_length() - 1)
        mask ^= low
    return found


@dataclass(slots=True)
class Slot:
    """A member's place; `ready`, `voted` and `in_epoch` are its flags."""

    wallet: str = "zero"
    hot_key: str = "zero"
    p2p_key: bytes = NO_HASH
    earned: int = 0
    last_epoch: int = 0
    weight: int = 0
    next_weight: int = 0
    missed: int = 0
    missed_warmups: int = 0
    status: int = FREE
    tier: int = 0
    next_tier: int = 0
    ready: bool = False
    voted: bool = False
    in_epoch: bool = False

    @property
    def present(self) -> bool:
        return self.status in (PRESENT, ACTIVE)

    def pack(self, keys: Keyring) -> bytes:
        flags = self.ready | self.voted << 1 | self.in_epoch << 2
        return SLOT.pack(
            keys.raw(self.wallet),
            keys.raw(self.hot_key),
            self.p2p_key,
            self.earned,
            self.last_epoch & 0xFFFFFFFF,
            self.weight,
            self.next_weight,
            self.missed,
            self.missed_warmups,
            self.status,
            flags,
            self.tier,
            self.next_tier,
        )


FREE_SLOT = bytes(SLOT.size)


@dataclass(slots=True)
class Round:
    """One round; sets of slots are bit masks, `hashes` the commitments, `votes` what witnesses hold."""

    number: int = 0
    step: int = 0
    epoch: int = 0
    data_index: int = 0
    opened_at: int = 0
    seed: bytes = NO_HASH
    assigned: int = 0
    committed: int = 0
    witnesses: int = 0
    attested: int = 0
    accepted: int = 0
    fills: list[tuple[int, int]] = field(default_factory=list)
    samples: int = 0
    trained: bool = False
    status: int = EMPTY
    hashes: dict[int, bytes] = field(default_factory=dict)
    votes: dict[int, int] = field(default_factory=dict)

    def pack(self) -> bytes:
        sets = (self.assigned, self.committed, self.witnesses, self.attested, self.accepted)
        fills = b"".join(interval(start, length) for start, length in self.fills)
        return ROUND.pack(
            self.number,
            self.step,
            self.epoch,
            self.data_index,
            self.opened_at,
            self.seed,
            *(mask.to_bytes(32, "little") for mask in sets),
            fills.ljust(96, b"\0"),
            self.samples,
            len(self.fills),
            self.trained,
            self.status,
        )


def interval(start: int, length: int) -> bytes:
    return start.to_bytes(8, "little") + length.to_bytes(4, "little")


@dataclass(slots=True)
class Checkpoint:
    """A position of the log with its weights."""

    weights_hash: bytes = NO_HASH
    history: bytes = NO_HASH
    step: int = 0
    round: int = 0
    data_index: int = 0
    epoch: int = 0
    agreed: bool = False
    uri: bytes = b""

    def pack(self) -> bytes:
        head = (self.weights_hash, self.history, self.step, self.round, self.data_index, self.epoch)
        return CHECKPOINT.pack(*head, len(self.uri), self.agreed, self.uri)


@dataclass(slots=True)
class Log:
    """Everything that a `RunState` holds and everything that it is owed."""

    run: str
    capacity: int
    created_slot: int
    slots: list[Slot]
    version: int = 1
    nonce: int = 0
    spec_hash: bytes = NO_HASH
    history: bytes = NO_HASH
    seed: bytes = NO_HASH
    config: dict[str, Any] = field(default_factory=dict)
    config_bytes: bytes = bytes(CONFIG.size)
    round_rate: int = 0
    next_round_rate: int = 0
    pay_carry: int = 0
    epoch: int = 0
    step: int = 0
    data_index: int = 0
    next_round: int = 1
    phase_start: int = 0
    epoch_start: int = 0
    lost_samples: int = 0
    fills_since_checkpoint: int = 0
    lost_since_checkpoint: int = 0
    total_earned: int = 0
    failed_warmups: int = 0
    uploader: int = NOBODY
    phase: int = UNINITIALIZED
    open: int = 0
    pause_requested: bool = False
    configured: bool = False
    sealed: bool = False
    draining: bool = False
    uri_missing: bool = False
    checkpoint: Checkpoint = field(default_factory=lambda: Checkpoint(round=1))
    pending: Checkpoint = field(default_factory=Checkpoint)
    rounds: list[Round] = field(default_factory=lambda: [Round() for _ in range(4)])
    returned: list[tuple[int, int]] = field(default_factory=list)
    ballots: dict[int, list[bytes]] = field(default_factory=dict)
    credits: dict[str, int] = field(default_factory=dict)
    """What each wallet was credited in this life of the log, kept apart from the slots."""
    rates_paid: int = 0
    """Sum of the rates of all rounds that paid."""

    @property
    def flags(self) -> int:
        flags = (self.pause_requested, self.configured, self.sealed, self.draining, self.uri_missing)
        return sum(flag << i for i, flag in enumerate(flags))

    @property
    def returned_len(self) -> int:
        return len(self.returned)

    @property
    def size(self) -> int:
        return account_size(self.capacity)

    def header(self, keys: Keyring) -> bytes:
        """The header's bytes."""
        special = {
            "run": keys.raw(self.run),
            "config": self.config_bytes,
            "checkpoint": self.checkpoint.pack(),
            "pending": self.pending.pack(),
            "rounds": b"".join(r.pack() for r in self.rounds),
        }
        return HEADER.pack(*(special[f] if f in special else getattr(self, f) for f in HEADER.fields))

    def differs(self, data: bytes, keys: Keyring) -> str | None:
        """What is not as in the account, or None. The count of changes is taken over: it may only grow."""
        if len(data) != self.size:
            return f"size {len(data)}, expected {self.size}"
        if data[:8] != DISCRIMINATOR:
            return "discriminator"
        nonce = int.from_bytes(data[16:24], "little")
        if nonce < self.nonce:
            return f"nonce fell from {self.nonce} to {nonce}"
        self.nonce = nonce
        header = self.header(keys)
        at = 8 + HEADER.size
        if data[8:at] != header:
            return self._header_difference(header, data)
        slots = b"".join([FREE_SLOT if s.status == FREE else s.pack(keys) for s in self.slots])
        end = at + len(slots)
        if data[at:end] != slots:
            return self._slot_difference(slots, data, at)
        return self._array_difference(data, end)

    def _array_difference(self, data: bytes, at: int) -> str | None:
        for index, r in enumerate(self.rounds):
            if r.status in (OPEN, COMMITTED, CLOSED):
                for slot, value in r.hashes.items():
                    place = at + 32 * (index * self.capacity + slot)
                    if data[place : place + 32] != value:
                        return f"commitment of slot {slot} in round {r.number}"
        at += 128 * self.capacity
        before = self.rounds[(self.open - 1) & 3]
        if before.status == COMMITTED:
            order = bits(before.witnesses)
            for slot, mask in before.votes.items():
                place = at + 32 * order.index(slot)
                if data[place : place + 32] != mask.to_bytes(32, "little"):
                    return f"attestation of slot {slot} for round {before.number}"
        at += 1024
        returned = b"".join(interval(*piece) for piece in self.returned)
        if data[at : at + len(returned)] != returned:
            return f"returned intervals, expected {self.returned}"
        return None

    def _header_difference(self, header: bytes, data: bytes) -> str:
        mine, theirs = HEADER.unpack(header, 0), HEADER.unpack(data, 8)
        found = {f: (theirs[f], mine[f]) for f in mine if mine[f] != theirs[f]}
        for name, layout in (("config", CONFIG), ("checkpoint", CHECKPOINT), ("pending", CHECKPOINT)):
            if name in found:
                found[name] = _differing(layout, *found.pop(name))
        if "rounds" in found:
            theirs_r, mine_r = found.pop("rounds")
            for i in range(4):
                a, b = (x[i * ROUND.size : (i + 1) * ROUND.size] for x in (theirs_r, mine_r))
                if a != b:
                    found[f"rounds[{i}]"] = _differing(ROUND, a, b)
        return f"header (chain, model): {found}"

    def _slot_difference(self, slots: bytes, data: bytes, at: int) -> str:
        for i in range(self.capacity):
            a, b = (
                data[at + i * SLOT.size : at + (i + 1) * SLOT.size],
                slots[i * SLOT.size : (i + 1) * SLOT.size],
            )
            if a != b:
                return f"slot {i} (chain, model): {_differing(SLOT, a, b)}"
        return "slots"


def _differing(layout: Any, theirs: bytes, mine: bytes) -> dict[str, Any]:
    a, b = layout.unpack(theirs, 0), layout.unpack(mine, 0)
    return {f: (a[f], b[f]) for f in a if a[f] != b[f]}
