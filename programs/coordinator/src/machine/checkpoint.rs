//! Agreeing on the weights at the end of an epoch, and going back to them.
//!
//! A member of tier t votes with the digests of the parts that it holds: part 0 is the smallest
//! slice, part p is what tier `max_tier - p` adds. The votes are kept where the commitments of rounds
//! were that nobody needs any more.

use super::{data, election, ensure, open, signed, slot_mut, touch, Event, MachineError, Sink};
use crate::state::{
    bits, phase, round_status, run_flag, slot_flag, Checkpoint, Header, Slot, State, MAX_TIER,
    MAX_URI, NO_UPLOADER, RING,
};
use solana_sha256_hasher::hashv;

/// Parts of the weights in a run with the highest tier.
const MAX_PARTS: usize = MAX_TIER as usize + 1;

/// Enter the agreement: the position at the log's head is pending, and an uploader is drawn.
pub(super) fn begin(s: &mut State) {
    let header = &mut *s.header;
    header.pending = Checkpoint {
        weights_hash: [0; 32],
        history: header.history,
        step: header.step,
        round: header.next_round,
        data_index: header.data_index,
        epoch: header.epoch,
        uri_len: 0,
        agreed: 0,
        _pad: [0; 5],
        uri: [0; MAX_URI],
    };
    header.set(run_flag::URI_MISSING, false);
    let full = open::select(s.slots.iter(), |slot| {
        slot.is_assignable() && slot.tier == 0
    });
    header.uploader = election::draw_one(&full, &header.seed, b"uploader")
        .and_then(|slot| u16::try_from(slot).ok())
        .unwrap_or(NO_UPLOADER);
}

/// Ring row that holds the votes on a part; never that of the last trained round, whose commitments
/// are still being fetched.
fn row_of(header: &Header, part: usize) -> usize {
    usize::from(header.open).wrapping_add(part) & (RING - 1)
}

/// Vote on the pending weights: digests of the parts that the member holds, smallest slice first.
///
/// # Errors
/// `NoSuchSlot`, `WrongSigner`, `NotCooldown`, `NotActive`, `WrongStep`, `WrongDigestCount`, `AlreadyAttested`.
pub fn attest_checkpoint(
    s: &mut State,
    slot: u16,
    signer: &[u8; 32],
    step: u64,
    digests: &[[u8; 32]],
    sink: &mut dyn Sink,
) -> Result<(), MachineError> {
    let place = signed(s, slot, signer)?;
    ensure(s.header.phase == phase::COOLDOWN, MachineError::NotCooldown)?;
    ensure(place.is_active(), MachineError::NotActive)?;
    ensure(s.header.pending.step == step, MachineError::WrongStep)?;
    let top = s.header.config.max_tier;
    let parts = top.checked_sub(place.tier).and_then(|n| n.checked_add(1));
    let parts = parts.map(usize::from).filter(|n| *n <= MAX_PARTS);
    ensure(parts == Some(digests.len()), MachineError::WrongDigestCount)?;
    ensure(
        !place.has(slot_flag::ATTESTED),
        MachineError::AlreadyAttested,
    )?;
    for (part, digest) in digests.iter().enumerate() {
        let row = row_of(s.header, part);
        if let Some(round) = s.header.rounds.get_mut(row) {
            if round.trained != 0 {
                round.status = round_status::EMPTY; // its commitments are gone from here on
            }
        }
        let cell = row
            .saturating_mul(s.slots.len())
            .saturating_add(usize::from(slot));
        *s.commitments.get_mut(cell).ok_or(MachineError::Overflow)? = *digest;
    }
    slot_mut(s, usize::from(slot))?.flags |= slot_flag::ATTESTED;
    touch(s);
    agree(s, sink);
    Ok(())
}

/// Settle the agreement if every part has the votes of more than half of its holders.
pub(super) fn agree(s: &mut State, sink: &mut dyn Sink) {
    if s.header.phase != phase::COOLDOWN || s.header.pending.agreed != 0 {
        return;
    }
    let mut weights_hash = [0u8; 32];
    for part in 0..=usize::from(s.header.config.max_tier) {
        let Some(digest) = majority(s, part) else {
            return;
        };
        weights_hash = match part {
            0 => digest,
            _ => hashv(&[&weights_hash, &digest]).to_bytes(),
        };
    }
    let header = &mut *s.header;
    header.pending.weights_hash = weights_hash;
    header.pending.agreed = 1;
    header.set(run_flag::URI_MISSING, true);
    let Checkpoint { step, epoch, .. } = header.pending;
    sink.emit(Event::CheckpointAgreed {
        step,
        epoch,
        weights_hash,
    });
}

/// The digest that more than half of a part's holders voted for.
fn majority(s: &State, part: usize) -> Option<[u8; 32]> {
    let top = usize::from(s.header.config.max_tier);
    let lowest = top.checked_sub(part)?; // tiers up to this one hold the part
    let mut num_holders = 0u32; // at most one a slot: nothing wraps
    let voters = open::select(s.slots.iter(), |slot| {
        let counts = slot.is_active()
            && usize::from(slot.tier) <= lowest
            && slot.has(slot_flag::READY | slot_flag::ATTESTED);
        num_holders = num_holders.wrapping_add(u32::from(counts));
        counts && slot.has(slot_flag::ATTESTED)
    });
    let num_voters = bits::count(&voters);
    let enough = |n: u32| n.saturating_mul(2) > num_holders;
    if !enough(num_voters) {
        return None;
    }
    let row = row_of(s.header, part).saturating_mul(s.slots.len());
    let votes = s.commitments.get(row..row.saturating_add(s.slots.len()))?;
    // compared word by word: 32 bytes would be a system call for every vote
    let votes: &[[u64; 4]] = bytemuck::try_cast_slice(votes).ok()?;
    // Boyer and Moore's majority vote, then a count unless all agree
    let mut candidate = [0u64; 4];
    let mut lead = 0u32;
    for vote in bits::iter(&voters).filter_map(|slot| votes.get(slot)) {
        if lead == 0 {
            candidate = *vote;
            lead = 1;
        } else if candidate == *vote {
            lead = lead.wrapping_add(1);
        } else {
            lead = lead.wrapping_sub(1); // was at least 1
        }
    }
    let num_votes = if lead == num_voters {
        lead
    } else {
        let votes = bits::iter(&voters).filter_map(|slot| votes.get(slot));
        let same = votes.filter(|vote| **vote == candidate).count();
        u32::try_from(same).ok()?
    };
    enough(num_votes).then_some(bytemuck::cast(candidate))
}

/// Record where the agreed weights can be had; the checkpoint becomes the run's.
///
/// # Errors
/// `NoSuchSlot`, `WrongSigner`, `NotCooldown`, `NotActive`, `WeightsNotAgreed`, `UriRecorded`, `NotUploader`, `BadUri`.
pub fn record_checkpoint(
    s: &mut State,
    slot: u16,
    signer: &[u8; 32],
    uri: &[u8],
    sink: &mut dyn Sink,
) -> Result<(), MachineError> {
    let place = signed(s, slot, signer)?;
    ensure(s.header.phase == phase::COOLDOWN, MachineError::NotCooldown)?;
    ensure(place.is_active(), MachineError::NotActive)?;
    ensure(s.header.pending.agreed != 0, MachineError::WeightsNotAgreed)?;
    ensure(
        s.header.has(run_flag::URI_MISSING),
        MachineError::UriRecorded,
    )?;
    let uploader = s.header.uploader;
    let drawn_is_there = s
        .slots
        .get(usize::from(uploader))
        .is_some_and(Slot::is_assignable);
    let allowed = slot == uploader || (!drawn_is_there && place.tier == 0);
    ensure(allowed, MachineError::NotUploader)?;
    let printable = uri.iter().all(u8::is_ascii_graphic);
    let pending = &mut s.header.pending;
    let len = u16::try_from(uri.len()).map_err(|_| MachineError::BadUri)?;
    ensure(len > 0 && printable, MachineError::BadUri)?;
    let place = pending
        .uri
        .get_mut(..uri.len())
        .ok_or(MachineError::BadUri)?;
    place.copy_from_slice(uri);
    pending.uri_len = len;
    record(s, sink);
    touch(s);
    Ok(())
}

/// The agreed weights become the run's checkpoint.
pub(super) fn record(s: &mut State, sink: &mut dyn Sink) {
    let header = &mut *s.header;
    header.set(run_flag::URI_MISSING, false);
    header.checkpoint = header.pending;
    header.fills_since_checkpoint = 0;
    header.lost_since_checkpoint = 0;
    let Checkpoint {
        step,
        epoch,
        uri_len,
        ..
    } = header.checkpoint;
    sink.emit(Event::CheckpointRecorded {
        step,
        epoch,
        uri_len,
    });
}

/// Go back to the last agreed checkpoint, because the members cannot get at the log's head.
pub(super) fn rewind(s: &mut State, sink: &mut dyn Sink) {
    let header = &mut *s.header;
    if header.history == header.checkpoint.history {
        return; // it is the log's head
    }
    let from_step = header.step;
    header.step = header.checkpoint.step;
    header.history = header.checkpoint.history;
    data::rewind(header, s.returned);
    sink.emit(Event::Rewound {
        from_step,
        to_step: header.step,
        data_index: header.data_index,
        lost_samples: header.lost_samples,
        history: header.history,
    });
}
