//! Attestations decide what is accepted, and who missed a round.

use crate::support::*;
use coordinator::machine::*;
use coordinator::state::*;

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

/// So many members, all of whom committed the second round and may attest the first.
fn crowd(members: u8) -> World {
    let mut world = World::new(40, config());
    for member in 1..=members {
        world.join(member, 0).unwrap();
    }
    world.start_epoch();
    let all: Vec<usize> = (0..usize::from(members)).collect();
    world.do_round(&all);
    for slot in all {
        world.commit(slot).unwrap();
    }
    world
}

/// The witness phase of the second round passes.
fn time_out(world: &mut World) {
    world.now += 20;
    world.tick();
    world.now += 10;
    world.tick();
}

/// Two thirds of the others, for each number of them: one vote less, exactly, one more.
#[test]
fn votes_at_the_threshold_for_every_number_of_others() {
    for members in 1..=33u8 {
        let start = crowd(members);
        let witnesses = start.clone().before().witnesses;
        let all = start.clone().before().committed;
        let author = (0..usize::from(members))
            .rfind(|slot| members <= 32 || !bits::contains(&witnesses, *slot))
            .unwrap();
        let others: Vec<usize> = bits::iter(&witnesses).filter(|w| *w != author).collect();
        let needed = (1..).find(|v| 3 * v >= 2 * others.len()).unwrap();
        for votes in [needed - 1, needed, needed + 1] {
            let mut world = start.clone();
            let mut without = all;
            bits::remove(&mut without, author);
            for (k, slot) in others.iter().enumerate() {
                let held = if k < votes { &all } else { &without };
                world.witness_round(*slot, 1, held).unwrap();
            }
            if bits::contains(&witnesses, author) {
                // its own vote helps only where there is no other
                let held = if others.is_empty() && votes < needed {
                    &without
                } else {
                    &all
                };
                world.witness_round(author, 1, held).unwrap();
            }
            time_out(&mut world);
            let accepted = world.accepted(1);
            let has = accepted.contains(&author);
            assert_eq!(has, votes >= needed, "{votes} of {} others", others.len());
            assert_eq!(accepted.len(), usize::from(members) - usize::from(!has));
        }
    }
}

/// Half of the witnesses, for each number of them: one less, and exactly.
#[test]
fn a_quorum_is_half_of_the_witnesses() {
    for members in 1..=32u8 {
        let start = crowd(members);
        let all = start.clone().before().committed;
        let half = usize::from(members).div_ceil(2);
        for attested in [half - 1, half] {
            let mut world = start.clone();
            for slot in 0..attested {
                world.witness_round(slot, 1, &all).unwrap();
            }
            time_out(&mut world);
            let (accepted, missed) = (world.accepted(1).len(), world.slot(0).missed);
            let counts = attested == half;
            assert_eq!(accepted, if counts { usize::from(members) } else { 0 });
            assert_eq!(missed, 0, "nobody is charged without a verdict");
        }
    }
}
