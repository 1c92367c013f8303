//! Closing a round: votes decide what is accepted; history, pay, misses and samples follow.

use super::{data, join, pay, Event, MachineError, Reason, Sink};
use crate::state::{
    bits, round_status, slot_status, Bits, Header, Round, Slot, State, MAX_WITNESSES,
};
use core::convert::Infallible;
use solana_sha256_hasher::hashv;

/// Bits of a vote counter: counts up to [`MAX_WITNESSES`].
const PLANES: usize = 6;

/// How many voters name each slot: bit `p` of the count is in plane `p`.
#[derive(Default)]
struct Tally([[u64; PLANES]; 4]);

impl Tally {
    fn add(&mut self, vote: &Bits) {
        for (planes, word) in self.0.iter_mut().zip(vote) {
            let mut carry = *word;
            for plane in planes {
                if carry == 0 {
                    break;
                }
                let sum = *plane ^ carry;
                carry &= *plane;
                *plane = sum;
            }
        }
    }

    /// The slots named at least `threshold` times.
    fn at_least(&self, threshold: u32) -> Bits {
        let mut result = bits::EMPTY;
        for (planes, word) in self.0.iter().zip(result.iter_mut()) {
            let (mut more, mut equal) = (0u64, u64::MAX);
            let mut bit = 1u32 << (PLANES - 1);
            for plane in planes.iter().rev() {
                let set = threshold & bit != 0;
                bit >>= 1;
                if !set {
                    more |= equal & plane;
                    equal &= !plane;
                } else {
                    equal &= plane;
                }
            }
            *word = more | equal;
        }
        result
    }
}

/// Two thirds of `n`, rounded up, at least one.
fn threshold(n: u32) -> u32 {
    n.saturating_mul(2).div_ceil(3).max(1)
}

/// What the witnesses accept; `None` where too few of them attested.
pub(super) fn accepted(round: &Round, attestations: &[Bits; MAX_WITNESSES]) -> Option<Bits> {
    if bits::is_empty(&round.committed) {
        return Some(bits::EMPTY); // nothing to attest: nobody was drawn
    }
    let num_drawn = bits::count(&round.witnesses);
    let num_attested = bits::count(&round.attested);
    if num_attested == 0 || num_attested.saturating_mul(2) < num_drawn {
        return None;
    }
    let mut tally = Tally::default();
    for (witness, row) in bits::iter(&round.witnesses).zip(attestations) {
        if bits::contains(&round.attested, witness) {
            let mut vote = *row;
            if num_attested > 1 {
                bits::remove(&mut vote, witness);
            }
            tally.add(&vote);
        }
    }
    let of_others = tally.at_least(threshold(num_attested));
    let of_witnesses = tally.at_least(threshold(num_attested.saturating_sub(1)));
    let named = bits::or(
        &bits::minus(&of_others, &round.attested),
        &bits::and(&of_witnesses, &round.attested),
    );
    Some(bits::and(&named, &round.committed))
}

/// Bytes of a record before its accepted list, with the history before it.
const HEAD: usize = 32 + 8 + 8 + 8 + 1 + 32 + 8 + 4 + 32 + 32 + 2;
/// Bytes of an accepted slot, before its commitment: number, tier, weight.
const MEMBER: usize = 2 + 1 + 2;

fn preimage_head(header: &Header, round: &Round, count: u32) -> Result<[u8; HEAD], MachineError> {
    let count = u16::try_from(count).map_err(|_| MachineError::Overflow)?;
    let parts: [&[u8]; 11] = [
        &header.history,
        &round.epoch.to_le_bytes(),
        &round.number.to_le_bytes(),
        &round.step.to_le_bytes(),
        &[round.trained],
        &round.seed,
        &round.data_index.to_le_bytes(),
        &round.samples.to_le_bytes(),
        &bits::to_bytes(&round.assigned),
        &header.spec_hash,
        &count.to_le_bytes(),
    ];
    let mut head = [0u8; HEAD];
    let mut rest = head.as_mut_slice();
    for part in parts {
        let (place, after) = rest
            .split_at_mut_checked(part.len())
            .ok_or(MachineError::Overflow)?;
        place.copy_from_slice(part);
        rest = after;
    }
    Ok(head)
}

/// The history after a round: SHA-256 over the history before it and all that a replay needs.
fn next_history(
    header: &Header,
    slots: &[Slot],
    commitments: &[[u8; 32]],
    index: usize,
    round: &Round,
    accepted: &Bits,
) -> Result<[u8; 32], MachineError> {
    let count = bits::count(accepted);
    let entries = usize::try_from(count).map_err(|_| MachineError::Overflow)?;
    let head = preimage_head(header, round, count)?;
    let from = index.saturating_mul(slots.len());
    let row = commitments.get(from..).ok_or(MachineError::Overflow)?;
    let mut members = vec![[0u8; MEMBER]; entries];
    // hashed where they are: copying a commitment costs more than hashing it
    let mut parts: Vec<&[u8]> = vec![&head; entries.saturating_mul(2).saturating_add(1)];
    let (_, pairs) = parts.split_first_mut().ok_or(MachineError::Overflow)?;
    let (pairs, _) = pairs.as_chunks_mut::<2>();
    let mut places = pairs.iter_mut().zip(&mut members);
    bits::each(
        accepted,
        slots.iter().zip(row),
        |slot, (place, commitment)| {
            let number = u16::try_from(slot).map_err(|_| MachineError::Overflow)?;
            let ([a, b], [c, d]) = (number.to_le_bytes(), place.weight.to_le_bytes());
            let (pair, member) = places.next().ok_or(MachineError::Overflow)?;
            *member = [a, b, place.tier, c, d];
            *pair = [member, commitment];
            Ok(())
        },
    )?;
    Ok(hashv(&parts).to_bytes())
}

/// Close the round of a ring index.
pub(super) fn close(s: &mut State, index: usize, sink: &mut dyn Sink) -> Result<(), MachineError> {
    let header = &mut *s.header;
    let round = *header.rounds.get(index).ok_or(MachineError::Overflow)?;
    let verdict = accepted(&round, s.attestations);
    let accepted = verdict.unwrap_or(bits::EMPTY);
    let history = next_history(header, s.slots, s.commitments, index, &round, &accepted)?;
    header.history = history;
    let paid = pay::pay(header, s.slots, &accepted)?;
    let restored = data::give_back(header, s.returned, s.slots, &round, &accepted)?;
    let dropped = match verdict {
        Some(_) => count_misses(
            header.config.max_missed,
            s.slots,
            &round.assigned,
            &accepted,
        ),
        None => bits::EMPTY,
    };
    let closed = header.rounds.get_mut(index).ok_or(MachineError::Overflow)?;
    closed.accepted = accepted;
    closed.status = round_status::CLOSED;
    sink.emit(Event::RoundClosed {
        round: round.number,
        step: round.step,
        epoch: round.epoch,
        trained: round.is_trained(),
        assigned: round.assigned,
        accepted,
        paid,
        returned: restored.returned,
        lost: restored.lost,
        history,
    });
    if !bits::is_empty(&dropped) {
        sink.emit(Event::Dropped {
            members: dropped,
            reason: Reason::MissedRounds,
        });
    }
    Ok(())
}

/// A slot that was accepted starts again at 0; one that was not has missed a round. Returns those
/// whose presence this ends.
fn count_misses(max_missed: u16, slots: &mut [Slot], assigned: &Bits, accepted: &Bits) -> Bits {
    let mut dropped = bits::EMPTY;
    let Ok(()) = bits::each(assigned, slots, |slot, place| {
        if bits::contains(accepted, slot) {
            place.missed = 0;
            return Ok::<(), Infallible>(());
        }
        place.missed = place.missed.saturating_add(1);
        if place.missed >= max_missed && place.status == slot_status::ACTIVE {
            join::depart(place);
            bits::insert(&mut dropped, slot);
        }
        Ok(())
    });
    dropped
}
