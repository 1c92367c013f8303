//! Joining, leaving, coming back, settling.

use crate::support::*;
use coordinator::machine::*;
use coordinator::state::*;

#[test]
fn join_refuses_with_the_reason() {
    let mut world = World::new(
        2,
        Config {
            max_tier: 1,
            ..config()
        },
    );
    let good = request(1, 0, 1);
    for (bad, error) in [
        (
            JoinRequest {
                wallet: [0; 32],
                ..good
            },
            MachineError::ZeroWallet,
        ),
        (
            JoinRequest {
                p2p_key: [0; 32],
                ..good
            },
            MachineError::ZeroWallet,
        ),
        (JoinRequest { weight: 0, ..good }, MachineError::ZeroWeight),
        (JoinRequest { tier: 2, ..good }, MachineError::TierTooHigh),
    ] {
        assert_eq!(world.join_as(&bad), Err(error));
    }
    assert_eq!(world.join_as(&good), Ok(0));
    assert_eq!(world.join_as(&good), Err(MachineError::AlreadyJoined));
    let twin = JoinRequest {
        p2p_key: peer(1),
        ..request(2, 0, 1)
    };
    assert_eq!(world.join_as(&twin), Err(MachineError::DuplicatePeer));
    assert_eq!(world.join(2, 0), Ok(1));
    assert_eq!(world.join(3, 0), Err(MachineError::TableFull));
}

#[test]
fn a_departed_member_without_pay_makes_room() {
    let mut world = World::new(1, config());
    world.join(1, 0).unwrap();
    world.leave(0).unwrap();
    assert_eq!(world.leave(0), Err(MachineError::NotPresent));
    assert_eq!(world.slot(0).status, slot_status::DEPARTED);
    assert_eq!(world.join(2, 0), Ok(0));
    assert_eq!(world.slot(0).wallet, wallet(2));
}

#[test]
fn leaving_keeps_what_was_committed() {
    let mut world = World::new(4, config());
    world.set_rate(100).unwrap();
    world.join(1, 0).unwrap();
    world.join(2, 0).unwrap();
    world.start_epoch();
    world.do_round(&[0, 1]);
    world.commit(1).unwrap();
    world.witness(1).unwrap();
    world.leave(1).unwrap();
    world.do_round(&[0]); // nobody waits for it
    assert_eq!(world.accepted(1), [0, 1]);
    assert_eq!(world.round().assigned, set(&[0]));
    assert_eq!(
        world.settle(1, 2),
        Ok(Settled {
            moved: 50,
            freed: false
        })
    );
    world.do_round(&[0]);
    assert_eq!(world.accepted(2), [0, 1], "its last round is paid too");
    assert_eq!(
        world.settle(1, 2),
        Ok(Settled {
            moved: 50,
            freed: false
        }),
        "a record names it"
    );
    assert_eq!(world.settle(1, 2), Ok(Settled::default()));
    for _ in 0..4 {
        world.do_round(&[0]);
    }
    assert_eq!(
        world.settle(1, 2),
        Ok(Settled {
            moved: 0,
            freed: true
        })
    );
    assert_eq!(world.slot(1), Slot::default());
    assert_eq!(world.settle(1, 2), Ok(Settled::default()));
    assert_eq!(world.settle(4, 2), Err(MachineError::NoSuchSlot));
}

#[test]
fn a_leaver_that_did_not_commit_is_not_waited_for() {
    let mut world = World::training(&[0, 0], config());
    world.commit(0).unwrap();
    assert_eq!(world.tick(), 0);
    world.leave(1).unwrap();
    assert_eq!(world.tick(), 2);
    assert_eq!(world.round().number, 2);
}

#[test]
fn who_comes_back_as_it_was_is_in_the_epoch_again() {
    let mut world = World::training(&[0, 1], config());
    world.leave(1).unwrap();
    assert_eq!(world.join(2, 1), Ok(1));
    assert_eq!(world.slot(1).status, slot_status::ACTIVE);
    assert!(!world.slot(1).is_assignable());
    assert_eq!(world.commit(1), Ok(()), "the open round still names it");
    world.ready_slot(1).unwrap();
    world.do_round(&[0]);
    assert_eq!(world.round().assigned, set(&[0, 1]));
}

#[test]
fn who_comes_back_changed_waits_and_keeps_its_record() {
    let mut world = World::training(&[0, 1], config());
    world.do_round(&[0, 1]);
    world.leave(1).unwrap();
    world.join_as(&request(2, 0, 9)).unwrap();
    let slot = world.slot(1);
    assert_eq!(slot.status, slot_status::WAITING);
    assert_eq!(
        (slot.tier, slot.weight),
        (1, 1),
        "the log still needs the old ones"
    );
    assert_eq!((slot.next_tier, slot.next_weight), (0, 9));
    world.do_round(&[0]);
    assert_eq!(world.accepted(1), [0, 1]);
    world.set_paused(true).unwrap();
    world.do_round(&[0]);
    world.do_round(&[0]);
    world.pass(40);
    world.set_paused(false).unwrap();
    world.start_epoch();
    assert_eq!((world.slot(1).tier, world.slot(1).weight), (0, 9));
}

#[test]
fn evict_ends_a_presence_once() {
    let mut world = World::training(&[0, 1], config());
    assert_eq!(world.evict(1, 1), Err(MachineError::NotPresent));
    assert_eq!(world.evict(1, 2), Ok(()));
    assert_eq!(world.evict(1, 2), Err(MachineError::NotPresent));
    assert_eq!(world.commit(1), Err(MachineError::NotActive));
    let left = Event::Left {
        slot: 1,
        wallet: wallet(2),
        reason: Reason::Evicted,
    };
    assert_eq!(world.happened(|e| *e == left), 1);
}

#[test]
fn a_run_closes_when_halted_and_settled() {
    let mut world = World::new(4, config());
    world.set_rate(5).unwrap();
    world.join(1, 0).unwrap();
    world.start_epoch();
    world.do_round(&[0]);
    world.do_round(&[0]);
    assert_eq!(world.closable(), Err(MachineError::NotHalted));
    world.set_paused(true).unwrap();
    world.do_round(&[0]);
    world.do_round(&[0]);
    world.pass(40);
    assert_eq!(world.closable(), Err(MachineError::NotSettled));
    assert_eq!(
        world.settle(0, 1),
        Ok(Settled {
            moved: 15,
            freed: false
        })
    );
    assert_eq!(world.closable(), Ok(()));
    assert_eq!(world.slot(0).status, slot_status::WAITING);
}

#[test]
fn members_of_a_tier_that_is_not_allowed_any_more_stay_out() {
    let mut world = World::new(4, config());
    world.join(1, 0).unwrap();
    world.join(2, 2).unwrap();
    world.set_paused(true).unwrap();
    world
        .configure(&Config {
            max_tier: 1,
            ..config()
        })
        .unwrap();
    world.set_paused(false).unwrap();
    world.start_epoch();
    assert_eq!(world.round().assigned, set(&[0]));
    assert_eq!(world.slot(1).status, slot_status::WAITING);
}

#[test]
fn a_full_table_of_departed_members_never_blocks_for_long() {
    // between epochs their slots are free as soon as they are settled
    let mut world = World::new(2, config());
    world.set_rate(10).unwrap();
    world.join(1, 0).unwrap();
    world.join(2, 0).unwrap();
    world.start_epoch();
    world.do_round(&[0, 1]);
    world.set_paused(true).unwrap();
    world.do_round(&[0, 1]);
    world.do_round(&[0, 1]);
    world.pass(40);
    world.set_paused(false).unwrap();
    world.leave(0).unwrap();
    world.leave(1).unwrap();
    assert_eq!(world.join(3, 0), Err(MachineError::TableFull));
    for slot in 0..2 {
        let settled = Settled {
            moved: 10,
            freed: true,
        };
        assert_eq!(world.settle(slot, slot as u8 + 1), Ok(settled));
        assert_eq!(world.join(slot as u8 + 3, 0), Ok(slot as u16));
    }
    // within one when the rounds that name them are out of the ring
    world.start_epoch();
    world.do_round(&[0, 1]);
    world.leave(1).unwrap();
    let mut rounds = 0;
    while world.join(5, 0) == Err(MachineError::TableFull) {
        world.settle(1, 4).unwrap();
        world.do_round(&[0]);
        rounds += 1;
        assert!(rounds <= RING);
    }
    assert_eq!(world.slot(1).wallet, wallet(5));
    assert_eq!(world.slot(1).status, slot_status::WAITING);
}

/// Laptops that come first leave room for the full members without whom nothing starts.
#[test]
fn the_last_slots_are_kept_for_full_members() {
    let mut world = World::new(
        4,
        Config {
            init_min_clients: 2,
            min_full_members: 2,
            ..config()
        },
    );
    assert_eq!(world.join(1, 1), Ok(0));
    assert_eq!(world.join(2, 1), Ok(1));
    assert_eq!(world.join(3, 1), Err(MachineError::KeptForFull));
    assert_eq!(world.join(4, 0), Ok(2));
    assert_eq!(world.join(3, 1), Err(MachineError::KeptForFull)); // one more is needed
    assert_eq!(world.join(5, 0), Ok(3));
    world.start_epoch();
    // the slots of full members that left are theirs, or another full member's
    world.leave(2).unwrap();
    assert_eq!(world.join(3, 1), Err(MachineError::KeptForFull));
    world.leave(0).unwrap();
    assert_eq!(world.join(1, 1), Ok(0)); // who returns takes up no more than before
}

/// Rules that change may leave a table of which nobody can start an epoch: the authority revokes.
#[test]
fn evicting_opens_a_table_that_cannot_start() {
    let mut world = World::new(2, config());
    world.join(1, 1).unwrap();
    world.join(2, 0).unwrap();
    world.leave(1).unwrap();
    world.settle(1, 2).unwrap();
    assert_eq!(world.join(3, 1), Err(MachineError::KeptForFull));
    world.join(2, 0).unwrap();
    world.set_paused(true).unwrap();
    world
        .configure(&Config {
            min_full_members: 2,
            init_min_clients: 2,
            ..config()
        })
        .unwrap();
    world.set_paused(false).unwrap();
    world.now += 1000;
    assert_eq!(world.tick(), 0);
    assert_eq!(world.join(3, 0), Err(MachineError::TableFull));
    world.evict(0, 1).unwrap();
    assert_eq!(world.join(3, 0), Ok(0));
    world.start_epoch();
}

/// A slot that no round was assigned to, drawn in the drain round to attest the last one.
#[test]
fn a_witness_keeps_its_slot_until_the_round_is_closed() {
    let mut world = World::new(2, config());
    world.join(1, 0).unwrap();
    world.join(2, 0).unwrap();
    world.pass(5);
    world.leave(1).unwrap();
    world.ready_slot(0).unwrap();
    world.tick();
    assert_eq!(world.round().assigned, set(&[0]));
    world.join(2, 0).unwrap(); // into the epoch, after its first round opened
    world.ready_slot(1).unwrap();
    world.set_paused(true).unwrap();
    world.do_round(&[0]);
    assert!(world.header().has(run_flag::DRAINING));
    assert_eq!(world.before().witnesses, set(&[0, 1]));
    world.leave(1).unwrap();
    assert_eq!(world.settle(1, 2), Ok(Settled::default()));
    assert_eq!(world.join(3, 0), Err(MachineError::TableFull));
    world.do_round(&[0]);
    assert_eq!(world.phase(), phase::COOLDOWN);
    assert!(world.settle(1, 2).unwrap().freed);
}
