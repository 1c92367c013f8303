//! Which samples a round takes, which it gives back, and in what order they are handed out.
//!
//! The samples of a round are its fills (returned intervals, oldest first) followed by new data, and
//! count from 0: its virtual positions. The assigned slots take consecutive ranges of them in slot
//! order, in proportion to their weights, at least one each.

use super::MachineError;
use crate::state::{bits, Bits, Header, Interval, Round, Slot};

/// Samples of the next round: the ramped batch, and at least one for every member.
///
/// # Errors
/// `Overflow`: the configuration is out of its bounds.
pub(super) fn batch_size(header: &Header, members: u32) -> Result<u32, MachineError> {
    let config = &header.config;
    let (start, end) = (config.global_batch_size_start, config.global_batch_size_end);
    let warmup = config.global_batch_size_warmup_tokens;
    let tokens = header
        .data_index
        .saturating_mul(u64::from(config.max_seq_len));
    let batch = if tokens >= warmup {
        end
    } else {
        let span = end.checked_sub(start).ok_or(MachineError::Overflow)?;
        let ramp = u128::from(span)
            .checked_mul(u128::from(tokens))
            .and_then(|x| x.checked_div(u128::from(warmup)))
            .and_then(|x| u32::try_from(x).ok())
            .ok_or(MachineError::Overflow)?;
        start.checked_add(ramp).ok_or(MachineError::Overflow)?
    };
    Ok(batch.max(members))
}

/// Give the round its samples: returned intervals first, then new ones.
///
/// # Errors
/// `Overflow`: no sample numbers are left.
pub(super) fn take(
    header: &mut Header,
    returned: &mut [Interval],
    round: &mut Round,
) -> Result<(), MachineError> {
    let mut want = round.samples;
    let mut num_fills = 0u16;
    let mut used_up = 0usize;
    let len = usize::from(header.returned_len).min(returned.len());
    for (entry, fill) in returned.iter_mut().take(len).zip(round.fills.iter_mut()) {
        if want == 0 {
            break;
        }
        let taken = entry.len.min(want);
        *fill = Interval::new(entry.first(), taken);
        let below = below_checkpoint(header, fill.first(), taken);
        header.fills_since_checkpoint = header.fills_since_checkpoint.saturating_add(below);
        num_fills = num_fills.saturating_add(1);
        want = want.saturating_sub(taken);
        if taken == entry.len {
            used_up = used_up.saturating_add(1);
        } else {
            *entry = Interval::new(fill.end(), entry.len.saturating_sub(taken));
        }
    }
    if used_up > 0 {
        let rest = returned.get_mut(..len).ok_or(MachineError::Overflow)?;
        rest.rotate_left(used_up.min(len));
        header.returned_len =
            u16::try_from(len.saturating_sub(used_up)).map_err(|_| MachineError::Overflow)?;
    }
    round.num_fills = num_fills;
    round.data_index = header.data_index;
    header.data_index = header
        .data_index
        .checked_add(u64::from(want))
        .ok_or(MachineError::Overflow)?;
    Ok(())
}

/// Samples that went back into the table, and samples for which it had no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Restored {
    pub returned: u64,
    pub lost: u64,
}

/// Return the samples of the assigned slots that were not accepted.
///
/// # Errors
/// `Overflow`: the round is not consistent.
pub(super) fn give_back(
    header: &mut Header,
    returned: &mut [Interval],
    slots: &[Slot],
    round: &Round,
    accepted: &Bits,
) -> Result<Restored, MachineError> {
    let mut restored = Restored::default();
    if bits::is_empty(&bits::minus(&round.assigned, accepted)) {
        return Ok(restored);
    }
    if bits::is_empty(accepted) {
        let all = u64::from(round.samples);
        restore(header, returned, round, 0, all, &mut restored)?;
        return Ok(restored);
    }
    let mut total = 0u64;
    bits::each(&round.assigned, slots, |_, place| {
        total = total.saturating_add(u64::from(place.weight));
        Ok::<(), MachineError>(())
    })?;
    let members = u64::from(bits::count(&round.assigned));
    let spare = u64::from(round.samples)
        .checked_sub(members)
        .ok_or(MachineError::Overflow)?;
    let mut start = 0u64; // where the slot's range starts
    let mut open: Option<u64> = None; // where a run of slots that were not accepted starts
    let mut before = 0u64; // sum of the weights so far
    let mut index = 0u64; // slots so far
    bits::each(&round.assigned, slots, |slot, place| {
        // index <= 256, spare < 2^32 and before < 2^24: nothing wraps
        index = index.wrapping_add(1);
        before = before.wrapping_add(u64::from(place.weight));
        let end = spare
            .wrapping_mul(before)
            .checked_div(total)
            .and_then(|x| x.checked_add(index))
            .ok_or(MachineError::Overflow)?;
        if bits::contains(accepted, slot) {
            if let Some(from) = open.take() {
                restore(header, returned, round, from, start, &mut restored)?;
            }
        } else if open.is_none() {
            open = Some(start);
        }
        start = end;
        Ok(())
    })?;
    if let Some(from) = open {
        restore(header, returned, round, from, start, &mut restored)?;
    }
    Ok(restored)
}

/// Return the virtual positions `from..to` of a round.
fn restore(
    header: &mut Header,
    returned: &mut [Interval],
    round: &Round,
    from: u64,
    to: u64,
    restored: &mut Restored,
) -> Result<(), MachineError> {
    let mut offset = 0u64; // virtual position of the piece
    for fill in round.fills.iter().take(usize::from(round.num_fills)) {
        let end = offset.saturating_add(u64::from(fill.len));
        if from < end && offset < to {
            let first = fill.first();
            overlap(header, returned, restored, (from, to), (offset, end), first)?;
        }
        offset = end;
    }
    let end = u64::from(round.samples);
    overlap(
        header,
        returned,
        restored,
        (from, to),
        (offset, end),
        round.data_index,
    )
}

/// Return the part of a piece, virtual `offset..end` and real from `first` on, that `from..to` covers.
fn overlap(
    header: &mut Header,
    returned: &mut [Interval],
    restored: &mut Restored,
    (from, to): (u64, u64),
    (offset, end): (u64, u64),
    first: u64,
) -> Result<(), MachineError> {
    let (low, high) = (from.max(offset), to.min(end));
    if low >= high {
        return Ok(());
    }
    let real = low.checked_sub(offset).and_then(|x| x.checked_add(first));
    let real = real.ok_or(MachineError::Overflow)?;
    let len = u32::try_from(high.saturating_sub(low)).map_err(|_| MachineError::Overflow)?;
    if push(header, returned, real, len) {
        restored.returned = restored.returned.saturating_add(u64::from(len));
    } else {
        restored.lost = restored.lost.saturating_add(u64::from(len));
    }
    Ok(())
}

/// Put an interval at the table's end, merged with its neighbour; false where there is no room: its
/// samples are lost, and counted.
fn push(header: &mut Header, returned: &mut [Interval], first: u64, len: u32) -> bool {
    let below = below_checkpoint(header, first, len);
    header.fills_since_checkpoint = header.fills_since_checkpoint.saturating_sub(below);
    let used = usize::from(header.returned_len);
    if let Some(last) = used.checked_sub(1).and_then(|i| returned.get_mut(i)) {
        if last.end() == first {
            if let Some(merged) = last.len.checked_add(len) {
                last.len = merged;
                return true;
            }
        }
    }
    if let Some(entry) = returned.get_mut(used) {
        *entry = Interval::new(first, len);
        header.returned_len = header.returned_len.saturating_add(1);
        return true;
    }
    let len = u64::from(len);
    header.lost_samples = header.lost_samples.saturating_add(len);
    let above = len.saturating_sub(below);
    header.lost_since_checkpoint = header.lost_since_checkpoint.saturating_add(above);
    false
}

/// How many of the samples lie below the checkpoint's data index.
fn below_checkpoint(header: &Header, first: u64, len: u32) -> u64 {
    header
        .checkpoint
        .data_index
        .saturating_sub(first)
        .min(u64::from(len))
}

/// Go back to the checkpoint's data index. What lies above will be handed out again; what was taken
/// up below it since then is lost, and counted.
pub(super) fn rewind(header: &mut Header, returned: &mut [Interval]) {
    let index = header.checkpoint.data_index;
    let used = usize::from(header.returned_len).min(returned.len());
    let mut kept = 0usize;
    for i in 0..used {
        let Some(entry) = returned.get(i).copied() else {
            break;
        };
        let len = below_checkpoint(header, entry.first(), entry.len);
        let len = u32::try_from(len).unwrap_or(entry.len);
        if len > 0 {
            if let Some(place) = returned.get_mut(kept) {
                *place = Interval::new(entry.first(), len);
                kept = kept.saturating_add(1);
            }
        }
    }
    header.returned_len = u16::try_from(kept).unwrap_or(header.returned_len);
    header.data_index = index;
    header.lost_samples = header
        .lost_samples
        .saturating_add(header.fills_since_checkpoint)
        .saturating_sub(header.lost_since_checkpoint);
    header.fills_since_checkpoint = 0;
    header.lost_since_checkpoint = 0;
}
