"""`jsonParsed` sysvars: what explorers and clients show of the clock, rent and recent slots."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from localnet.chain.ids import (
    CLOCK,
    EPOCH_REWARDS,
    EPOCH_SCHEDULE,
    LAST_RESTART_SLOT,
    RECENT_BLOCKHASHES,
    RENT,
    SLOT_HASHES,
    SLOT_HISTORY,
    STAKE_HISTORY,
)
from localnet.chain.records import Json
from localnet.chain.txmeta import text


def parse_sysvar(address: bytes, data: bytes) -> Json:
    """A sysvar's fields, or None where its form is not known.

    Raises:
        struct.error: the data is too short.
    """
    if address not in _FORMS:
        return None
    name, read = _FORMS[address]
    return {"type": name, "info": read(data)}


def _clock(data: bytes) -> Json:
    slot, epoch_start, epoch, leader_epoch, now = struct.unpack_from("<QqQQq", data)
    return {
        "slot": slot,
        "epoch": epoch,
        "epochStartTimestamp": epoch_start,
        "leaderScheduleEpoch": leader_epoch,
        "unixTimestamp": now,
    }


def _rent(data: bytes) -> Json:
    lamports, threshold, burn = struct.unpack_from("<QdB", data)
    return {"lamportsPerByteYear": str(lamports), "exemptionThreshold": threshold, "burnPercent": burn}


def _epoch_schedule(data: bytes) -> Json:
    slots, offset, warmup, first_epoch, first_slot = struct.unpack_from("<QQ?QQ", data)
    return {
        "slotsPerEpoch": slots,
        "leaderScheduleSlotOffset": offset,
        "warmup": warmup,
        "firstNormalEpoch": first_epoch,
        "firstNormalSlot": first_slot,
    }


def _entries(form: str, data: bytes) -> Iterator[tuple[Json, ...]]:
    """The entries of a list with its length in front."""
    (count,) = struct.unpack_from("<Q", data)
    size = struct.calcsize(form)
    for index in range(min(count, (len(data) - 8) // size)):
        yield struct.unpack_from(form, data, 8 + index * size)


def _slot_hashes(data: bytes) -> Json:
    return [{"slot": slot, "hash": text(value)} for slot, value in _entries("<Q32s", data)]


def _recent_blockhashes(data: bytes) -> Json:
    return [
        {"blockhash": text(value), "feeCalculator": {"lamportsPerSignature": str(fee)}}
        for value, fee in _entries("<32sQ", data)
    ]


def _stake_history(data: bytes) -> Json:
    names = ("effective", "activating", "deactivating")
    return [
        {"epoch": epoch, "stakeHistory": dict(zip(names, stakes, strict=True))}
        for epoch, *stakes in _entries("<QQQQ", data)
    ]


def _last_restart_slot(data: bytes) -> Json:
    return {"lastRestartSlot": struct.unpack_from("<Q", data)[0]}


def _epoch_rewards(data: bytes) -> Json:
    start, partitions, parent, low, high, total, distributed, active = struct.unpack_from("<QQ32sQQQQ?", data)
    return {
        "distributionStartingBlockHeight": start,
        "numPartitions": partitions,
        "parentBlockhash": text(parent),
        "totalPoints": str(low | high << 64),
        "totalRewards": str(total),
        "distributedRewards": str(distributed),
        "active": active,
    }


def _slot_history(data: bytes) -> Json:
    """A bit for each of the last million slots, as one text: large, as a validator's is."""
    (blocks,) = struct.unpack_from("<Q", data, 1)
    bits = data[9 : 9 + 8 * blocks]
    (following,) = struct.unpack_from("<Q", data, 17 + 8 * blocks)
    return {"nextSlot": following, "bits": "".join(_BITS[byte] for byte in bits)}


_BITS = [f"{byte:08b}"[::-1] for byte in range(256)]
_FORMS: dict[bytes, tuple[str, Callable[[bytes], Json]]] = {
    CLOCK: ("clock", _clock),
    EPOCH_REWARDS: ("epochRewards", _epoch_rewards),
    EPOCH_SCHEDULE: ("epochSchedule", _epoch_schedule),
    LAST_RESTART_SLOT: ("lastRestartSlot", _last_restart_slot),
    RECENT_BLOCKHASHES: ("recentBlockhashes", _recent_blockhashes),
    RENT: ("rent", _rent),
    SLOT_HASHES: ("slotHashes", _slot_hashes),
    SLOT_HISTORY: ("slotHistory", _slot_history),
    STAKE_HISTORY: ("stakeHistory", _stake_history),
}
