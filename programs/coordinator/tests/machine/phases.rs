//! What ends each wait, at the exact second.

use crate::support::*;
use coordinator::machine::*;
use coordinator::state::*;

#[test]
fn waiting_counts_the_extra_time_from_the_member_that_suffices() {
    let mut world = World::new(
        4,
        Config {
            init_min_clients: 2,
            ..config()
        },
    );
    world.join(1, 0).unwrap();
    world.now += 1000;
    assert_eq!(world.tick(), 0);
    world.join(2, 1).unwrap();
    world.now += 2;
    world.join(3, 1).unwrap(); // one more does not start the wait again
    world.now += 2;
    assert_eq!(world.tick(), 0);
    world.now += 1;
    assert_eq!(world.tick(), 1);
    assert_eq!(world.phase(), phase::WARMUP);
    assert_eq!(world.header().epoch, 1);
}

#[test]
fn waiting_needs_full_members() {
    let mut world = World::new(4, config());
    world.join(1, 1).unwrap();
    world.now += 1000;
    assert_eq!(world.tick(), 0);
    world.join(2, 0).unwrap();
    world.pass(5);
    assert_eq!(world.phase(), phase::WARMUP);
}

#[test]
fn waiting_starts_again_when_a_member_leaves() {
    let mut world = World::new(
        4,
        Config {
            init_min_clients: 2,
            ..config()
        },
    );
    world.join(1, 0).unwrap();
    world.join(2, 0).unwrap();
    world.leave(1).unwrap();
    world.now += 100;
    assert_eq!(world.tick(), 0);
    world.join(2, 0).unwrap();
    world.pass(5);
}

#[test]
fn warmup_ends_when_everyone_is_ready() {
    let mut world = World::new(4, config());
    world.join(1, 0).unwrap();
    world.join(2, 1).unwrap();
    world.pass(5);
    world.ready_slot(0).unwrap();
    assert_eq!(world.tick(), 0);
    world.ready_slot(1).unwrap();
    assert_eq!(world.tick(), 1);
    assert_eq!(world.phase(), phase::ROUND_TRAIN);
    let round = world.round();
    assert_eq!((round.number, round.step, round.samples), (1, 0, 12));
    assert_eq!(round.assigned, set(&[0, 1]));
}

#[test]
fn warmup_goes_on_with_those_who_are_ready_in_time() {
    let mut world = World::new(4, config());
    world.join(1, 0).unwrap();
    world.join(2, 1).unwrap();
    world.pass(5);
    world.ready_slot(0).unwrap();
    world.pass(30);
    assert_eq!(world.phase(), phase::ROUND_TRAIN);
    assert_eq!(world.round().assigned, set(&[0]));
    assert_eq!(world.slot(1).status, slot_status::WAITING);
    assert_eq!(world.ready_slot(1), Err(MachineError::NotActive));
    // it cannot get into the epoch by leaving and coming back
    world.leave(1).unwrap();
    world.join(2, 1).unwrap();
    assert_eq!(world.slot(1).status, slot_status::WAITING);
}

#[test]
fn warmup_fails_without_enough_ready_members() {
    for (tiers, ready) in [([0, 1], 1), ([1, 0], 0)] {
        let mut world = World::new(4, config()); // the ready one is of tier 1
        world.join(1, tiers[0]).unwrap();
        world.join(2, tiers[1]).unwrap();
        world.pass(5);
        world.ready_slot(ready).unwrap();
        world.pass(30);
        assert_eq!(world.phase(), phase::WAITING_FOR_MEMBERS);
        assert_eq!(world.header().failed_warmups, 1);
        assert_eq!(world.slot(ready).missed_warmups, 0);
        assert_eq!(world.slot(1 - ready).missed_warmups, 1);
    }
}

#[test]
fn three_missed_warmups_end_a_presence() {
    let mut world = World::new(
        4,
        Config {
            max_failed_warmups: 100,
            ..config()
        },
    );
    world.join(1, 0).unwrap();
    for missed in 1..3 {
        world.pass(5);
        world.pass(30);
        assert_eq!(world.slot(0).missed_warmups, missed);
    }
    world.pass(5);
    world.pass(30);
    assert_eq!(world.slot(0).status, slot_status::DEPARTED);
    let dropped = Event::Dropped {
        members: set(&[0]),
        reason: Reason::MissedWarmups,
    };
    assert_eq!(world.happened(|e| *e == dropped), 1);
    world.now += 1000;
    assert_eq!(world.tick(), 0);
    world.join(1, 0).unwrap(); // and it may come back
    world.pass(5);
}

#[test]
fn ready_ends_a_row_of_missed_warmups() {
    let mut world = World::new(4, config());
    world.join(1, 0).unwrap();
    world.pass(5);
    world.pass(30);
    assert_eq!(world.slot(0).missed_warmups, 1);
    world.pass(5);
    world.ready_slot(0).unwrap();
    assert_eq!(world.slot(0).missed_warmups, 0);
}

#[test]
fn rounds_end_with_commits_and_attestations_or_with_time() {
    let mut world = World::training(&[0, 0], config());
    world.commit(0).unwrap();
    assert_eq!(world.tick(), 0);
    world.commit(1).unwrap();
    assert_eq!(
        world.tick(),
        2,
        "nothing is to be attested in the first round: the next one opens"
    );
    assert_eq!(world.round().number, 2);
    assert_eq!(world.before().witnesses, set(&[0, 1]));
    // both commit, one attests: time has to pass, twice
    world.commit(0).unwrap();
    world.commit(1).unwrap();
    world.witness(0).unwrap();
    assert_eq!(world.tick(), 0);
    world.pass(20);
    assert_eq!(world.phase(), phase::ROUND_WITNESS);
    world.pass(10);
    assert_eq!(world.phase(), phase::ROUND_TRAIN);
    assert_eq!(world.accepted(1), [0, 1]);
    // everyone attests, one does not commit
    world.commit(0).unwrap();
    world.witness(0).unwrap();
    world.witness(1).unwrap();
    world.pass(20);
    assert_eq!(
        world.round().number,
        4,
        "attested already: the witness phase ends at once"
    );
    assert_eq!(world.round().assigned, set(&[0]));
}

#[test]
fn a_late_attestation_ends_the_witness_phase() {
    let mut world = World::training(&[0, 0], config());
    world.do_round(&[0, 1]);
    world.commit(0).unwrap();
    world.commit(1).unwrap();
    world.pass(20);
    world.witness(1).unwrap();
    assert_eq!(world.tick(), 0);
    world.witness(0).unwrap();
    assert_eq!(world.tick(), 1);
    assert_eq!(world.round().number, 3);
}

#[test]
fn an_epoch_ends_with_time_and_a_drain_round() {
    let mut world = World::training(
        &[0, 1, 1],
        Config {
            epoch_time: 7,
            ..config()
        },
    );
    world.do_round(&[0, 1, 2]);
    world.now += 6;
    world.do_round(&[0, 1, 2]);
    assert_eq!((world.round().number, world.round().trained), (3, 1));
    world.now += 1;
    world.do_round(&[0, 1, 2]);
    let drain = world.round();
    assert_eq!((drain.number, drain.trained, drain.samples), (4, 0, 0));
    assert_eq!((drain.step, drain.assigned), (3, bits::EMPTY));
    assert!(world.header().has(run_flag::DRAINING));
    world.do_round(&[0, 1, 2]);
    assert_eq!(world.phase(), phase::COOLDOWN);
    for round in 1..=3 {
        assert_eq!(world.accepted(round), [0, 1, 2]);
    }
    assert_eq!(world.accepted(4), [0_usize; 0]);
    let header = world.header();
    assert_eq!(
        (header.pending.step, header.pending.round, header.step),
        (3, 5, 3)
    );
    assert_eq!(header.pending.history, header.history);
    world.pass(40);
    assert_eq!(world.phase(), phase::WAITING_FOR_MEMBERS);
    assert_eq!(world.slot(1).status, slot_status::WAITING);
    world.start_epoch();
    assert_eq!(
        (
            world.header().epoch,
            world.round().number,
            world.round().step
        ),
        (2, 5, 3)
    );
}

#[test]
fn the_run_finishes_after_its_steps() {
    let mut world = World::training(
        &[0],
        Config {
            total_steps: 2,
            ..config()
        },
    );
    world.do_round(&[0]);
    world.do_round(&[0]);
    assert_eq!(world.round().trained, 0);
    world.do_round(&[0]);
    assert_eq!(world.accepted(2), [0], "the last step is attested too");
    world.pass(40);
    assert_eq!(world.phase(), phase::FINISHED);
    world.now += 10_000;
    assert_eq!(world.tick(), 0);
    assert_eq!(world.join(2, 0), Err(MachineError::RunFinished));
    assert_eq!(world.set_paused(true), Err(MachineError::RunFinished));
    // with more steps it goes on
    world
        .configure(&Config {
            total_steps: 3,
            ..config()
        })
        .unwrap();
    assert_eq!(world.phase(), phase::PAUSED);
    world.set_paused(false).unwrap();
    world.start_epoch();
    assert_eq!(world.round().step, 2);
}

#[test]
fn an_epoch_ends_with_too_few_assignable_members() {
    let mut world = World::training(
        &[0, 0],
        Config {
            min_clients: 2,
            init_min_clients: 2,
            ..config()
        },
    );
    world.commit(0).unwrap();
    world.pass(20); // the witness phase has nothing to wait for
    assert_eq!(world.phase(), phase::ROUND_TRAIN);
    assert!(world.header().has(run_flag::DRAINING));
    assert_eq!(world.before().witnesses, set(&[0]));
    world.witness(0).unwrap();
    assert_eq!(world.tick(), 2);
    assert_eq!(world.accepted(1), [0]);
    assert_eq!(world.phase(), phase::COOLDOWN);
}

#[test]
fn a_tick_makes_up_to_four_transitions() {
    let mut world = World::training(&[0, 0], config());
    world.leave(0).unwrap();
    world.leave(1).unwrap();
    assert_eq!(world.tick(), 4, "train, witness, drain, witness, cooldown");
    assert_eq!(world.phase(), phase::COOLDOWN);
    world.pass(40);
    assert_eq!(world.phase(), phase::WAITING_FOR_MEMBERS);
}

#[test]
fn a_clock_that_goes_backwards_only_delays() {
    let mut world = World::training(&[0, 0], config());
    for now in [i64::MIN, -1, 0, 999] {
        world.now = now;
        assert_eq!(world.tick(), 0);
    }
    world.now = i64::MAX;
    assert!(world.tick() > 0);
}
