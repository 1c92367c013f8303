"""What a round is worth when it closes: votes, history, pay, misses and samples, to the last unit."""

import hashlib
import struct
from collections.abc import Callable

from tests.programs.fuzz.log import ACTIVE, CLOSED, Log, Round, Slot, bits

FILLS = 8
U64 = 1 << 64


def accepted(r: Round) -> int | None:
    """Slots whose blobs the witnesses hold; None where too few attested to say anything.

    A witness does not count for its own slot, unless it is the only one that attested. Two thirds of the others,
    rounded up and at least one, must name a slot.
    """
    if not r.committed:
        return 0
    attested = bits(r.attested)
    if not attested or 2 * len(attested) < r.witnesses.bit_count():
        return None
    result = 0
    for slot in bits(r.committed):
        voters = [w for w in attested if w != slot] or attested
        votes = sum(r.votes[w] >> slot & 1 for w in voters)
        if votes >= max(1, -(-2 * len(voters) // 3)):
            result |= 1 << slot
    return result


def close(log: Log, r: Round, depart: Callable[[Slot], None]) -> None:
    """Closes a round: history, pay, samples given back, misses."""
    verdict = accepted(r)
    r.accepted = verdict or 0
    log.history = next_history(log, r)
    pay(log, r.accepted)
    give_back(log, r)
    if verdict is not None:
        for i in bits(r.assigned):
            place = log.slots[i]
            if r.accepted >> i & 1:
                place.missed = 0
                continue
            place.missed += 1
            if place.missed >= log.config["max_missed"] and place.status == ACTIVE:
                depart(place)
    r.status = CLOSED


def next_history(log: Log, r: Round) -> bytes:
    """SHA-256 over the history before and all that a replay needs."""
    names = bits(r.accepted)
    preimage = log.history + struct.pack("<QQQB", r.epoch, r.number, r.step, r.trained) + r.seed
    preimage += struct.pack("<QI", r.data_index, r.samples) + r.assigned.to_bytes(32, "little")
    preimage += log.spec_hash + struct.pack("<H", len(names))
    for i in names:
        preimage += struct.pack("<HBH", i, log.slots[i].tier, log.slots[i].weight) + r.hashes[i]
    return hashlib.sha256(preimage).digest()


def pay(log: Log, mask: int) -> None:
    """Shares rate and carry among the accepted slots by weight x pay of the tier; the rest is carried."""
    tiers = log.config["pay_per_tier"]
    shares = {i: log.slots[i].weight * tiers[log.slots[i].tier] for i in bits(mask)}
    whole = sum(shares.values())
    total = log.round_rate + log.pay_carry
    if not whole or log.total_earned + total >= U64:
        return
    paid = 0
    for i, share in shares.items():
        amount = total * share // whole
        place = log.slots[i]
        place.earned += amount
        log.credits[place.wallet] = log.credits.get(place.wallet, 0) + amount
        paid += amount
    log.total_earned += paid
    log.pay_carry = total - paid
    log.rates_paid += log.round_rate


# samples


def batch_size(log: Log, num_members: int) -> int:
    """Samples of a round: a ramp over the first tokens, and at least one for each member."""
    c = log.config
    start, end, ramp = (
        c["global_batch_size_start"],
        c["global_batch_size_end"],
        c["global_batch_size_warmup_tokens"],
    )
    tokens = min(log.data_index * c["max_seq_len"], U64 - 1)
    size = end if tokens >= ramp else start + (end - start) * tokens // ramp
    return max(size, num_members)


def below_checkpoint(log: Log, start: int, length: int) -> int:
    """How many of these samples the checkpoint has already seen handed out."""
    return min(max(log.checkpoint.data_index - start, 0), length)


def take_samples(log: Log, r: Round, num_members: int) -> None:
    """Returned intervals first, oldest first and at most eight, then new data."""
    r.samples = want = batch_size(log, num_members)
    while want and log.returned and len(r.fills) < FILLS:
        start, length = log.returned[0]
        taken = min(length, want)
        r.fills.append((start, taken))
        log.fills_since_checkpoint += below_checkpoint(log, start, taken)
        want -= taken
        if taken < length:
            log.returned[0] = (start + taken, length - taken)
            break
        log.returned.pop(0)
    log.data_index += want


def give_back(log: Log, r: Round) -> None:
    """Samples of assigned slots that were not accepted are handed out again."""
    assigned = bits(r.assigned)
    if not r.assigned & ~r.accepted:
        return
    whole = sum(log.slots[i].weight for i in assigned)
    spare = r.samples - len(assigned)
    before = position = 0
    pieces: list[list[int]] = []
    for n, i in enumerate(assigned, 1):
        before += log.slots[i].weight
        end = n + spare * before // whole
        if not r.accepted >> i & 1:
            if pieces and pieces[-1][1] == position:
                pieces[-1][1] = end
            else:
                pieces.append([position, end])
        position = end
    sources: list[tuple[int, int]] = [*r.fills, (r.data_index, r.samples)]
    for low, high in pieces:
        offset = 0
        for start, length in sources:
            first, last = max(low, offset), min(high, offset + length, r.samples)
            if first < last:
                _restore(log, start + first - offset, last - first)
            offset += length


def _restore(log: Log, start: int, length: int) -> None:
    below = below_checkpoint(log, start, length)
    log.fills_since_checkpoint = max(log.fills_since_checkpoint - below, 0)
    if log.returned and sum(log.returned[-1]) == start and log.returned[-1][1] + length < 1 << 32:
        log.returned[-1] = (log.returned[-1][0], log.returned[-1][1] + length)
    elif len(log.returned) < log.capacity:
        log.returned.append((start, length))
    else:
        log.lost_samples += length
        log.lost_since_checkpoint += length - below


def rewind(log: Log) -> None:
    """Back to the last agreed checkpoint: step, history and data index."""
    c = log.checkpoint
    if log.history == c.history:
        return
    log.step, log.history, log.data_index = c.step, c.history, c.data_index
    kept = ((start, below_checkpoint(log, start, length)) for start, length in log.returned)
    log.returned = [piece for piece in kept if piece[1]]
    log.lost_samples = max(log.lost_samples + log.fills_since_checkpoint - log.lost_since_checkpoint, 0)
    log.fills_since_checkpoint = log.lost_since_checkpoint = 0


# draws


def draw(candidates: list[int], want: int, seed: bytes, label: bytes) -> list[int]:
    """`want` of the candidates, by splitmix64 out of the seed; all of them where there are no more."""
    pool = list(candidates)
    if len(pool) <= want:
        return pool
    state = int.from_bytes(hashlib.sha256(seed + label).digest()[:8], "little")
    drawn = []
    for _ in range(want):
        state = (state + 0x9E3779B97F4A7C15) % U64
        z = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 % U64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % U64
        z ^= z >> 31
        chosen = (z >> 32) * len(pool) >> 32
        drawn.append(pool[chosen])
        pool[chosen] = pool[-1]
        pool.pop()
    return drawn
