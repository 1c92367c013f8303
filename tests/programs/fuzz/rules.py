"""The rules of a run as the design states them, written once more in Python: who does what in which phase.

Votes, history, pay and samples are in `settlement`. Every action refuses with the name of an error and has then
changed nothing.
"""

import hashlib
from typing import Any

from tests.programs.fuzz.log import (
    ACTIVE,
    CLOSED,
    COMMITTED,
    COOLDOWN,
    DEPARTED,
    EMPTY,
    FINISHED,
    FREE,
    NOBODY,
    OPEN,
    PAUSED,
    PRESENT,
    TRAIN,
    UNINITIALIZED,
    WAITING,
    WARMUP,
    WITNESS,
    Checkpoint,
    Log,
    Round,
    Slot,
)

HALTED = (UNINITIALIZED, PAUSED, FINISHED)
IN_EPOCH = (WARMUP, TRAIN, WITNESS, COOLDOWN)
MAX_MISSED_WARMUPS = 3
TEN_YEARS = 315_360_000


class Refuse(Exception):
    """The instruction must fail; the name is the expected error, or empty where several would do."""

    def __init__(self, name: str = "") -> None:
        super().__init__(name)
        self.name = name


def need(condition: bool, name: str = "") -> None:
    """Refuse unless the condition holds."""
    if not condition:
        raise Refuse(name)


# what members do


def signed(log: Log, slot: int, signer: str) -> Slot:
    """The slot, if the signer is its wallet or hot key."""
    need(slot < log.capacity, "NoSuchSlot")
    place = log.slots[slot]
    need(place.status != FREE, "WrongSigner")
    need(signer == place.wallet or (signer == place.hot_key and signer != "zero"), "WrongSigner")
    return place


def join(log: Log, now: int, wallet: str, hot_key: str, p2p_key: bytes, tier: int, weight: int) -> int:
    """A wallet comes or comes back; returns its slot."""
    need(log.phase != UNINITIALIZED, "NotConfigured")
    need(log.phase != FINISHED, "RunFinished")
    need(any(p2p_key), "ZeroWallet")
    need(weight > 0, "ZeroWeight")
    need(tier <= log.config["max_tier"], "TierTooHigh")
    own = next((i for i, s in enumerate(log.slots) if s.status != FREE and s.wallet == wallet), None)
    need(own is None or not log.slots[own].present, "AlreadyJoined")
    others = (s for i, s in enumerate(log.slots) if s.status != FREE and i != own)
    need(all(s.p2p_key != p2p_key for s in others), "DuplicatePeer")
    present = [s for s in log.slots if s.present]
    lacking = max(log.config["min_full_members"] - sum(s.next_tier == 0 for s in present), 0)
    need(tier == 0 or log.capacity - len(present) - 1 >= lacking, "KeptForFull")
    slot = own
    if slot is None:
        slot = next((i for i, s in enumerate(log.slots) if s.status == FREE), None)
    if slot is None:
        idle = (i for i, s in enumerate(log.slots) if s.status == DEPARTED and s.earned == 0)
        slot = next((i for i in idle if not is_named(log, i)), None)
    need(slot is not None, "TableFull")
    assert slot is not None
    enough_before = enough_present(log)
    if own is None:
        log.slots[slot] = Slot(wallet=wallet, tier=tier, weight=weight)
    place = log.slots[slot]
    place.hot_key, place.p2p_key, place.next_tier, place.next_weight = hot_key, p2p_key, tier, weight
    place.ready = place.voted = False
    returns = log.phase in IN_EPOCH and place.in_epoch and place.missed < log.config["max_missed"]
    same = place.tier == tier and place.weight == weight
    place.status = ACTIVE if returns and same else PRESENT
    if log.phase == WAITING and enough_present(log) and not enough_before:
        log.phase_start = now  # the extra wait counts from whoever makes them enough
    return slot


def is_named(log: Log, slot: int) -> bool:
    """Whether a round that somebody still needs names the slot."""
    for r in log.rounds:
        if r.status in (OPEN, COMMITTED) and (r.assigned | r.witnesses) >> slot & 1:
            return True
        if r.status == CLOSED and r.assigned >> slot & 1 and log.phase in IN_EPOCH:
            return True
    return False


def depart(place: Slot) -> None:
    place.status = DEPARTED
    place.ready = place.voted = False


def leave(log: Log, slot: int, signer: str) -> None:
    place = signed(log, slot, signer)
    need(place.present, "NotPresent")
    depart(place)
    agree(log)


def evict(log: Log, slot: int, wallet: str) -> None:
    need(slot < log.capacity, "NoSuchSlot")
    place = log.slots[slot]
    need(place.present and place.wallet == wallet, "NotPresent")
    depart(place)
    agree(log)


def settle(log: Log, slot: int, wallet: str) -> int:
    """Takes a wallet's pay out of its slot and frees the slot if nobody needs it; returns the pay."""
    need(slot < log.capacity, "NoSuchSlot")
    place = log.slots[slot]
    if place.status == FREE or place.wallet != wallet:
        return 0
    moved, place.earned = place.earned, 0
    if place.status == DEPARTED and not is_named(log, slot):
        log.slots[slot] = Slot()
    return moved


def ready(log: Log, slot: int, signer: str) -> None:
    place = signed(log, slot, signer)
    need(log.phase in (WARMUP, TRAIN, WITNESS), "ReadyNotNow")
    need(place.status == ACTIVE, "NotActive")
    need(not place.ready, "AlreadyReady")
    place.ready = True
    place.missed_warmups = 0


def commit(log: Log, slot: int, signer: str, number: int, value: bytes) -> None:
    place = signed(log, slot, signer)
    need(log.phase == TRAIN, "NotTraining")
    now = log.rounds[log.open]
    need(now.number == number, "WrongRound")
    need(place.status == ACTIVE, "NotActive")
    need(bool(now.assigned >> slot & 1), "NotAssigned")
    need(not now.committed >> slot & 1, "AlreadyCommitted")
    now.committed |= 1 << slot
    now.hashes[slot] = value


def attested_round(log: Log) -> Round | None:
    """The round before the newest, while it is being attested."""
    before = log.rounds[(log.open - 1) & 3]
    return before if before.status == COMMITTED else None


def witness(log: Log, slot: int, signer: str, number: int, mask: int) -> None:
    place = signed(log, slot, signer)
    need(log.phase in (TRAIN, WITNESS), "NotWitnessing")
    before = attested_round(log)
    need(before is not None, "NotWitnessing")
    assert before is not None
    need(before.number == number, "WrongRound")
    need(place.status == ACTIVE, "NotActive")
    need(bool(before.witnesses >> slot & 1), "NotWitness")
    need(not before.attested >> slot & 1, "AlreadyAttested")
    need(not mask & ~before.committed, "BitmapNotCommitted")
    before.attested |= 1 << slot
    before.votes[slot] = mask


def attest_checkpoint(log: Log, slot: int, signer: str, step: int, digests: list[bytes]) -> None:
    place = signed(log, slot, signer)
    need(log.phase == COOLDOWN, "NotCooldown")
    need(place.status == ACTIVE, "NotActive")
    need(log.pending.step == step, "WrongStep")
    need(len(digests) == log.config["max_tier"] - place.tier + 1, "WrongDigestCount")
    need(not place.voted, "AlreadyAttested")
    place.voted = True
    log.ballots[slot] = digests
    for part in range(len(digests)):  # the votes reuse the memory of old commitments
        row = log.rounds[(log.open + part) & 3]
        if row.trained:
            row.status = EMPTY
    agree(log)


def agree(log: Log) -> None:
    """The pending weights are agreed once more than half of each part's holders voted the same."""
    if log.phase != COOLDOWN or log.pending.agreed:
        return
    total = NO_DIGEST
    top = log.config["max_tier"]
    active = [(i, s) for i, s in enumerate(log.slots) if s.status == ACTIVE]
    for part in range(top + 1):
        holders = [(i, s) for i, s in active if s.tier <= top - part and (s.ready or s.voted)]
        votes: dict[bytes, int] = {}
        for i, s in holders:
            if s.voted:
                votes[log.ballots[i][part]] = votes.get(log.ballots[i][part], 0) + 1
        chosen = [d for d, n in votes.items() if 2 * n > len(holders)]
        if not chosen:
            return
        total = chosen[0] if part == 0 else hashlib.sha256(total + chosen[0]).digest()
    log.pending.weights_hash = total
    log.pending.agreed = True
    log.uri_missing = True


NO_DIGEST = bytes(32)


def record_checkpoint(log: Log, slot: int, signer: str, uri: bytes) -> None:
    place = signed(log, slot, signer)
    need(log.phase == COOLDOWN, "NotCooldown")
    need(place.status == ACTIVE, "NotActive")
    need(log.pending.agreed, "WeightsNotAgreed")
    need(log.uri_missing, "UriRecorded")
    drawn = log.slots[log.uploader] if log.uploader < log.capacity else None
    there = drawn is not None and drawn.status == ACTIVE and drawn.ready
    need(slot == log.uploader or (not there and place.tier == 0), "NotUploader")
    need(1 <= len(uri) <= 128 and all(33 <= b <= 126 for b in uri), "BadUri")
    log.pending.uri = uri
    record(log)


def record(log: Log) -> None:
    log.uri_missing = False
    pending = log.pending
    log.checkpoint = Checkpoint(*(getattr(pending, f) for f in Checkpoint.__slots__))
    log.fills_since_checkpoint = log.lost_since_checkpoint = 0


# what the authority does


def configure(log: Log, now: int, config: dict[str, Any], packed: bytes) -> None:
    need(log.phase in HALTED, "NotHalted")
    check_config(config, log.capacity)
    log.config, log.config_bytes, log.configured = config, packed, True
    if log.phase == FINISHED and log.step < config["total_steps"]:
        enter(log, now, PAUSED)
    complete(log, now)


def check_config(c: dict[str, Any], capacity: int) -> None:
    """The bounds of every rule."""
    times = ("warmup_time", "cooldown_time", "max_round_train_time", "round_witness_time", "epoch_time")
    need(all(1 <= c[t] <= TEN_YEARS for t in times))
    need(c["waiting_for_members_extra_time"] <= TEN_YEARS, "BadExtraTime")
    need(c["total_steps"] >= 1, "BadTotalSteps")
    start, end = c["global_batch_size_start"], c["global_batch_size_end"]
    need(1 <= start <= end <= 1 << 24)
    need(c["max_seq_len"] >= 1, "BadMaxSeqLen")
    need(max(c["pay_per_tier"]) <= 1_000_000, "BadPayPerTier")
    init = c["init_min_clients"]
    need(1 <= init <= capacity, "BadInitMinClients")
    need(1 <= c["min_clients"] <= init, "BadMinClients")
    need(1 <= c["min_full_members"] <= init, "BadMinFullMembers")
    need(c["witness_nodes"] <= 32, "BadWitnessNodes")
    need(c["max_missed"] >= 1, "BadMaxMissed")
    need(c["max_failed_warmups"] >= 1, "BadMaxFailedWarmups")
    need(c["max_tier"] <= 2, "BadMaxTier")


def complete(log: Log, now: int) -> None:
    if log.configured and log.sealed and log.phase == UNINITIALIZED:
        enter(log, now, PAUSED)


def seal(log: Log, now: int, spec_hash: bytes) -> None:
    need(log.phase in HALTED, "NotHalted")
    need(not log.sealed, "SpecSealed")
    log.spec_hash, log.sealed = spec_hash, True
    complete(log, now)


def unseal(log: Log, now: int) -> None:
    need(log.phase in HALTED, "NotHalted")
    log.spec_hash, log.sealed = NO_DIGEST, False
    if log.phase != UNINITIALIZED:
        enter(log, now, UNINITIALIZED)


def set_round_rate(log: Log, rate: int) -> None:
    need(rate <= 1 << 62, "RateTooHigh")
    log.next_round_rate = rate


def set_paused(log: Log, now: int, paused: bool) -> None:
    need(log.phase != UNINITIALIZED, "NotConfigured")
    need(log.phase != FINISHED, "RunFinished")
    if paused:
        need(log.phase != PAUSED and not log.pause_requested, "AlreadyPaused")
        if log.phase in (WAITING, WARMUP):
            end_epoch(log)
            enter(log, now, PAUSED)
            return
    else:
        need(log.phase == PAUSED or log.pause_requested, "NotPaused")
        if log.phase == PAUSED:
            done = log.step >= log.config["total_steps"]
            enter(log, now, FINISHED if done else WAITING)
            return
    log.pause_requested = paused


def check_closable(log: Log) -> None:
    need(log.phase in HALTED, "NotHalted")
    need(all(s.earned == 0 for s in log.slots), "NotSettled")


# shared with `phases`


def enough_present(log: Log) -> bool:
    top = log.config["max_tier"]
    tiers = [s.next_tier for s in log.slots if s.status in (PRESENT, ACTIVE) and s.next_tier <= top]
    full = tiers.count(0)
    return len(tiers) >= log.config["init_min_clients"] and full >= log.config["min_full_members"]


def enter(log: Log, now: int, phase: int) -> None:
    log.phase, log.phase_start = phase, now


def end_epoch(log: Log) -> None:
    for s in log.slots:
        if s.status == ACTIVE:
            s.status = PRESENT
        s.ready = s.voted = s.in_epoch = False
    log.uploader = NOBODY
