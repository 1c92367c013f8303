//! Agreeing on weights, and going back.

use crate::support::*;
use coordinator::machine::*;
use coordinator::state::*;
use solana_sha256_hasher::hashv;

const G: [[u8; 32]; 3] = [[0xa2; 32], [0xa1; 32], [0xa0; 32]];
const WRONG: [[u8; 32]; 3] = [[0xee; 32]; 3];

/// Members of these tiers at the end of an epoch of three rounds.
fn cooling(tiers: &[u8]) -> World {
    let mut world = World::training(tiers, config());
    let everyone: Vec<usize> = (0..tiers.len()).collect();
    world.do_round(&everyone);
    world.do_round(&everyone);
    world.set_paused(true).unwrap();
    world.set_paused(false).unwrap();
    let mut rules = world.header().config;
    rules.epoch_time = 1;
    world.state().header.config = rules;
    world.now += 1;
    world.do_round(&everyone);
    world.do_round(&everyone);
    assert_eq!(world.phase(), phase::COOLDOWN);
    world
}

#[test]
fn every_part_needs_more_than_half_of_its_holders() {
    let mut world = cooling(&[0, 1, 2, 2]);
    let last = world.before();
    world.attest(2, &G[..1]).unwrap();
    world.attest(3, &G[..1]).unwrap();
    assert_eq!(world.header().pending.agreed, 0);
    world.attest(1, &G[..2]).unwrap();
    assert_eq!(
        world.header().pending.agreed,
        0,
        "one of two holders of part 1, none of part 2"
    );
    world.attest(0, &G).unwrap();
    let header = world.header();
    assert_eq!(header.pending.agreed, 1);
    assert!(header.has(run_flag::URI_MISSING));
    let h1 = hashv(&[&G[0], &G[1]]).to_bytes();
    let h0 = hashv(&[&h1, &G[2]]).to_bytes();
    assert_eq!(header.pending.weights_hash, h0);
    assert_eq!(
        world.before().status,
        round_status::CLOSED,
        "the last round can still be read"
    );
    let row = usize::try_from(last.number % 4).unwrap() * 16;
    assert_eq!(world.state().commitments[row + 1], blob(2, last.number));
    assert_eq!(world.tick(), 0);
    let uploader = usize::from(header.uploader);
    assert_eq!(uploader, 0, "only slot 0 is of tier 0");
    assert_eq!(world.record(1, b"hf://x"), Err(MachineError::NotUploader));
    for bad in [&b""[..], &[b'a'; 129], b"a b", b"\xff"] {
        assert_eq!(world.record(0, bad), Err(MachineError::BadUri));
    }
    world.record(0, &[b'a'; 128]).unwrap();
    assert_eq!(world.record(0, b"again"), Err(MachineError::UriRecorded));
    assert_eq!(world.tick(), 1);
    let checkpoint = world.header().checkpoint;
    assert_eq!(
        (checkpoint.step, checkpoint.agreed, checkpoint.uri_len),
        (3, 1, 128)
    );
    assert_eq!(checkpoint.history, world.header().history);
    assert_eq!(world.phase(), phase::WAITING_FOR_MEMBERS);
}

#[test]
fn a_minority_cannot_agree() {
    let mut world = cooling(&[0, 0, 0, 0]);
    world.attest(0, &G).unwrap();
    world.attest(1, &G).unwrap();
    world.attest(2, &WRONG).unwrap();
    assert_eq!(world.header().pending.agreed, 0, "two of four");
    world.leave(2).unwrap();
    assert_eq!(world.header().pending.agreed, 1, "two of three");
}

#[test]
fn disagreement_keeps_the_old_checkpoint() {
    let mut world = cooling(&[0, 0]);
    let old = world.header().checkpoint;
    world.attest(0, &G).unwrap();
    world.attest(1, &WRONG).unwrap();
    assert_eq!(world.record(0, b"x"), Err(MachineError::WeightsNotAgreed));
    world.pass(40);
    assert_eq!(world.header().checkpoint, old);
}

#[test]
fn agreed_weights_without_a_uri_count_when_time_is_over() {
    let mut world = cooling(&[0]);
    world.attest(0, &G).unwrap();
    world.pass(40);
    let checkpoint = world.header().checkpoint;
    assert_eq!(
        (checkpoint.agreed, checkpoint.uri_len, checkpoint.step),
        (1, 0, 3)
    );
    let recorded = |e: &Event| matches!(e, Event::CheckpointRecorded { uri_len: 0, .. });
    assert_eq!(world.happened(recorded), 1);
}

#[test]
fn attest_refuses_with_the_reason() {
    let mut world = World::training(&[0, 1], config());
    assert_eq!(world.attest(0, &G), Err(MachineError::NotCooldown));
    assert_eq!(world.record(0, b"x"), Err(MachineError::NotCooldown));
    let mut world = cooling(&[0, 1]);
    assert_eq!(world.attest_step(0, 2, &G), Err(MachineError::WrongStep));
    assert_eq!(
        world.attest(0, &G[..2]),
        Err(MachineError::WrongDigestCount)
    );
    assert_eq!(world.attest(1, &G), Err(MachineError::WrongDigestCount));
    assert_eq!(world.attest(1, &[]), Err(MachineError::WrongDigestCount));
    assert_eq!(world.attest(1, &G[..2]), Ok(()));
    assert_eq!(world.attest(1, &G[..2]), Err(MachineError::AlreadyAttested));
    world.join(3, 0).unwrap();
    assert_eq!(world.attest(2, &G), Err(MachineError::NotActive));
}

#[test]
fn another_full_member_records_when_the_uploader_is_gone() {
    let mut world = cooling(&[0, 0, 1]);
    for slot in 0..2 {
        world.attest(slot, &G).unwrap();
    }
    world.attest(2, &G[..2]).unwrap();
    let uploader = usize::from(world.header().uploader);
    let other = 1 - uploader;
    assert_eq!(world.record(other, b"x"), Err(MachineError::NotUploader));
    world.leave(uploader).unwrap();
    assert_eq!(world.record(2, b"x"), Err(MachineError::NotUploader));
    assert_eq!(world.record(other, b"x"), Ok(()));
}

#[test]
fn failed_warmups_rewind_to_the_checkpoint() {
    let mut world = cooling(&[0, 0]);
    world.attest(0, &G).unwrap();
    world.attest(1, &G).unwrap();
    world.pass(40);
    let checkpoint = world.header().checkpoint;
    assert_eq!((checkpoint.step, checkpoint.data_index), (3, 36));
    // another epoch, without an agreement
    world.start_epoch();
    world.do_round(&[0]);
    world.now += 20;
    world.tick();
    world.do_round(&[0]);
    world.now += 20;
    world.tick();
    while world.phase() != phase::WAITING_FOR_MEMBERS {
        world.now += 40;
        world.tick();
    }
    let head = world.header();
    assert!(head.step > 3 && head.data_index > 36);
    for failed in 0..3 {
        assert_eq!(world.header().failed_warmups, failed);
        for member in 1..=2 {
            let _ = world.join(member, 0); // whoever was dropped comes back
        }
        world.now += 5;
        world.tick();
        world.pass(30);
    }
    let header = world.header();
    assert_eq!((header.step, header.data_index), (3, 36));
    assert_eq!(
        (header.history, header.returned_len),
        (checkpoint.history, 0)
    );
    assert_eq!(
        header.next_round, head.next_round,
        "round numbers never restart"
    );
    assert_eq!((header.failed_warmups, header.lost_samples), (0, 0));
    assert_eq!(
        world.happened(|e| matches!(e, Event::Rewound { to_step: 3, .. })),
        1
    );
    for member in 1..=2 {
        let _ = world.join(member, 0);
    }
    world.start_epoch();
    assert_eq!((world.round().step, world.round().data_index), (3, 36));
}

#[test]
fn failed_warmups_at_the_logs_head_rewind_nothing() {
    let mut world = World::new(
        4,
        Config {
            max_failed_warmups: 1,
            ..config()
        },
    );
    world.join(1, 0).unwrap();
    world.pass(5);
    world.pass(30);
    assert_eq!(world.happened(|e| matches!(e, Event::Rewound { .. })), 0);
    assert_eq!(world.header().failed_warmups, 0);
}

/// Samples that were waiting in the table at the checkpoint, and were taken up since.
#[test]
fn a_rewind_loses_what_was_trained_below_the_checkpoint_and_nothing_else() {
    for trained in [false, true] {
        let rules = Config {
            max_failed_warmups: 1,
            ..config()
        };
        let mut world = World::training(&[0, 0], rules);
        world.pass(20); // nobody commits: samples 0..12 go back, and the epoch ends
        assert_eq!(world.phase(), phase::COOLDOWN);
        world.attest(0, &G).unwrap();
        world.attest(1, &G).unwrap();
        world.record(0, b"hf://x").unwrap();
        world.tick();
        assert_eq!(world.header().checkpoint.data_index, 12);
        world.start_epoch();
        assert_eq!(world.round().fills[0], Interval::new(0, 12));
        assert_eq!(world.header().fills_since_checkpoint, 12);
        if trained {
            world.do_round(&[0, 1]);
            world.do_round(&[0, 1]); // round 2 is accepted
        }
        while world.phase() != phase::WAITING_FOR_MEMBERS {
            world.now += 40;
            world.tick();
        }
        world.pass(5);
        world.pass(30);
        assert_eq!(world.happened(|e| matches!(e, Event::Rewound { .. })), 1);
        let lost = if trained { 12 } else { 0 };
        let header = world.header();
        assert_eq!((header.data_index, header.lost_samples), (12, lost));
        assert_eq!(header.returned_len, u16::from(!trained));
    }
}
