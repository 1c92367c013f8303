//! Every transition of the table, one below its condition, at it, and one above it.
//!
//! `at` is -1, 0 or 1: a second, a member, a vote less than the condition asks for, exactly it, one more.

use crate::support::*;
use coordinator::machine::*;
use coordinator::state::*;

const WAITING: u8 = phase::WAITING_FOR_MEMBERS;
const WARMUP: u8 = phase::WARMUP;
const TRAIN: u8 = phase::ROUND_TRAIN;
const WITNESS: u8 = phase::ROUND_WITNESS;
const COOLDOWN: u8 = phase::COOLDOWN;
const FINISHED: u8 = phase::FINISHED;
const PAUSED: u8 = phase::PAUSED;

/// What a tick does below, at and above the condition: the phases that it goes through.
fn check(name: &str, from: u8, make: impl Fn(i64) -> World, through: [&[u8]; 3]) {
    for (at, phases) in (-1i64..).zip(through) {
        let mut world = make(at);
        assert_eq!(world.phase(), from, "{name} {at}");
        let seen = world.log.0.len();
        let made = world.tick();
        let entered: Vec<u8> = (world.log.0[seen..].iter())
            .filter_map(|event| match event {
                Event::PhaseChanged { to, .. } => Some(*to),
                _ => None,
            })
            .collect();
        assert_eq!(entered, phases, "{name} {at}");
        assert_eq!(usize::from(made), phases.len(), "{name} {at}");
    }
}

/// As many as the condition asks for, and `at` more.
fn about(count: usize, at: i64) -> usize {
    count.checked_add_signed(at as isize).unwrap()
}

/// Members 1.. of these tiers wait, long enough.
fn waiting(tiers: &[u8], rules: Config) -> World {
    let mut world = World::new(16, rules);
    for (member, tier) in (1u8..).zip(tiers) {
        world.join(member, *tier).unwrap();
    }
    world.now += 1000;
    world
}

/// As many members in a warmup that began now, the first `ready` of them ready.
fn warming(tiers: &[u8], ready: usize, rules: Config) -> World {
    let mut world = waiting(tiers, rules);
    assert_eq!(world.tick(), 1);
    for slot in 0..ready {
        world.ready_slot(slot).unwrap();
    }
    world
}

/// In the second round of three members, the first to be attested; nothing done yet in it.
fn second_round(rules: Config) -> World {
    let mut world = World::training(&[0, 0, 0], rules);
    world.do_round(&[0, 1, 2]);
    assert_eq!(world.round().number, 2);
    world
}

/// The second round's commits are over, two of three witnesses attested the first.
fn attesting(rules: Config) -> World {
    let mut world = second_round(rules);
    for slot in 0..3 {
        world.commit(slot).unwrap();
    }
    world.witness(0).unwrap();
    world.witness(1).unwrap();
    world.now += 20;
    assert_eq!(world.tick(), 1);
    world
}

/// In the drain round after two rounds of three members.
fn draining() -> World {
    let mut world = second_round(config());
    world.set_paused(true).unwrap();
    world.do_round(&[0, 1, 2]);
    assert!(world.header().has(run_flag::DRAINING));
    world.set_paused(false).unwrap();
    world
}

/// In Cooldown after two rounds of four members of tier 0.
fn cooling() -> World {
    let mut world = World::training(&[0; 4], config());
    let all = [0, 1, 2, 3];
    world.do_round(&all);
    world.set_paused(true).unwrap();
    world.do_round(&all);
    world.do_round(&all);
    world.set_paused(false).unwrap();
    world
}

#[test]
fn waiting_for_members_ends_with_members_and_time() {
    let of = |count| Config {
        init_min_clients: count,
        ..config()
    };
    let go: [&[u8]; 3] = [&[], &[WARMUP], &[WARMUP]];
    check(
        "present members",
        WAITING,
        |at| waiting(&vec![0; about(3, at)], of(3)),
        go,
    );
    let full = Config {
        min_full_members: 2,
        ..of(2)
    };
    check(
        "members of tier 0",
        WAITING,
        |at| waiting(&[&vec![0; about(2, at)][..], &[1; 2]].concat(), full),
        go,
    );
    let extra = |at: i64| {
        let mut world = World::new(4, of(2));
        world.join(1, 0).unwrap();
        world.now += 77;
        world.join(2, 0).unwrap();
        world.now += 5 + at;
        world
    };
    check("the extra wait", WAITING, extra, go);
    // only tiers that are still allowed count
    let narrowed = |at: i64| {
        let tiers = [&vec![1; about(3, at)][..], &[0], &[2; 5]].concat();
        let mut world = waiting(&tiers, of(4));
        world.set_paused(true).unwrap();
        let rules = Config {
            max_tier: 1,
            ..of(4)
        };
        world.configure(&rules).unwrap();
        world.set_paused(false).unwrap();
        world.now += 5;
        world
    };
    check("tiers that are allowed", WAITING, narrowed, go);
}

#[test]
fn warmup_ends_with_everyone_or_with_time() {
    let of = |min, full| Config {
        init_min_clients: 3,
        min_clients: min,
        min_full_members: full,
        ..config()
    };
    let all = |at: i64| warming(&[0; 4], 4 - usize::from(at < 0), of(2, 1));
    check("everyone is ready", WARMUP, all, [&[], &[TRAIN], &[TRAIN]]);
    let late = |ready: usize| {
        move |at: i64| {
            let mut world = warming(&[0; 4], ready, of(2, 1));
            world.now += 30 + at;
            world
        }
    };
    check(
        "time, enough ready",
        WARMUP,
        late(2),
        [&[], &[TRAIN], &[TRAIN]],
    );
    check(
        "time, too few ready",
        WARMUP,
        late(1),
        [&[], &[WAITING], &[WAITING]],
    );
    let ready = |at: i64| {
        let mut world = warming(&[0; 4], about(2, at), of(2, 1));
        world.now += 30;
        world
    };
    check(
        "ready members",
        WARMUP,
        ready,
        [&[WAITING], &[TRAIN], &[TRAIN]],
    );
    let full = |at: i64| {
        let tiers = [&[1, 1][..], &[0; 3]].concat();
        let mut world = warming(&tiers, 2 + about(2, at), of(2, 2));
        world.now += 30;
        world
    };
    check(
        "ready members of tier 0",
        WARMUP,
        full,
        [&[WAITING], &[TRAIN], &[TRAIN]],
    );
    // everyone left is ready, but they are too few: wait for those who may come back
    let left = |at: i64| {
        let mut world = warming(&[0; 3], 1, of(2, 1));
        world.leave(1).unwrap();
        world.leave(2).unwrap();
        world.now += 30 + at;
        world
    };
    check(
        "too few, all ready",
        WARMUP,
        left,
        [&[], &[WAITING], &[WAITING]],
    );
}

#[test]
fn warmups_missed_and_failed_in_a_row_are_counted_exactly() {
    for (failures, is_gone) in [(2, false), (3, true), (4, true)] {
        let mut world = waiting(
            &[0, 0],
            Config {
                max_failed_warmups: 100,
                ..config()
            },
        );
        for _ in 0..failures {
            world.now += 5;
            world.tick();
            world.now += 30;
            world.tick();
            let _ = world.join(2, 0); // slot 1 comes back at once
        }
        assert_eq!(world.slot(0).status == slot_status::DEPARTED, is_gone);
    }
    for (failures, rewinds) in [(1, 0), (2, 1), (3, 1), (4, 1)] {
        let mut world = World::training(
            &[0],
            Config {
                max_failed_warmups: 2,
                ..config()
            },
        );
        world.do_round(&[0]);
        for wait in [20, 10, 20, 10, 40] {
            world.now += wait;
            world.tick();
        }
        assert_eq!(world.phase(), WAITING);
        assert!(world.header().step > 0);
        for _ in 0..failures {
            world.now += 5;
            world.tick();
            world.pass(30);
            let _ = world.join(1, 0);
        }
        let rewound = |e: &Event| matches!(e, Event::Rewound { to_step: 0, .. });
        assert_eq!(world.happened(rewound), rewinds, "after {failures}");
        assert_eq!(world.header().failed_warmups, failures % 2);
    }
}

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
