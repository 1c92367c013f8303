//! Who may do what it owes, and why not.

use crate::support::*;
use coordinator::machine::*;
use coordinator::state::*;

#[test]
fn commit_refuses_with_the_reason() {
    let mut world = World::training(&[0, 0], config());
    assert_eq!(world.commit_round(9, 1), Err(MachineError::WrongSigner));
    assert_eq!(world.commit_round(16, 1), Err(MachineError::NoSuchSlot));
    assert_eq!(world.commit_round(0, 2), Err(MachineError::WrongRound));
    assert_eq!(world.commit_round(0, 1), Ok(())); // only the round was wrong
    assert_eq!(
        world.commit_round(0, 1),
        Err(MachineError::AlreadyCommitted)
    );
    world.join(3, 0).unwrap();
    assert_eq!(world.commit_round(2, 1), Err(MachineError::NotActive));
    world.pass(20);
    assert_eq!(world.round().number, 2);
    assert_eq!(world.commit_round(1, 2), Err(MachineError::NotAssigned));
    world.commit(0).unwrap();
    world.now += 20;
    world.tick();
    assert_eq!(world.phase(), phase::ROUND_WITNESS);
    assert_eq!(world.commit_round(0, 2), Err(MachineError::NotTraining));
}

#[test]
fn wallet_and_hot_key_sign_and_nobody_else() {
    let mut world = World::new(4, config());
    world.join(1, 0).unwrap();
    world
        .join_as(&JoinRequest {
            hot_key: [0; 32],
            ..request(2, 0, 1)
        })
        .unwrap();
    world.pass(5);
    assert_eq!(world.ready_as(0, &hot(2)), Err(MachineError::WrongSigner));
    assert_eq!(world.ready_as(1, &[0; 32]), Err(MachineError::WrongSigner));
    assert_eq!(world.ready_as(1, &wallet(2)), Ok(()));
    assert_eq!(world.ready_as(0, &wallet(1)), Ok(()));
    assert_eq!(world.ready_as(0, &hot(1)), Err(MachineError::AlreadyReady));
}

#[test]
fn witness_refuses_with_the_reason() {
    let mut world = World::training(
        &[0, 0, 0],
        Config {
            witness_nodes: 2,
            ..config()
        },
    );
    assert_eq!(
        world.witness_round(0, 0, &bits::EMPTY),
        Err(MachineError::NotWitnessing)
    );
    world.commit(0).unwrap();
    world.commit(1).unwrap();
    world.pass(20);
    let drawn: Vec<usize> = bits::iter(&world.before().witnesses).collect();
    assert_eq!(drawn, [0, 1], "slot 2 did not commit, so it is not drawn");
    let (w, committed) = (drawn[0], world.before().committed);
    assert_eq!(
        world.witness_round(w, 2, &committed),
        Err(MachineError::WrongRound)
    );
    assert_eq!(
        world.witness_round(2, 1, &committed),
        Err(MachineError::NotWitness)
    );
    assert_eq!(
        world.witness_round(w, 1, &set(&[0, 2])),
        Err(MachineError::BitmapNotCommitted)
    );
    assert_eq!(
        world.witness_round(w, 1, &set(&[0, 255])),
        Err(MachineError::BitmapNotCommitted)
    );
    assert_eq!(world.witness_round(w, 1, &committed), Ok(()));
    assert_eq!(
        world.witness_round(w, 1, &committed),
        Err(MachineError::AlreadyAttested)
    );
    world.leave(drawn[1]).unwrap();
    assert_eq!(
        world.witness_round(drawn[1], 1, &committed),
        Err(MachineError::NotActive)
    );
}

#[test]
fn ready_refuses_with_the_reason() {
    let mut world = World::new(4, config());
    world.join(1, 0).unwrap();
    assert_eq!(world.ready_slot(0), Err(MachineError::ReadyNotNow));
    world.pass(5);
    assert_eq!(world.ready_slot(0), Ok(()));
    assert_eq!(world.ready_slot(0), Err(MachineError::AlreadyReady));
}
