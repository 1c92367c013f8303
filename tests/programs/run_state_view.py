"""A `RunState` account as nested tuples, for the tests: offsets written down here once more, by hand.

The client decodes by `layout.json`; this copy follows the structs in `state/layout.rs`, so that a mistake in
one of the two shows.
"""

import struct
from dataclasses import dataclass
from typing import Any

BITS = "32s"
CONFIG = "8Q3I4I6HB7x"
CHECKPOINT = "32s32s4QHB5x128s"
INTERVALS = "96s"
ROUND = "4Qq32s" + BITS * 5 + INTERVALS + "IHBB"
SLOT = "32s32s32sQI4H4B"
HEAD = "QQ32s32s32s32s"
MIDDLE = "7Q2q5Q4H3B5x"
PHASES = (
    "Uninitialized",
    "WaitingForMembers",
    "Warmup",
    "RoundTrain",
    "RoundWitness",
    "Cooldown",
    "Finished",
    "Paused",
)
FIXED = struct.calcsize("<" + HEAD + CONFIG + MIDDLE + CHECKPOINT * 2 + ROUND * 4) + 32 * 32
PER_SLOT = struct.calcsize("<" + SLOT) + 4 * 32 + 12


def account_size(capacity: int) -> int:
    """Bytes of the account, discriminator included."""
    return 8 + FIXED + PER_SLOT * capacity


@dataclass
class Round:
    number: int
    step: int
    epoch: int
    data_index: int
    opened_at: int
    seed: bytes
    assigned: set[int]
    committed: set[int]
    witnesses: set[int]
    attested: set[int]
    accepted: set[int]
    samples: int
    num_fills: int
    trained: int
    status: int


@dataclass
class Slot:
    wallet: bytes
    hot_key: bytes
    p2p_key: bytes
    earned: int
    last_epoch: int
    weight: int
    next_weight: int
    missed: int
    missed_warmups: int
    status: int
    flags: int
    tier: int
    next_tier: int


@dataclass
class View:
    """What the tests look at."""

    version: int
    nonce: int
    run: bytes
    spec_hash: bytes
    history: bytes
    round_rate: int
    next_round_rate: int
    pay_carry: int
    epoch: int
    step: int
    data_index: int
    next_round: int
    total_earned: int
    created_slot: int
    capacity: int
    uploader: int
    phase: str
    flags: int
    weights_hash: bytes
    checkpoint_step: int
    uri: bytes
    rounds: list[Round]
    open: Round
    slots: list[Slot]


def members(bits: bytes) -> set[int]:
    return {i for i in range(256) if bits[i // 8] >> (i % 8) & 1}


class Reader:
    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at

    def take(self, fmt: str) -> tuple[Any, ...]:
        values = struct.unpack_from("<" + fmt, self.data, self.at)
        self.at += struct.calcsize("<" + fmt)
        return values


def read(data: bytes) -> View:
    """Decode an account."""
    r = Reader(data, 8)
    version, nonce, run, spec_hash, history, _seed = r.take(HEAD)
    r.take(CONFIG)
    middle = r.take(MIDDLE)
    rate, next_rate, carry, epoch, step, data_index, next_round, _start, _epoch_start = middle[:9]
    _lost, _fills, _lost_since, total_earned, created_slot, capacity = middle[9:15]
    _returned, _failed, uploader, phase, flags, open_ = middle[15:]
    weights_hash, _history, checkpoint_step, *_, uri_len, _agreed, uri = r.take(CHECKPOINT)
    r.take(CHECKPOINT)
    rounds = [read_round(r) for _ in range(4)]
    slots = [Slot(*r.take(SLOT)) for _ in range(capacity)]
    assert len(data) == account_size(capacity)
    return View(
        version,
        nonce,
        run,
        spec_hash,
        history,
        rate,
        next_rate,
        carry,
        epoch,
        step,
        data_index,
        next_round,
        total_earned,
        created_slot,
        capacity,
        uploader,
        PHASES[phase],
        flags,
        weights_hash,
        checkpoint_step,
        uri[:uri_len],
        rounds,
        rounds[open_],
        slots,
    )


def read_round(r: Reader) -> Round:
    number, step, epoch, data_index, opened_at, seed, *sets = r.take("4Qq32s" + BITS * 5)
    _fills, samples, num_fills, trained, status = r.take(INTERVALS + "IHBB")
    return Round(
        number,
        step,
        epoch,
        data_index,
        opened_at,
        seed,
        *map(members, sets),
        samples,
        num_fills,
        trained,
        status,
    )
