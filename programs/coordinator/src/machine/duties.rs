//! What a member owes in a round: `ready`, `commit`, `witness`.

use super::{ensure, open, signed, slot_mut, touch, MachineError};
use crate::state::{bits, phase, round_status, slot_flag, Bits, State};

/// The member has the log's head and its data, and takes work from the next round on.
///
/// # Errors
/// `NoSuchSlot`, `WrongSigner`, `ReadyNotNow`, `NotActive`, `AlreadyReady`.
pub fn ready(s: &mut State, slot: u16, signer: &[u8; 32]) -> Result<(), MachineError> {
    let place = signed(s, slot, signer)?;
    let in_time = matches!(
        s.header.phase,
        phase::WARMUP | phase::ROUND_TRAIN | phase::ROUND_WITNESS
    );
    ensure(in_time, MachineError::ReadyNotNow)?;
    ensure(place.is_active(), MachineError::NotActive)?;
    ensure(!place.has(slot_flag::READY), MachineError::AlreadyReady)?;
    let place = slot_mut(s, usize::from(slot))?;
    place.flags |= slot_flag::READY;
    place.missed_warmups = 0;
    touch(s);
    Ok(())
}

/// Record the hash of the member's blob for the open round. Nobody serves the blob before commits are over.
///
/// # Errors
/// `NoSuchSlot`, `WrongSigner`, `NotTraining`, `WrongRound`, `NotActive`, `NotAssigned`, `AlreadyCommitted`.
pub fn commit(
    s: &mut State,
    slot: u16,
    signer: &[u8; 32],
    round: u64,
    hash: &[u8; 32],
) -> Result<(), MachineError> {
    let place = signed(s, slot, signer)?;
    let index = usize::from(slot);
    ensure(
        s.header.phase == phase::ROUND_TRAIN,
        MachineError::NotTraining,
    )?;
    let now = open::open_round(s.header)?;
    ensure(now.number == round, MachineError::WrongRound)?;
    ensure(now.status == round_status::OPEN, MachineError::NotTraining)?;
    ensure(place.is_active(), MachineError::NotActive)?;
    ensure(
        bits::contains(&now.assigned, index),
        MachineError::NotAssigned,
    )?;
    ensure(
        !bits::contains(&now.committed, index),
        MachineError::AlreadyCommitted,
    )?;
    let row = usize::from(s.header.open);
    let cell = row.saturating_mul(s.slots.len()).saturating_add(index);
    *s.commitments.get_mut(cell).ok_or(MachineError::Overflow)? = *hash;
    let now = s.header.rounds.get_mut(row).ok_or(MachineError::Overflow)?;
    bits::insert(&mut now.committed, index);
    touch(s);
    Ok(())
}

/// Attest which committed blobs of the round before the member holds, verified and decoded.
///
/// # Errors
/// `NoSuchSlot`, `WrongSigner`, `NotWitnessing`, `WrongRound`, `NotActive`, `NotWitness`, `AlreadyAttested`,
/// `BitmapNotCommitted`.
pub fn witness(
    s: &mut State,
    slot: u16,
    signer: &[u8; 32],
    round: u64,
    bitmap: &Bits,
) -> Result<(), MachineError> {
    let place = signed(s, slot, signer)?;
    let index = usize::from(slot);
    let in_time = matches!(s.header.phase, phase::ROUND_TRAIN | phase::ROUND_WITNESS);
    ensure(in_time, MachineError::NotWitnessing)?;
    let row = open::attested_index(s.header).ok_or(MachineError::NotWitnessing)?;
    let before = s.header.rounds.get(row).ok_or(MachineError::Overflow)?;
    ensure(before.number == round, MachineError::WrongRound)?;
    ensure(place.is_active(), MachineError::NotActive)?;
    ensure(
        bits::contains(&before.witnesses, index),
        MachineError::NotWitness,
    )?;
    ensure(
        !bits::contains(&before.attested, index),
        MachineError::AlreadyAttested,
    )?;
    let unknown = bits::minus(bitmap, &before.committed);
    ensure(bits::is_empty(&unknown), MachineError::BitmapNotCommitted)?;
    let rank = bits::rank(&before.witnesses, index);
    *s.attestations.get_mut(rank).ok_or(MachineError::Overflow)? = *bitmap;
    let before = s.header.rounds.get_mut(row).ok_or(MachineError::Overflow)?;
    bits::insert(&mut before.attested, index);
    touch(s);
    Ok(())
}
