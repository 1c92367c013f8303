//! The transitions of an epoch's rounds and its end, one below its condition, at it, and one above it.
//!
//! `at` is -1, 0 or 1: a second, a member, a vote less than the condition asks for, exactly it, one more.

use crate::stages::*;
use crate::support::*;
use coordinator::state::*;

#[test]
fn round_train_ends_with_all_commits_and_attestations_or_with_time() {
    // `at` below: one of three has not committed, or one of three witnesses has not attested
    let done = |commits: bool| {
        move |at: i64| {
            let mut world = second_round(config());
            let short = |this: bool| 3 - usize::from(this && at < 0);
            for slot in 0..short(commits) {
                world.commit(slot).unwrap();
            }
            for slot in 0..short(!commits) {
                world.witness(slot).unwrap();
            }
            world
        }
    };
    let go: [&[u8]; 3] = [&[], &[WITNESS, TRAIN], &[WITNESS, TRAIN]];
    check("all commits", TRAIN, done(true), go);
    check("all attestations", TRAIN, done(false), go);
    let time = |at: i64| {
        let mut world = second_round(config());
        world.commit(0).unwrap();
        world.now += 20 + at;
        world
    };
    check("time", TRAIN, time, [&[], &[WITNESS], &[WITNESS]]);
    // who cannot act any more is not waited for
    let gone = |at: i64| {
        let mut world = second_round(config());
        world.commit(0).unwrap();
        world.witness(0).unwrap();
        world.leave(1).unwrap();
        if at >= 0 {
            world.evict(2, 3).unwrap();
        }
        world
    };
    check("nobody else is there", TRAIN, gone, go);
}

#[test]
fn round_witness_ends_with_all_attestations_or_with_time() {
    let votes = |at: i64| {
        let mut world = attesting(config());
        if at >= 0 {
            world.witness(2).unwrap();
        }
        world
    };
    let go: [&[u8]; 3] = [&[], &[TRAIN], &[TRAIN]];
    check("the last attestation", WITNESS, votes, go);
    let time = |at: i64| {
        let mut world = attesting(config());
        world.now += 10 + at;
        world
    };
    check("time", WITNESS, time, go);
    let gone = |at: i64| {
        let mut world = attesting(config());
        if at >= 0 {
            world.leave(2).unwrap();
        }
        world
    };
    check("the last witness left", WITNESS, gone, go);
}

/// Whether the round after the second one is trained.
fn goes_on(mut world: World) -> bool {
    world.witness(2).unwrap();
    assert_eq!(world.tick(), 1);
    assert_eq!((world.phase(), world.round().number), (TRAIN, 3));
    assert_eq!(world.accepted(1), [0, 1, 2], "the round before is closed");
    let trained = world.round().is_trained();
    assert_eq!(trained, !world.header().has(run_flag::DRAINING));
    trained
}

#[test]
fn an_epoch_goes_on_up_to_its_ends_exactly() {
    for (at, trained) in [(-1, true), (0, false), (1, false)] {
        let mut world = attesting(config());
        world.now = world.header().epoch_start + 1000;
        world.now += at;
        let start = world.now - 5; // the phase itself is young
        world.state().header.phase_start = start;
        assert_eq!(goes_on(world), trained, "epoch time {at}");
    }
    for (steps, trained) in [(3, true), (2, false), (1, false)] {
        let mut world = attesting(config());
        world.state().header.config.total_steps = steps;
        assert_eq!(goes_on(world), trained, "{steps} steps");
    }
    for (min, trained) in [(2, true), (3, true), (4, false)] {
        let mut world = attesting(config());
        world.state().header.config.min_clients = min;
        assert_eq!(goes_on(world), trained, "{min} members");
    }
    for (paused, trained) in [(false, true), (true, false)] {
        let mut world = attesting(config());
        world.set_paused(true).unwrap();
        if !paused {
            world.set_paused(false).unwrap();
        }
        assert_eq!(goes_on(world), trained);
    }
    // a tier 0 member less does not end an epoch
    let mut world = World::training(&[0, 1, 1], config());
    world.leave(0).unwrap();
    world.do_round(&[1, 2]);
    assert_eq!((world.round().number, world.round().trained), (2, 1));
}

#[test]
fn a_drain_round_ends_attested_or_timed_out_and_closes_both() {
    let votes = |at: i64| {
        let mut world = draining();
        for slot in 0..3 - usize::from(at < 0) {
            world.witness(slot).unwrap();
        }
        world
    };
    let go: [&[u8]; 3] = [&[], &[WITNESS, COOLDOWN], &[WITNESS, COOLDOWN]];
    check("attested", TRAIN, votes, go);
    let train = |at: i64| {
        let mut world = draining();
        world.now += 20 + at;
        world
    };
    check("train time", TRAIN, train, [&[], &[WITNESS], &[WITNESS]]);
    let witness = |at: i64| {
        let mut world = train(0);
        assert_eq!(world.tick(), 1);
        world.now += 10 + at;
        world
    };
    check(
        "witness time",
        WITNESS,
        witness,
        [&[], &[COOLDOWN], &[COOLDOWN]],
    );
    let mut world = votes(0);
    world.tick();
    for round in world.header().rounds.iter().filter(|r| r.number > 0) {
        assert_eq!(round.status, round_status::CLOSED);
    }
}

#[test]
fn cooldown_ends_with_a_recorded_majority_or_with_time() {
    let voted = |voters: usize| {
        let mut world = cooling();
        for slot in 0..voters {
            world.attest(slot, &[[1; 32]; 3]).unwrap();
        }
        world
    };
    let majority = |at: i64| {
        let mut world = voted(about(3, at)); // more than half of four
        let uploader = usize::from(world.header().uploader);
        let recorded = world.record(uploader, b"hf://x");
        assert_eq!(recorded.is_ok(), at >= 0);
        world
    };
    let go: [&[u8]; 3] = [&[], &[WAITING], &[WAITING]];
    check("a majority", COOLDOWN, majority, go);
    for voters in 0..=4 {
        let time = |at: i64| {
            let mut world = voted(voters);
            world.now += 40 + at;
            world
        };
        check("time", COOLDOWN, time, go);
        let mut world = time(0);
        world.tick();
        let checkpoint = world.header().checkpoint;
        assert_eq!(checkpoint.agreed, u8::from(voters > 2));
    }
    // where it leads
    for (steps, paused, to) in [
        (3, false, WAITING),
        (3, true, PAUSED),
        (2, false, FINISHED),
        (2, true, FINISHED),
    ] {
        let mut world = cooling();
        world.state().header.config.total_steps = steps;
        if paused {
            world.set_paused(true).unwrap();
        }
        world.now += 40;
        assert_eq!((world.tick(), world.phase()), (1, to));
        assert!(!world.header().has(run_flag::PAUSE_REQUESTED));
    }
}

#[test]
fn missed_rounds_are_counted_exactly() {
    for max_missed in 1..4 {
        let mut world = World::training(
            &[0, 0],
            Config {
                max_missed,
                ..config()
            },
        );
        for missed in 1..=max_missed {
            // slot 1 says ready and commits nothing
            assert!(bits::contains(&world.round().assigned, 1));
            let number = world.round().number;
            for _ in 0..4 {
                let ring = world.header().rounds;
                let round = ring[usize::try_from(number % 4).unwrap()];
                if round.number != number || round.status == round_status::CLOSED {
                    break;
                }
                let _ = world.commit(0);
                let _ = world.witness(0);
                world.now += 20;
                world.tick();
            }
            let slot = world.slot(1);
            assert_eq!(slot.missed, missed);
            let is_gone = missed == max_missed;
            assert_eq!(slot.status == slot_status::DEPARTED, is_gone);
            if is_gone {
                break;
            }
            world.ready_slot(1).unwrap();
            for _ in 0..3 {
                if !bits::contains(&world.round().assigned, 1) {
                    world.do_round(&[0]);
                }
            }
        }
    }
}

#[test]
fn halting_is_immediate_outside_of_rounds() {
    let mut world = waiting(&[0, 0], config());
    world.set_paused(true).unwrap();
    assert_eq!(world.phase(), PAUSED);
    let mut world = warming(&[0, 0], 1, config());
    world.set_paused(true).unwrap();
    assert_eq!(world.phase(), PAUSED);
    assert_eq!(world.slot(0).flags, 0);
    for (steps, to) in [(1, WAITING), (0, FINISHED)] {
        let mut world = waiting(&[0], config());
        world.set_paused(true).unwrap();
        world.state().header.config.total_steps = steps;
        world.set_paused(false).unwrap();
        assert_eq!(world.phase(), to);
    }
}
