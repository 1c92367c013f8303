//! What a round is: its witnesses and its record.

use crate::support::*;
use coordinator::state::*;

#[test]
fn witnesses_are_drawn_in_number_and_differ_from_round_to_round() {
    let mut world = World::training(
        &[0; 9],
        Config {
            witness_nodes: 3,
            ..config()
        },
    );
    let everyone: Vec<usize> = (0..9).collect();
    let mut seen = bits::EMPTY;
    for round in 1..12 {
        world.now += 1;
        world.do_round(&everyone);
        let before = world.before();
        assert_eq!((before.number, bits::count(&before.witnesses)), (round, 3));
        seen = bits::or(&seen, &before.witnesses);
    }
    assert!(bits::count(&seen) > 6);
}

/// Whoever votes last sees the newest slot's hash and may try as many votes as it has time for: none of them moves
/// the next draw.
#[test]
fn the_last_vote_does_not_choose_the_next_seed() {
    let after = |vote: &[usize]| {
        let mut world = World::training(&[0, 0, 0], config());
        world.do_round(&[0, 1, 2]);
        for slot in 0..3 {
            world.commit(slot).unwrap();
        }
        world.witness(0).unwrap();
        world.witness(1).unwrap();
        let before = world.before().number;
        world.witness_round(2, before, &set(vote)).unwrap();
        assert_eq!(world.tick(), 2);
        world.header()
    };
    let (all, none) = (after(&[0, 1, 2]), after(&[]));
    assert_ne!(all.history, none.history);
    assert_eq!(all.seed, none.seed);
}

#[test]
fn the_history_is_the_hash_of_the_record() {
    let mut world = World::training(&[0, 1], config());
    world.do_round(&[0, 1]);
    let round = world.before();
    world.do_round(&[0, 1]);
    let mut record = vec![0u8; 32];
    record.extend(1u64.to_le_bytes()); // epoch
    record.extend(1u64.to_le_bytes()); // number
    record.extend(0u64.to_le_bytes()); // step
    record.push(1);
    record.extend(round.seed);
    record.extend(0u64.to_le_bytes()); // data index
    record.extend(12u32.to_le_bytes());
    record.extend([3u8]);
    record.extend([0u8; 31]);
    record.extend([5u8; 32]); // specification
    record.extend(2u16.to_le_bytes());
    for slot in 0..2u16 {
        record.extend(slot.to_le_bytes());
        record.push(slot as u8); // tier
        record.extend(1u16.to_le_bytes());
        record.extend(blob(slot as u8 + 1, 1));
    }
    assert_eq!(
        world.header().history,
        solana_sha256_hasher::hash(&record).to_bytes()
    );
}
