//! Every transition of the table, one below its condition, at it, and one above it.
//!
//! `at` is -1, 0 or 1: a second, a member, a vote less than the condition asks for, exactly it, one more.

use crate::stages::*;
use crate::support::*;
use coordinator::machine::*;
use coordinator::state::*;

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
