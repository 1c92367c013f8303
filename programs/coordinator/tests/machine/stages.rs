//! Runs just before a transition, and what a tick makes of them.

use crate::support::*;
use coordinator::machine::*;
use coordinator::state::*;

pub const WAITING: u8 = phase::WAITING_FOR_MEMBERS;
pub const WARMUP: u8 = phase::WARMUP;
pub const TRAIN: u8 = phase::ROUND_TRAIN;
pub const WITNESS: u8 = phase::ROUND_WITNESS;
pub const COOLDOWN: u8 = phase::COOLDOWN;
pub const FINISHED: u8 = phase::FINISHED;
pub const PAUSED: u8 = phase::PAUSED;

/// What a tick does below, at and above the condition: the phases that it goes through.
pub fn check(name: &str, from: u8, make: impl Fn(i64) -> World, through: [&[u8]; 3]) {
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
pub fn about(count: usize, at: i64) -> usize {
    count.checked_add_signed(at as isize).unwrap()
}

/// Members 1.. of these tiers wait, long enough.
pub fn waiting(tiers: &[u8], rules: Config) -> World {
    let mut world = World::new(16, rules);
    for (member, tier) in (1u8..).zip(tiers) {
        world.join(member, *tier).unwrap();
    }
    world.now += 1000;
    world
}

/// As many members in a warmup that began now, the first `ready` of them ready.
pub fn warming(tiers: &[u8], ready: usize, rules: Config) -> World {
    let mut world = waiting(tiers, rules);
    assert_eq!(world.tick(), 1);
    for slot in 0..ready {
        world.ready_slot(slot).unwrap();
    }
    world
}

/// In the second round of three members, the first to be attested; nothing done yet in it.
pub fn second_round(rules: Config) -> World {
    let mut world = World::training(&[0, 0, 0], rules);
    world.do_round(&[0, 1, 2]);
    assert_eq!(world.round().number, 2);
    world
}

/// The second round's commits are over, two of three witnesses attested the first.
pub fn attesting(rules: Config) -> World {
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
pub fn draining() -> World {
    let mut world = second_round(config());
    world.set_paused(true).unwrap();
    world.do_round(&[0, 1, 2]);
    assert!(world.header().has(run_flag::DRAINING));
    world.set_paused(false).unwrap();
    world
}

/// In Cooldown after two rounds of four members of tier 0.
pub fn cooling() -> World {
    let mut world = World::training(&[0; 4], config());
    let all = [0, 1, 2, 3];
    world.do_round(&all);
    world.set_paused(true).unwrap();
    world.do_round(&all);
    world.do_round(&all);
    world.set_paused(false).unwrap();
    world
}
