//! A run in any phase, with a member of each kind.

use crate::support::*;
use coordinator::state::*;

/// Slots by what their members are; in the phases without an epoch the first two wait too.
pub const READY: usize = 0;
pub const IDLE: usize = 1;
pub const WAITING: usize = 2;
pub const DEPARTED: usize = 3;
pub const FREE: usize = 4;
pub const BEYOND: usize = 9;

/// A run of capacity 6 in this phase, with a member of each kind in its slot. Each has earned something.
pub fn cast(target: u8) -> World {
    let rules = Config {
        witness_nodes: 3,
        total_steps: 4,
        ..config()
    };
    let mut world = World::new(6, rules);
    world.set_rate(40).unwrap();
    for member in 1..=4 {
        world.join(member, 0).unwrap();
    }
    world.start_epoch();
    world.do_round(&[0, 1, 2, 3]);
    world.set_paused(true).unwrap();
    world.do_round(&[0, 1, 2, 3]);
    world.do_round(&[0, 1, 2, 3]);
    world.pass(40);
    assert_eq!(world.phase(), phase::PAUSED);
    let waits = |world: &mut World| {
        world.leave(WAITING).unwrap();
        world.join(3, 0).unwrap();
        world.leave(DEPARTED).unwrap();
    };
    if matches!(target, phase::UNINITIALIZED | phase::PAUSED) {
        waits(&mut world);
        if target == phase::UNINITIALIZED {
            world.unseal().unwrap();
        }
        return world;
    }
    world.set_paused(false).unwrap();
    if target == phase::WAITING_FOR_MEMBERS {
        waits(&mut world);
        return world;
    }
    world.now += 5;
    assert_eq!(world.tick(), 1);
    // out, and in again for the next epoch only
    world.leave(WAITING).unwrap();
    world.join_as(&request(3, 0, 2)).unwrap();
    world.ready_slot(READY).unwrap();
    if target == phase::WARMUP {
        world.leave(DEPARTED).unwrap();
        return world;
    }
    world.ready_slot(IDLE).unwrap();
    world.ready_slot(DEPARTED).unwrap();
    world.tick();
    world.do_round(&[READY, IDLE, DEPARTED]);
    assert_eq!(
        (world.phase(), world.round().number),
        (phase::ROUND_TRAIN, 5)
    );
    world.leave(IDLE).unwrap();
    world.join(2, 0).unwrap(); // back in the epoch, not ready, still named by two rounds
    world.leave(DEPARTED).unwrap();
    if target == phase::ROUND_TRAIN {
        return world;
    }
    if target == phase::ROUND_WITNESS {
        world.commit(READY).unwrap();
        world.now += 20;
        assert_eq!(world.tick(), 1);
        return world;
    }
    world.do_round(&[READY, IDLE]); // total_steps is reached: drain
    world.do_round(&[READY, IDLE]);
    world.leave(IDLE).unwrap();
    world.join(2, 0).unwrap();
    assert_eq!(world.phase(), phase::COOLDOWN);
    if target == phase::FINISHED {
        world.pass(40);
    }
    world
}

pub const PHASES: [u8; 8] = [0, 1, 2, 3, 4, 5, 6, 7];
