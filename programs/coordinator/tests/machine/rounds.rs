//! Commits, attestations, what is accepted, what it pays, where the samples go.

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

/// Four members commit in round 1; each row names who attests and what it names.
fn closed_with(votes: &[(usize, &[usize])]) -> World {
    let mut world = World::training(&[0; 4], config());
    world.do_round(&[0, 1, 2, 3]);
    for slot in 0..4 {
        world.commit(slot).unwrap();
    }
    for (slot, named) in votes {
        world.witness_round(*slot, 1, &set(named)).unwrap();
    }
    world.now += 20;
    world.tick();
    world.now += 10;
    world.tick();
    world
}

#[test]
fn votes_accept_at_two_thirds_of_the_others() {
    let all: &[usize] = &[0, 1, 2, 3];
    assert_eq!(
        closed_with(&[(0, all), (1, all), (2, all), (3, all)]).accepted(1),
        all
    );
    // of the three others two are needed: ceil(2 * 3 / 3)
    let world = closed_with(&[(0, all), (1, all), (2, &[0, 1, 2]), (3, &[0, 1, 3])]);
    assert_eq!(world.accepted(1), all);
    let mut world = closed_with(&[(0, all), (1, &[0, 1, 2]), (2, &[0, 1, 2]), (3, all)]);
    assert_eq!(
        world.accepted(1),
        [0, 1, 2],
        "one other and itself do not accept slot 3"
    );
    assert_eq!(world.slot(3).missed, 1);
    // an author with one accomplice among four
    let world = closed_with(&[(0, &[0, 1]), (1, &[0, 1]), (2, &[]), (3, &[])]);
    assert_eq!(world.accepted(1), [0_usize; 0]);
}

#[test]
fn too_few_attestations_accept_nothing_and_charge_nobody() {
    let all: &[usize] = &[0, 1, 2, 3];
    let mut world = closed_with(&[(2, all)]);
    assert_eq!(world.accepted(1), [0_usize; 0]);
    assert_eq!(world.slot(0).missed, 0);
    assert_eq!(
        world.header().returned_len,
        0,
        "the next round has taken the samples up already"
    );
    assert_eq!(
        (world.round().num_fills, world.round().fills[0]),
        (1, Interval::new(0, 12))
    );
    // half of them suffice: 2n >= W
    let world = closed_with(&[(2, all), (0, all)]);
    assert_eq!(world.accepted(1), all);
}

#[test]
fn a_lone_witness_counts_for_itself() {
    let mut world = World::training(&[0], config());
    world.set_rate(7).unwrap();
    world.do_round(&[0]);
    world.do_round(&[0]);
    assert_eq!(world.accepted(1), [0]);
    world.witness_round(0, 2, &bits::EMPTY).unwrap(); // it does not hold its own blob
    world.commit(0).unwrap();
    world.tick();
    assert_eq!(world.accepted(2), [0_usize; 0]);
}

#[test]
fn when_one_of_two_dies_the_others_work_counts() {
    let mut world = World::training(&[0, 0], config());
    world.do_round(&[0, 1]);
    // slot 1 dies here, having committed round 1
    world.commit(0).unwrap();
    world.witness(0).unwrap();
    world.pass(20);
    world.pass(10);
    assert_eq!(world.accepted(1), [0, 1]);
    assert_eq!(
        world.round().assigned,
        set(&[0]),
        "the dead one costs one round"
    );
    world.do_round(&[0]);
    assert_eq!(world.accepted(2), [0]);
    assert_eq!(world.slot(1).missed, 1);
    for _ in 0..4 {
        world.do_round(&[0]);
    }
    assert_eq!(
        world.slot(1).missed,
        1,
        "it is not assigned, so it misses nothing more"
    );
    world.ready_slot(1).unwrap();
    world.do_round(&[0]);
    assert_eq!(world.round().assigned, set(&[0, 1]));
    world.do_round(&[0, 1]);
    world.do_round(&[0, 1]);
    assert_eq!(world.slot(1).missed, 0, "an accepted round wipes the slate");
}

#[test]
fn a_lone_survivor_of_four_goes_on() {
    let mut world = World::training(&[0, 1, 1, 0], config());
    world.do_round(&[0, 1, 2, 3]);
    world.commit(3).unwrap();
    world.witness(3).unwrap();
    world.pass(20);
    world.pass(10);
    assert_eq!(
        world.accepted(1),
        [0_usize; 0],
        "one of four witnesses is too few"
    );
    world.do_round(&[3]);
    assert_eq!(world.accepted(2), [3]);
    world.do_round(&[3]);
    assert_eq!(world.accepted(3), [3]);
}

#[test]
fn missing_rounds_end_a_presence() {
    let mut world = World::training(
        &[0, 0],
        Config {
            max_missed: 2,
            ..config()
        },
    );
    for _ in 0..2 {
        world.commit(0).unwrap();
        if world.before().status == round_status::COMMITTED {
            world.witness(0).unwrap();
        }
        world.pass(20);
        if world.phase() == phase::ROUND_WITNESS {
            world.pass(10);
        }
        let _ = world.ready_slot(1);
        world.do_round(&[0]);
    }
    world.now += 20;
    world.tick();
    world.now += 10;
    world.tick();
    assert_eq!(world.slot(1).status, slot_status::DEPARTED);
    let dropped = Event::Dropped {
        members: set(&[1]),
        reason: Reason::MissedRounds,
    };
    assert_eq!(world.happened(|e| *e == dropped), 1);
    world.join(2, 0).unwrap();
    assert_eq!(
        world.slot(1).status,
        slot_status::WAITING,
        "not into the same epoch"
    );
}

#[test]
fn a_round_that_nobody_commits_charges_everyone() {
    let mut world = World::training(&[0, 0], config());
    world.pass(20);
    assert_eq!(world.phase(), phase::COOLDOWN);
    assert_eq!((world.slot(0).missed, world.slot(1).missed), (1, 1));
    assert_eq!(world.header().returned_len, 1);
    assert_eq!(world.state().returned[0], Interval::new(0, 12));
}

#[test]
fn pay_is_shared_by_weight_and_tier_with_the_remainder_carried() {
    let rules = Config {
        pay_per_tier: [3, 1, 1, 1],
        ..config()
    };
    let mut world = World::new(4, rules);
    world.set_rate(100).unwrap();
    world.join_as(&request(1, 0, 2)).unwrap();
    world.join_as(&request(2, 1, 5)).unwrap();
    world.start_epoch();
    world.set_rate(1).unwrap(); // from the next epoch on
    world.do_round(&[0, 1]);
    world.do_round(&[0, 1]);
    // shares 6 and 5 of 100
    assert_eq!((world.slot(0).earned, world.slot(1).earned), (54, 45));
    assert_eq!(world.header().pay_carry, 1);
    world.do_round(&[0, 1]);
    assert_eq!(
        (world.slot(0).earned, world.slot(1).earned),
        (54 + 55, 45 + 45)
    );
    assert_eq!(world.header().pay_carry, 1);
    assert_eq!(world.header().total_earned, 199);
}

#[test]
fn nothing_accepted_pays_nothing() {
    let mut world = World::new(4, config());
    world.set_rate(100).unwrap();
    world.join(1, 0).unwrap();
    world.start_epoch();
    world.do_round(&[0]);
    world.witness_round(0, 1, &bits::EMPTY).unwrap();
    world.commit(0).unwrap();
    world.tick();
    let header = world.header();
    assert_eq!((header.total_earned, header.pay_carry), (0, 0));
}

#[test]
fn a_run_that_earned_all_there_is_pays_no_more_and_goes_on() {
    let mut world = World::new(4, config());
    world.set_rate(1 << 62).unwrap();
    world.join(1, 0).unwrap();
    world.start_epoch();
    for _ in 0..8 {
        world.do_round(&[0]);
    }
    assert_eq!(world.header().total_earned, 3 << 62);
    assert_eq!(world.slot(0).earned, 3 << 62);
    assert_eq!(world.round().number, 9);
}

#[test]
fn samples_of_a_missing_member_come_back_first() {
    let mut world = World::training(&[0, 0, 0], config());
    world.commit(0).unwrap();
    world.commit(2).unwrap();
    world.pass(20);
    assert_eq!(world.round().samples, 12);
    world.do_round(&[0, 2]); // closes round 1: samples 4..8 of slot 1 are back
    let round = world.round();
    assert_eq!(
        (round.number, round.num_fills, round.fills[0]),
        (3, 1, Interval::new(4, 4))
    );
    assert_eq!((round.data_index, world.header().data_index), (24, 32));
    assert_eq!(world.header().returned_len, 0);
}

#[test]
fn weights_split_the_samples_by_prefix_sums() {
    let mut world = World::new(4, config());
    world.join_as(&request(1, 0, 1)).unwrap();
    world.join_as(&request(2, 0, 2)).unwrap();
    world.join_as(&request(3, 0, 4)).unwrap();
    world.start_epoch();
    // 12 samples, 9 to spare: ends at 1 + 9*1/7, 2 + 9*3/7, 3 + 9
    world.commit(0).unwrap();
    world.commit(2).unwrap();
    world.pass(20);
    world.do_round(&[0, 2]);
    assert_eq!(world.round().fills[0], Interval::new(2, 3));
}

#[test]
fn the_batch_ramps_with_the_tokens() {
    let rules = Config {
        global_batch_size_start: 4,
        global_batch_size_end: 12,
        global_batch_size_warmup_tokens: 20 * 16,
        ..config()
    };
    let mut world = World::training(&[0], rules);
    let mut sizes = vec![world.round().samples];
    for _ in 0..4 {
        world.do_round(&[0]);
        sizes.push(world.round().samples);
    }
    // 4 + 8 * index / 20 at 0, 4, 9, 16, 26
    assert_eq!(sizes, [4, 5, 7, 10, 12]);
}

#[test]
fn everybody_gets_a_sample() {
    let mut world = World::training(
        &[0; 5],
        Config {
            global_batch_size_start: 2,
            global_batch_size_end: 2,
            ..config()
        },
    );
    assert_eq!(world.round().samples, 5);
}

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

#[test]
fn a_full_table_of_256_closes_a_round() {
    let mut world = World::new(256, config());
    for member in 0..=255u8 {
        let mut key = [member; 32];
        key[31] = 1;
        let request = JoinRequest {
            wallet: key,
            hot_key: key,
            p2p_key: key,
            tier: member % 3,
            weight: 1,
        };
        world.join_as(&request).unwrap();
    }
    let request = JoinRequest {
        wallet: [3; 32],
        hot_key: [3; 32],
        p2p_key: [3; 32],
        tier: 0,
        weight: 1,
    };
    assert_eq!(world.join_as(&request), Err(MachineError::TableFull));
    world.set_rate(1000).unwrap();
    world.set_paused(true).unwrap();
    world.set_paused(false).unwrap();
    world.start_epoch();
    let everyone: Vec<usize> = (0..256).collect();
    world.do_round(&everyone);
    assert_eq!(bits::count(&world.before().witnesses), 32);
    world.do_round(&everyone);
    assert_eq!(world.accepted(1).len(), 256);
    assert_eq!(world.header().total_earned, 256 * 3);
    assert_eq!(world.header().pay_carry, 1000 - 256 * 3);
}

#[test]
fn samples_that_find_no_room_are_lost_and_counted() {
    let mut world = World::training(&[0], config());
    // a table full of pieces that are no neighbours
    let s = world.state();
    for (k, entry) in (0u64..).zip(s.returned.iter_mut()) {
        *entry = Interval::new(1_000_000 + 100 * k, 50);
    }
    s.header.returned_len = 16;
    world.pass(20); // nobody committed
    let header = world.header();
    assert_eq!((header.returned_len, header.lost_samples), (16, 12));
    assert_eq!(header.lost_since_checkpoint, 12);
    let lost = |e: &Event| {
        matches!(
            e,
            Event::RoundClosed {
                round: 1,
                lost: 12,
                returned: 0,
                ..
            }
        )
    };
    assert_eq!(world.happened(lost), 1);
}

#[test]
fn a_round_takes_up_eight_returned_pieces_at_most_and_part_of_the_last() {
    let mut world = World::training(&[0], config());
    let fill = |world: &mut World, len: u32| {
        let s = world.state();
        for (k, entry) in (0u64..10).zip(s.returned.iter_mut()) {
            *entry = Interval::new(1_000_000 + 100 * k, len);
        }
        s.header.returned_len = 10;
    };
    fill(&mut world, 1);
    world.do_round(&[0]);
    let round = world.round();
    assert_eq!(
        (round.num_fills, round.fills[7]),
        (8, Interval::new(1_000_700, 1))
    );
    assert_eq!(world.header().data_index, round.data_index + 4);
    assert_eq!(
        (
            world.header().returned_len,
            world.state().returned[0].first()
        ),
        (2, 1_000_800)
    );
    fill(&mut world, 8);
    world.do_round(&[0]);
    let round = world.round();
    assert_eq!(
        (round.num_fills, round.fills[1]),
        (2, Interval::new(1_000_100, 4))
    );
    assert_eq!(world.header().data_index, round.data_index);
    let header = world.header();
    assert_eq!(
        (header.returned_len, world.state().returned[0]),
        (9, Interval::new(1_000_104, 4))
    );
}
