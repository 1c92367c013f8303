//! What the run's authority does.

use super::{ensure, pay, tick, touch, Env, Event, MachineError, Sink};
use crate::state::{phase, run_flag, Config, State, MAX_TIER, MAX_WITNESSES};

/// Ten years: every wait has an end.
const MAX_TIME: u64 = 315_360_000;
const MAX_BATCH: u32 = 1 << 24;

/// Whether nothing is going on, so that the rules may change.
pub fn is_halted(s: &State) -> bool {
    matches!(
        s.header.phase,
        phase::UNINITIALIZED | phase::PAUSED | phase::FINISHED
    )
}

/// Set the rules, while halted. A finished run with steps left under the new rules is paused again.
///
/// # Errors
/// `NotHalted`, or the rule's own error.
pub fn configure(
    s: &mut State,
    env: &Env,
    config: &Config,
    sink: &mut dyn Sink,
) -> Result<(), MachineError> {
    ensure(is_halted(s), MachineError::NotHalted)?;
    check(config, s.header.capacity)?;
    s.header.config = Config {
        _pad: [0; 7],
        ..*config
    };
    s.header.set(run_flag::CONFIGURED, true);
    touch(s);
    sink.emit(Event::Configured {
        total_steps: config.total_steps,
    });
    if s.header.phase == phase::FINISHED && s.header.step < config.total_steps {
        tick::enter(s, env, phase::PAUSED, sink);
    }
    complete(s, env, sink);
    Ok(())
}

fn check(config: &Config, capacity: u16) -> Result<(), MachineError> {
    use MachineError as E;
    let time = |seconds: u64| (1..=MAX_TIME).contains(&seconds);
    ensure(time(config.warmup_time), E::BadWarmupTime)?;
    ensure(time(config.cooldown_time), E::BadCooldownTime)?;
    ensure(time(config.max_round_train_time), E::BadRoundTrainTime)?;
    ensure(time(config.round_witness_time), E::BadRoundWitnessTime)?;
    ensure(time(config.epoch_time), E::BadEpochTime)?;
    ensure(
        config.waiting_for_members_extra_time <= MAX_TIME,
        E::BadExtraTime,
    )?;
    ensure(config.total_steps > 0, E::BadTotalSteps)?;
    let (start, end) = (config.global_batch_size_start, config.global_batch_size_end);
    ensure((1..=MAX_BATCH).contains(&start), E::BadBatchStart)?;
    ensure((start..=MAX_BATCH).contains(&end), E::BadBatchEnd)?;
    ensure(config.max_seq_len > 0, E::BadMaxSeqLen)?;
    let pay = config
        .pay_per_tier
        .iter()
        .all(|pay| *pay <= pay::MAX_PAY_PER_TIER);
    ensure(pay, E::BadPayPerTier)?;
    let init = config.init_min_clients;
    ensure((1..=capacity).contains(&init), E::BadInitMinClients)?;
    ensure((1..=init).contains(&config.min_clients), E::BadMinClients)?;
    ensure(
        (1..=init).contains(&config.min_full_members),
        E::BadMinFullMembers,
    )?;
    ensure(
        usize::from(config.witness_nodes) <= MAX_WITNESSES,
        E::BadWitnessNodes,
    )?;
    ensure(config.max_missed > 0, E::BadMaxMissed)?;
    ensure(config.max_failed_warmups > 0, E::BadMaxFailedWarmups)?;
    ensure(config.max_tier <= MAX_TIER, E::BadMaxTier)
}

/// A run that has both rules and a specification is paused, no longer uninitialized.
fn complete(s: &mut State, env: &Env, sink: &mut dyn Sink) {
    let both = s.header.has(run_flag::CONFIGURED) && s.header.has(run_flag::SPEC_SEALED);
    if both && s.header.phase == phase::UNINITIALIZED {
        tick::enter(s, env, phase::PAUSED, sink);
    }
}

/// Seal the specification by its hash, which every record of the log carries.
///
/// # Errors
/// `NotHalted`, `SpecSealed`.
pub fn seal_spec(
    s: &mut State,
    env: &Env,
    spec_hash: &[u8; 32],
    sink: &mut dyn Sink,
) -> Result<(), MachineError> {
    ensure(is_halted(s), MachineError::NotHalted)?;
    ensure(
        !s.header.has(run_flag::SPEC_SEALED),
        MachineError::SpecSealed,
    )?;
    s.header.spec_hash = *spec_hash;
    s.header.set(run_flag::SPEC_SEALED, true);
    touch(s);
    sink.emit(Event::SpecSealed {
        spec_hash: *spec_hash,
    });
    complete(s, env, sink);
    Ok(())
}

/// Open the specification for another one: the run is uninitialized until it is sealed again.
///
/// # Errors
/// `NotHalted`.
pub fn unseal_spec(s: &mut State, env: &Env, sink: &mut dyn Sink) -> Result<(), MachineError> {
    ensure(is_halted(s), MachineError::NotHalted)?;
    s.header.set(run_flag::SPEC_SEALED, false);
    s.header.spec_hash = [0; 32];
    touch(s);
    if s.header.phase != phase::UNINITIALIZED {
        tick::enter(s, env, phase::UNINITIALIZED, sink);
    }
    Ok(())
}

/// Points that a trained round pays, from the next epoch on.
///
/// # Errors
/// `RateTooHigh`.
pub fn set_round_rate(s: &mut State, rate: u64) -> Result<(), MachineError> {
    ensure(rate <= pay::MAX_ROUND_RATE, MachineError::RateTooHigh)?;
    s.header.next_round_rate = rate;
    touch(s);
    Ok(())
}

/// Pause or resume. Between rounds a pause is immediate; an epoch ends first, with its last round
/// attested and its checkpoint agreed, and until then the pause can be taken back.
///
/// # Errors
/// `NotConfigured`, `RunFinished`, `AlreadyPaused`, `NotPaused`.
pub fn set_paused(
    s: &mut State,
    env: &Env,
    paused: bool,
    sink: &mut dyn Sink,
) -> Result<(), MachineError> {
    let now = s.header.phase;
    ensure(now != phase::UNINITIALIZED, MachineError::NotConfigured)?;
    ensure(now != phase::FINISHED, MachineError::RunFinished)?;
    let requested = s.header.has(run_flag::PAUSE_REQUESTED);
    if paused {
        ensure(
            now != phase::PAUSED && !requested,
            MachineError::AlreadyPaused,
        )?;
        if matches!(now, phase::WAITING_FOR_MEMBERS | phase::WARMUP) {
            tick::end_epoch(s);
            tick::enter(s, env, phase::PAUSED, sink);
            return Ok(());
        }
    } else {
        ensure(now == phase::PAUSED || requested, MachineError::NotPaused)?;
        if now == phase::PAUSED {
            let finished = s.header.step >= s.header.config.total_steps;
            let next = if finished {
                phase::FINISHED
            } else {
                phase::WAITING_FOR_MEMBERS
            };
            tick::enter(s, env, next, sink);
            return Ok(());
        }
    }
    s.header.set(run_flag::PAUSE_REQUESTED, paused);
    touch(s);
    sink.emit(Event::PauseRequested { requested: paused });
    Ok(())
}

/// Whether the run may be closed: halted, and nobody has pay in its slot.
///
/// # Errors
/// `NotHalted`, `NotSettled`.
pub fn check_closable(s: &State) -> Result<(), MachineError> {
    ensure(is_halted(s), MachineError::NotHalted)?;
    let settled = s.slots.iter().all(|slot| slot.earned == 0);
    ensure(settled, MachineError::NotSettled)
}
