//! Which samples a round takes, and where they go.

use crate::support::*;
use coordinator::machine::*;
use coordinator::state::*;

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
