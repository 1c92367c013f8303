//! Who is paid how much for a round.

use crate::support::*;
use coordinator::machine::*;
use coordinator::state::*;

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
