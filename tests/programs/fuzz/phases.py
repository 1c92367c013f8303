"""What time does to a run: the phases, the opening of rounds, the draws."""

import hashlib

from tests.programs.fuzz import settlement
from tests.programs.fuzz.log import (
    ACTIVE,
    COMMITTED,
    COOLDOWN,
    FINISHED,
    NOBODY,
    OPEN,
    PAUSED,
    PRESENT,
    TRAIN,
    WAITING,
    WARMUP,
    WITNESS,
    Checkpoint,
    Log,
    Round,
    bits,
)
from tests.programs.fuzz.rules import (
    NO_DIGEST,
    attested_round,
    depart,
    end_epoch,
    enough_present,
    enter,
    record,
)

MAX_MISSED_WARMUPS = 3


def tick(log: Log, now: int, slot_hash: bytes) -> int:
    """Makes what is due, at most four transitions; returns how many."""
    made = 0
    while made < 4 and log.phase in STEPS and STEPS[log.phase](log, now, slot_hash):
        made += 1
    return made


def _waiting(log: Log, now: int, _slot_hash: bytes) -> bool:
    if now < log.phase_start + log.config["waiting_for_members_extra_time"] or not enough_present(log):
        return False
    log.epoch += 1
    log.epoch_start = now
    log.round_rate = log.next_round_rate
    for s in log.slots:
        s.ready = s.voted = s.in_epoch = False
        if s.present and s.next_tier <= log.config["max_tier"]:
            s.status, s.in_epoch, s.missed = ACTIVE, True, 0
            s.tier, s.weight, s.last_epoch = s.next_tier, s.next_weight, log.epoch
    enter(log, now, WARMUP)
    return True


def _warmup(log: Log, now: int, slot_hash: bytes) -> bool:
    over = now >= log.phase_start + log.config["warmup_time"]
    active = [s for s in log.slots if s.status == ACTIVE]
    late = [s for s in active if not s.ready]
    if late and not over:
        return False
    there = [s for s in active if s.ready]
    full = sum(s.tier == 0 for s in there)
    suffices = len(there) >= log.config["min_clients"] and full >= log.config["min_full_members"]
    if not suffices and not over:
        return False
    for s in late:
        s.missed_warmups += 1
        s.ready = s.voted = s.in_epoch = False
        s.status = PRESENT
        if s.missed_warmups >= MAX_MISSED_WARMUPS:
            s.missed_warmups = 0
            depart(s)
    if suffices:
        log.failed_warmups = 0
        log.epoch_start = now
        open_round(log, now, log.history, slot_hash, True)
        enter(log, now, TRAIN)
        return True
    end_epoch(log)
    log.failed_warmups += 1
    if log.failed_warmups >= log.config["max_failed_warmups"]:
        log.failed_warmups = 0
        settlement.rewind(log)
    enter(log, now, WAITING)
    return True


def assignable(log: Log) -> list[int]:
    return [i for i, s in enumerate(log.slots) if s.status == ACTIVE and s.ready]


def all_attested(log: Log) -> bool:
    before = attested_round(log)
    if before is None:
        return True
    return not any(log.slots[i].status == ACTIVE for i in bits(before.witnesses & ~before.attested))


def _round_train(log: Log, now: int, _slot_hash: bytes) -> bool:
    r = log.rounds[log.open]
    late = bits(r.assigned & ~r.committed)
    done = not any(log.slots[i].status == ACTIVE for i in late) and all_attested(log)
    if not done and now < log.phase_start + log.config["max_round_train_time"]:
        return False
    r.status = COMMITTED
    for i in late:
        log.slots[i].ready = False
    enter(log, now, WITNESS)
    return True


def _round_witness(log: Log, now: int, slot_hash: bytes) -> bool:
    if not all_attested(log) and now < log.phase_start + log.config["round_witness_time"]:
        return False
    before, history = attested_round(log), log.history
    if before is not None:
        settlement.close(log, before, depart)
    if log.draining:
        settlement.close(log, log.rounds[log.open], depart)
        log.draining = False
        begin_checkpoint(log)
        enter(log, now, COOLDOWN)
        return True
    goes_on = (
        len(assignable(log)) >= log.config["min_clients"]
        and now < log.epoch_start + log.config["epoch_time"]
        and log.step < log.config["total_steps"]
        and not log.pause_requested
    )
    log.draining = not goes_on
    open_round(log, now, history, slot_hash, goes_on)
    enter(log, now, TRAIN)
    return True


def _cooldown(log: Log, now: int, _slot_hash: bytes) -> bool:
    if not log.pending.agreed or log.uri_missing:
        if now < log.phase_start + log.config["cooldown_time"]:
            return False
        if log.pending.agreed:
            record(log)
    end_epoch(log)
    finished = log.step >= log.config["total_steps"]
    enter(log, now, FINISHED if finished else PAUSED if log.pause_requested else WAITING)
    log.pause_requested = False
    return True


STEPS = {
    WAITING: _waiting,
    WARMUP: _warmup,
    TRAIN: _round_train,
    WITNESS: _round_witness,
    COOLDOWN: _cooldown,
}


def open_round(log: Log, now: int, history: bytes, slot_hash: bytes, trained: bool) -> None:
    """The seed moves on, the witnesses of the round before are drawn, work is assigned."""
    log.seed = hashlib.sha256(log.seed + history + slot_hash).digest()
    members = assignable(log)
    before_index = log.open  # still the round before: it was the newest until now
    before = log.rounds[before_index]
    if before.status == COMMITTED and before.committed:
        want = log.config["witness_nodes"] or 32
        drawn = settlement.draw(members, want, log.seed, b"witness")
        before.witnesses, before.attested, before.votes = sum(1 << i for i in drawn), 0, {}
    r = Round(
        log.next_round, log.step, log.epoch, log.data_index, now, log.seed, trained=trained, status=OPEN
    )
    log.open = log.next_round & 3
    log.next_round += 1
    if trained:
        r.assigned = sum(1 << i for i in members)
        settlement.take_samples(log, r, len(members))
        log.step += 1
    log.rounds[log.open] = r


def begin_checkpoint(log: Log) -> None:
    log.pending = Checkpoint(NO_DIGEST, log.history, log.step, log.next_round, log.data_index, log.epoch)
    log.uri_missing = False
    log.ballots = {}
    full = [i for i in assignable(log) if log.slots[i].tier == 0]
    drawn = settlement.draw(full, 1, log.seed, b"uploader")
    log.uploader = drawn[0] if drawn else NOBODY
