//! Random schedules against a plain model: every sample in one place, every vote counted by hand,
//! every history hashed again, every point paid once, every checkpoint agreed on, and never stuck.

mod agreement;
mod books;
mod invariants;
mod liveness;
mod model;
mod ops;

use coordinator::machine::*;
use coordinator::state::*;
use model::Model;
use ops::{capacity, op, rules, wild_op, Op};
use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, RngAlgorithm, TestRng, TestRunner};
use std::cell::RefCell;
use std::collections::BTreeSet;

fn cases(cases: u32) -> Cases {
    Cases {
        cases,
        failure_persistence: None,
        ..Cases::default()
    }
}

fn play(capacity: usize, config: Config, ops: &[Op]) -> Model {
    let mut model = Model::new(capacity, config);
    model.run(&Op::Rate { rate: 100 });
    for op in ops {
        model.run(op);
    }
    model
}

proptest! {
    #![proptest_config(cases(40))]

    #[test]
    fn any_schedule_keeps_the_books_and_never_gets_stuck(
        capacity in capacity(),
        config in rules(),
        ops in prop::collection::vec(op(), 1..250),
    ) {
        play(capacity, config, &ops).train_alone();
    }

    /// Between the ends of 64 bits.
    #[test]
    fn any_clock_keeps_the_books(
        capacity in capacity(),
        config in rules(),
        ops in prop::collection::vec(wild_op(), 1..150),
    ) {
        let mut model = play(capacity, config, &ops);
        if model.time_can_pass() {
            model.train_alone();
        }
    }
}

/// What a schedule went through.
fn name(event: &Event) -> Option<&'static str> {
    Some(match event {
        Event::Rewound {
            from_step, to_step, ..
        } if to_step < from_step && *to_step > 0 => "rewound to a checkpoint",
        Event::Rewound { .. } => "rewound to the start",
        Event::RoundClosed { lost, .. } if *lost > 0 => "samples lost",
        Event::RoundClosed { returned, .. } if *returned > 0 => "samples returned",
        Event::RoundClosed { paid, .. } if *paid > 0 => "paid",
        Event::Dropped {
            reason: Reason::MissedRounds,
            ..
        } => "dropped for missed rounds",
        Event::Dropped {
            reason: Reason::MissedWarmups,
            ..
        } => "dropped for missed warmups",
        Event::Joined { active: true, .. } => "came back into the epoch",
        Event::CheckpointRecorded { uri_len: 0, .. } => "checkpoint without a uri",
        Event::CheckpointRecorded { .. } => "checkpoint with a uri",
        Event::PhaseChanged {
            to: phase::FINISHED,
            ..
        } => "finished",
        Event::PhaseChanged {
            from: phase::COOLDOWN,
            to: phase::PAUSED,
            ..
        } => "paused after an epoch",
        Event::PauseRequested { requested: false } => "pause taken back",
        _ => return None,
    })
}

/// The schedules go where the invariants could break.
#[test]
fn schedules_reach_what_they_are_for() {
    let seen = RefCell::new(BTreeSet::new());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[4; 32]);
    let schedules = (capacity(), rules(), prop::collection::vec(op(), 200..250));
    TestRunner::new_with_rng(cases(48), rng)
        .run(&schedules, |(capacity, config, ops)| {
            let model = play(capacity, config, &ops);
            seen.borrow_mut()
                .extend(model.world.log.0.iter().filter_map(name));
            seen.borrow_mut().extend(model.marks());
            Ok(())
        })
        .unwrap();
    let wanted = BTreeSet::from([
        "rewound to a checkpoint",
        "rewound to the start",
        "samples lost",
        "samples returned",
        "paid",
        "dropped for missed rounds",
        "dropped for missed warmups",
        "came back into the epoch",
        "checkpoint without a uri",
        "checkpoint with a uri",
        "finished",
        "paused after an epoch",
        "pause taken back",
        "carried",
        "below the checkpoint taken up and lost",
        "earned all there is",
        "slot freed",
    ]);
    let missing: Vec<_> = wanted.difference(&seen.borrow()).copied().collect();
    assert!(missing.is_empty(), "never seen: {missing:?}");
}
