//! The phases: what ends a wait, and what happens then.

use super::{checkpoint, close, join, open, touch, Env, Event, MachineError, Reason, Sink};
use crate::state::{
    bits, phase, round_status, run_flag, slot_flag, slot_status, Bits, State, NO_UPLOADER,
};

/// Transitions that one tick makes at most.
pub const MAX_TRANSITIONS: u8 = 4;

/// Make the transitions that are due. Returns how many there were; with nothing due the state is unchanged.
///
/// # Errors
/// `Overflow`: a counter has left its range. The state may be half changed: drop the transaction.
pub fn tick(s: &mut State, env: &Env, sink: &mut dyn Sink) -> Result<u8, MachineError> {
    let mut made = 0u8;
    while made < MAX_TRANSITIONS {
        let due = match s.header.phase {
            phase::WAITING_FOR_MEMBERS => waiting(s, env, sink)?,
            phase::WARMUP => warmup(s, env, sink)?,
            phase::ROUND_TRAIN => round_train(s, env, sink)?,
            phase::ROUND_WITNESS => round_witness(s, env, sink)?,
            phase::COOLDOWN => cooldown(s, env, sink)?,
            _ => false,
        };
        if !due {
            break;
        }
        made = made.saturating_add(1);
    }
    Ok(made)
}

/// Whether a wait that began at `start` is over.
fn over(start: i64, seconds: u64, env: &Env) -> bool {
    env.now >= start.saturating_add(i64::try_from(seconds).unwrap_or(i64::MAX))
}

/// Whether the current phase has lasted this long.
fn lasted(s: &State, seconds: u64, env: &Env) -> bool {
    over(s.header.phase_start, seconds, env)
}

pub(super) fn enter(s: &mut State, env: &Env, to: u8, sink: &mut dyn Sink) {
    let header = &mut *s.header;
    let from = header.phase;
    header.phase = to;
    header.phase_start = env.now;
    let round = header.next_round.saturating_sub(1);
    sink.emit(Event::PhaseChanged {
        from,
        to,
        epoch: header.epoch,
        step: header.step,
        round,
    });
    touch(s);
}

/// Everyone active is back to waiting.
pub(super) fn end_epoch(s: &mut State) {
    for slot in s.slots.iter_mut() {
        if slot.is_active() {
            slot.status = slot_status::WAITING;
        }
        slot.flags = 0;
    }
    s.header.uploader = NO_UPLOADER;
}

fn waiting(s: &mut State, env: &Env, sink: &mut dyn Sink) -> Result<bool, MachineError> {
    if !lasted(s, s.header.config.waiting_for_members_extra_time, env) || !join::enough_present(s) {
        return Ok(false);
    }
    let header = &mut *s.header;
    header.epoch = header.epoch.checked_add(1).ok_or(MachineError::Overflow)?;
    header.epoch_start = env.now;
    header.round_rate = header.next_round_rate;
    let (max_tier, [a, b, c, d, ..]) = (header.config.max_tier, header.epoch.to_le_bytes());
    let last_epoch = u32::from_le_bytes([a, b, c, d]);
    let members = open::select(s.slots.iter_mut(), |slot| {
        slot.flags = 0;
        let takes_part = join::is_eligible(slot, max_tier);
        if takes_part {
            slot.status = slot_status::ACTIVE;
            slot.flags = slot_flag::IN_EPOCH;
            slot.tier = slot.next_tier;
            slot.weight = slot.next_weight;
            slot.missed = 0;
            slot.last_epoch = last_epoch;
        }
        takes_part
    });
    let (epoch, round_rate) = (s.header.epoch, s.header.round_rate);
    sink.emit(Event::EpochStarted {
        epoch,
        members,
        round_rate,
    });
    enter(s, env, phase::WARMUP, sink);
    Ok(true)
}

fn warmup(s: &mut State, env: &Env, sink: &mut dyn Sink) -> Result<bool, MachineError> {
    let is_over = lasted(s, s.header.config.warmup_time, env);
    if !is_over
        && s.slots
            .iter()
            .any(|slot| slot.is_active() && !slot.has(slot_flag::READY))
    {
        return Ok(false);
    }
    let (mut ready, mut full) = (0u16, 0u16);
    for slot in s.slots.iter().filter(|slot| slot.is_assignable()) {
        ready = ready.saturating_add(1);
        full = full.saturating_add(u16::from(slot.tier == 0));
    }
    let config = &s.header.config;
    let suffices = ready >= config.min_clients && full >= config.min_full_members;
    if !suffices && !is_over {
        return Ok(false);
    }
    miss_warmup(s, sink);
    if suffices {
        s.header.failed_warmups = 0;
        s.header.epoch_start = env.now;
        let assignable = open::assignable(s.slots);
        let history = s.header.history;
        open::open(s, env, &history, &assignable, true, sink)?;
        enter(s, env, phase::ROUND_TRAIN, sink);
    } else {
        end_epoch(s);
        s.header.failed_warmups = s.header.failed_warmups.saturating_add(1);
        if s.header.failed_warmups >= s.header.config.max_failed_warmups {
            s.header.failed_warmups = 0;
            checkpoint::rewind(s, sink);
        }
        enter(s, env, phase::WAITING_FOR_MEMBERS, sink);
    }
    Ok(true)
}

/// Who is not ready at the end of a warmup waits for the next epoch; the third time in a row it is gone.
fn miss_warmup(s: &mut State, sink: &mut dyn Sink) {
    let mut dropped = bits::EMPTY;
    for (index, slot) in s.slots.iter_mut().enumerate() {
        if slot.is_active() && !slot.has(slot_flag::READY) {
            slot.missed_warmups = slot.missed_warmups.saturating_add(1);
            slot.flags = 0;
            slot.status = slot_status::WAITING;
            if slot.missed_warmups >= join::MAX_MISSED_WARMUPS {
                slot.missed_warmups = 0;
                join::depart(slot);
                bits::insert(&mut dropped, index);
            }
        }
    }
    if !bits::is_empty(&dropped) {
        sink.emit(Event::Dropped {
            members: dropped,
            reason: Reason::MissedWarmups,
        });
    }
}

/// Whether one of these slots can still do its duty.
fn any_active(s: &State, slots: &Bits) -> bool {
    bits::iter(slots).any(|slot| s.slots.get(slot).is_some_and(|slot| slot.is_active()))
}

/// Whether everyone who can attest the round before has done so.
fn all_attested(s: &State) -> bool {
    let before = open::attested_index(s.header).and_then(|i| s.header.rounds.get(i));
    before.is_none_or(|round| !any_active(s, &bits::minus(&round.witnesses, &round.attested)))
}

fn round_train(s: &mut State, env: &Env, sink: &mut dyn Sink) -> Result<bool, MachineError> {
    let round = open::open_round(s.header)?;
    let late = bits::minus(&round.assigned, &round.committed);
    let done = !any_active(s, &late) && all_attested(s);
    if !done && !lasted(s, s.header.config.max_round_train_time, env) {
        return Ok(false);
    }
    let index = usize::from(s.header.open);
    let round = s
        .header
        .rounds
        .get_mut(index)
        .ok_or(MachineError::Overflow)?;
    round.status = round_status::COMMITTED;
    bits::each(&late, s.slots.iter_mut(), |_, slot| {
        slot.flags &= !slot_flag::READY;
        Ok::<(), MachineError>(())
    })?;
    enter(s, env, phase::ROUND_WITNESS, sink);
    Ok(true)
}

fn round_witness(s: &mut State, env: &Env, sink: &mut dyn Sink) -> Result<bool, MachineError> {
    if !all_attested(s) && !lasted(s, s.header.config.round_witness_time, env) {
        return Ok(false);
    }
    let history = s.header.history;
    if let Some(before) = open::attested_index(s.header) {
        close::close(s, before, sink)?;
    }
    if s.header.has(run_flag::DRAINING) {
        close::close(s, usize::from(s.header.open), sink)?;
        s.header.set(run_flag::DRAINING, false);
        checkpoint::begin(s);
        enter(s, env, phase::COOLDOWN, sink);
        return Ok(true);
    }
    let assignable = open::assignable(s.slots);
    let config = &s.header.config;
    let goes_on = bits::count(&assignable) >= u32::from(config.min_clients)
        && !over(s.header.epoch_start, config.epoch_time, env)
        && s.header.step < config.total_steps
        && !s.header.has(run_flag::PAUSE_REQUESTED);
    s.header.set(run_flag::DRAINING, !goes_on);
    open::open(s, env, &history, &assignable, goes_on, sink)?;
    enter(s, env, phase::ROUND_TRAIN, sink);
    Ok(true)
}

fn cooldown(s: &mut State, env: &Env, sink: &mut dyn Sink) -> Result<bool, MachineError> {
    let recorded = s.header.pending.agreed != 0 && !s.header.has(run_flag::URI_MISSING);
    if !recorded {
        if !lasted(s, s.header.config.cooldown_time, env) {
            return Ok(false);
        }
        if s.header.pending.agreed != 0 {
            checkpoint::record(s, sink); // agreed, but nobody said where the weights are
        }
    }
    end_epoch(s);
    let next = if s.header.step >= s.header.config.total_steps {
        phase::FINISHED
    } else if s.header.has(run_flag::PAUSE_REQUESTED) {
        phase::PAUSED
    } else {
        phase::WAITING_FOR_MEMBERS
    };
    s.header.set(run_flag::PAUSE_REQUESTED, false);
    enter(s, env, next, sink);
    Ok(true)
}
