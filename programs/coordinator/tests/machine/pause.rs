//! Halting and going on.

use crate::support::*;
use coordinator::machine::*;
use coordinator::state::*;

#[test]
fn a_new_run_is_paused_once_it_has_rules_and_a_specification() {
    for seal_first in [false, true] {
        let mut world = World::bare(4);
        assert_eq!(world.set_paused(false), Err(MachineError::NotConfigured));
        if seal_first {
            world.seal().unwrap();
            assert_eq!(world.phase(), phase::UNINITIALIZED);
            world
                .configure(&Config {
                    max_tier: 2,
                    ..config()
                })
                .unwrap();
        } else {
            world.configure(&config()).unwrap();
            assert_eq!(world.phase(), phase::UNINITIALIZED);
            world.seal().unwrap();
        }
        assert_eq!(world.phase(), phase::PAUSED);
        world.set_paused(false).unwrap();
        assert_eq!(world.phase(), phase::WAITING_FOR_MEMBERS);
    }
}

#[test]
fn pause_is_immediate_between_rounds() {
    let mut world = World::new(4, config());
    world.set_paused(true).unwrap();
    assert_eq!(world.phase(), phase::PAUSED);
    assert_eq!(world.set_paused(true), Err(MachineError::AlreadyPaused));
    world.join(1, 0).unwrap();
    world.now += 100;
    assert_eq!(world.tick(), 0);
    world.set_paused(false).unwrap();
    assert_eq!(world.set_paused(false), Err(MachineError::NotPaused));
    world.pass(5);
    assert_eq!(world.phase(), phase::WARMUP);
    world.set_paused(true).unwrap();
    assert_eq!(world.phase(), phase::PAUSED);
    assert_eq!(world.slot(0).status, slot_status::WAITING);
    assert_eq!(world.slot(0).missed_warmups, 0);
}

#[test]
fn pause_ends_the_epoch_and_loses_no_round() {
    for in_witness_phase in [false, true] {
        let mut world = World::training(&[0, 0], config());
        world.set_rate(10).unwrap();
        world.do_round(&[0, 1]);
        world.commit(0).unwrap();
        world.commit(1).unwrap();
        if in_witness_phase {
            world.pass(20);
        }
        world.set_paused(true).unwrap();
        assert_eq!(world.set_paused(true), Err(MachineError::AlreadyPaused));
        world.witness(0).unwrap();
        world.witness(1).unwrap();
        assert!(world.tick() > 0);
        world.witness(0).unwrap();
        world.witness(1).unwrap();
        assert_eq!(world.tick(), 2);
        assert_eq!((world.accepted(1).len(), world.accepted(2).len()), (2, 2));
        assert_eq!(world.phase(), phase::COOLDOWN);
        world.pass(40);
        assert_eq!(world.phase(), phase::PAUSED);
        world.set_paused(false).unwrap();
        world.start_epoch();
    }
}

#[test]
fn a_pause_can_be_taken_back_before_it_begins() {
    let mut world = World::training(&[0], config());
    world.set_paused(true).unwrap();
    world.set_paused(false).unwrap();
    world.do_round(&[0]);
    assert_eq!((world.round().number, world.round().trained), (2, 1));
    // and in Cooldown
    world.set_paused(true).unwrap();
    world.do_round(&[0]);
    world.do_round(&[0]);
    assert_eq!(world.phase(), phase::COOLDOWN);
    world.set_paused(false).unwrap();
    world.pass(40);
    assert_eq!(world.phase(), phase::WAITING_FOR_MEMBERS);
}

#[test]
fn pause_in_cooldown_waits_for_its_end() {
    let mut world = World::training(
        &[0],
        Config {
            epoch_time: 1,
            ..config()
        },
    );
    world.now += 1;
    world.do_round(&[0]);
    world.do_round(&[0]);
    assert_eq!(world.phase(), phase::COOLDOWN);
    world.set_paused(true).unwrap();
    assert_eq!(world.tick(), 0);
    world.pass(40);
    assert_eq!(world.phase(), phase::PAUSED);
}

#[test]
fn a_new_specification_leads_back_to_paused() {
    let mut world = World::new(4, config());
    assert_eq!(world.unseal(), Err(MachineError::NotHalted));
    world.set_paused(true).unwrap();
    assert_eq!(world.seal(), Err(MachineError::SpecSealed));
    world.unseal().unwrap();
    assert_eq!(world.phase(), phase::UNINITIALIZED);
    assert_eq!(world.join(1, 0), Err(MachineError::NotConfigured));
    world.seal().unwrap();
    assert_eq!(world.phase(), phase::PAUSED);
    world.join(1, 0).unwrap();
}
