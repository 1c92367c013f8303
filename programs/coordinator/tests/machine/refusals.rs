//! Every call in every phase by every kind of member: what it changes, to the byte, or why it is refused.
//!
//! `World::act` compares the whole account after each refusal.

use crate::cast::*;
use crate::support::*;
use coordinator::machine::MachineError::*;
use coordinator::machine::*;
use coordinator::state::*;

type Outcome = Result<(), MachineError>;

#[test]
fn the_cast_is_what_its_slots_say() {
    for phase in PHASES {
        let mut world = cast(phase);
        assert_eq!(world.phase(), phase);
        let slots = world.state().slots.to_vec();
        let in_epoch = (phase::WARMUP..=phase::COOLDOWN).contains(&phase);
        let active = [slot_status::WAITING, slot_status::ACTIVE][usize::from(in_epoch)];
        assert_eq!((slots[READY].status, slots[IDLE].status), (active, active));
        assert_eq!(slots[READY].has(slot_flag::READY), in_epoch);
        assert!(!slots[IDLE].has(slot_flag::READY));
        assert_eq!(slots[WAITING].status, slot_status::WAITING);
        if phase != phase::FINISHED {
            assert_eq!(slots[DEPARTED].status, slot_status::DEPARTED);
        }
        assert_eq!(slots[FREE].status, slot_status::FREE);
    }
}

/// One call, by the member of a slot.
type Call = fn(&mut World, usize) -> Outcome;
/// By phase, what the ready, the idle, the waiting and the departed member get.
type Table = [[Outcome; 4]; 8];

const fn all(outcome: Outcome) -> [Outcome; 4] {
    [outcome; 4]
}

const fn except(at: usize, row: [Outcome; 4], other: Outcome) -> Table {
    let mut table = [all(other); 8];
    table[at] = row;
    table
}

const DUTY: [Outcome; 4] = [Ok(()), Ok(()), Err(NotActive), Err(NotActive)];
const STANDING: [Outcome; 4] = [Err(AlreadyReady), Ok(()), Err(NotActive), Err(NotActive)];

fn ready_table() -> Table {
    let mut table = except(2, STANDING, Err(ReadyNotNow));
    table[3] = STANDING;
    table[4] = STANDING;
    table
}

fn witness_table() -> Table {
    let mut table = except(3, DUTY, Err(NotWitnessing));
    table[4] = DUTY;
    table
}

fn present_table() -> Table {
    [[Ok(()), Ok(()), Ok(()), Err(NotPresent)]; 8]
}

#[test]
fn duties_by_phase_and_member() {
    let commit: Call = |w, slot| w.commit(slot);
    let witness: Call = |w, slot| w.witness(slot);
    let attest: Call = |w, slot| w.attest(slot, &[[1; 32]; 3]);
    let no_record = [
        Err(WeightsNotAgreed),
        Err(WeightsNotAgreed),
        Err(NotActive),
        Err(NotActive),
    ];
    let calls: [(&str, Call, Table); 6] = [
        ("ready", |w, slot| w.ready_slot(slot), ready_table()),
        ("commit", commit, except(3, DUTY, Err(NotTraining))),
        ("witness", witness, witness_table()),
        (
            "attest_checkpoint",
            attest,
            except(5, DUTY, Err(NotCooldown)),
        ),
        (
            "record_checkpoint",
            |w, slot| w.record(slot, b"hf://x"),
            except(5, no_record, Err(NotCooldown)),
        ),
        ("leave", |w, slot| w.leave(slot), present_table()),
    ];
    for (name, call, table) in calls {
        for (phase, row) in PHASES.into_iter().zip(table) {
            for (slot, outcome) in row.into_iter().enumerate() {
                let departed_is_back = phase == phase::FINISHED && slot == DEPARTED;
                let mut world = cast(phase);
                if departed_is_back {
                    let _ = world.leave(DEPARTED);
                }
                assert_eq!(call(&mut world, slot), outcome, "{name} {phase} {slot}");
                assert_eq!(
                    call(&mut cast(phase), FREE),
                    Err(WrongSigner),
                    "{name} {phase}"
                );
                assert_eq!(
                    call(&mut cast(phase), BEYOND),
                    Err(NoSuchSlot),
                    "{name} {phase}"
                );
            }
        }
    }
}

/// With another's key, the zero key or a slot's own p2p key nobody does anything, in any phase.
#[test]
fn only_the_slots_own_keys_sign() {
    for phase in PHASES {
        for slot in 0..6u16 {
            for key in [[0; 32], wallet(77), hot(5), peer(slot as u8 + 1)] {
                let mut w = cast(phase);
                let round = w.round().number;
                let calls = [
                    w.act(|s, _, _| ready(s, slot, &key)),
                    w.act(|s, _, _| commit(s, slot, &key, round, &[1; 32])),
                    w.act(|s, _, _| witness(s, slot, &key, round - 1, &[0; 4])),
                    w.act(|s, _, log| attest_checkpoint(s, slot, &key, 4, &[[1; 32]; 3], log)),
                    w.act(|s, _, log| record_checkpoint(s, slot, &key, b"x", log)),
                    w.act(|s, _, log| leave(s, slot, &key, log)),
                ];
                assert!(calls.iter().all(|c| *c == Err(WrongSigner)), "{phase}");
                for beyond in [6, 255, 256, u16::MAX] {
                    let refused = w.act(|s, _, _| ready(s, beyond, &key));
                    assert_eq!(refused, Err(NoSuchSlot));
                    let refused = w.act(|s, _, log| evict(s, beyond, &key, log));
                    assert_eq!(refused, Err(NoSuchSlot));
                    let refused = w.act(|s, _, _| settle(s, beyond, &key));
                    assert_eq!(refused, Err(NoSuchSlot));
                }
            }
        }
    }
}

#[test]
fn what_a_duty_changes_to_the_byte() {
    for phase in [phase::WARMUP, phase::ROUND_TRAIN, phase::ROUND_WITNESS] {
        let mut world = cast(phase);
        let expected = world.changed(|s| s.slots[IDLE].flags |= slot_flag::READY);
        world.ready_slot(IDLE).unwrap();
        assert_eq!(world.data_mut(), expected);
    }
    let mut world = cast(phase::ROUND_TRAIN);
    let number = world.round().number;
    let row = usize::from(world.header().open);
    let expected = world.changed(|s| {
        s.commitments[row * 6 + IDLE] = blob(2, number);
        s.header.rounds[row].committed = set(&[IDLE]);
    });
    world.commit(IDLE).unwrap();
    assert_eq!(world.data_mut(), expected);
    for phase in [phase::ROUND_TRAIN, phase::ROUND_WITNESS] {
        let mut world = cast(phase);
        let before = world.before();
        assert_eq!(before.witnesses, set(&[READY, IDLE, DEPARTED]));
        let row = (usize::from(world.header().open) + 3) % 4;
        let held = set(&[READY, DEPARTED]);
        let expected = world.changed(|s| {
            s.attestations[1] = held; // the second witness
            s.header.rounds[row].attested = set(&[IDLE]);
        });
        world.witness_round(IDLE, before.number, &held).unwrap();
        assert_eq!(world.data_mut(), expected);
    }
    let mut world = cast(phase::COOLDOWN);
    let open = usize::from(world.header().open);
    let expected = world.changed(|s| {
        s.slots[IDLE].flags |= slot_flag::ATTESTED;
        for part in 0..3 {
            let row = (open + part) % 4;
            s.commitments[row * 6 + IDLE] = [part as u8; 32];
            if s.header.rounds[row].trained != 0 {
                s.header.rounds[row].status = round_status::EMPTY;
            }
        }
    });
    world.attest(IDLE, &[[0; 32], [1; 32], [2; 32]]).unwrap();
    assert_eq!(world.data_mut(), expected);
}

#[test]
fn wrong_arguments_are_refused_in_the_right_phase() {
    let mut world = cast(phase::ROUND_TRAIN);
    let number = world.round().number;
    for round in [0, number - 1, number + 1, u64::MAX] {
        assert_eq!(world.commit_round(READY, round), Err(WrongRound));
    }
    for round in [0, number, number - 2, u64::MAX] {
        assert_eq!(
            world.witness_round(READY, round, &set(&[])),
            Err(WrongRound)
        );
    }
    for beyond in [set(&[4]), set(&[255]), [u64::MAX; 4], [0, 0, 0, 1 << 63]] {
        let refused = world.witness_round(READY, number - 1, &beyond);
        assert_eq!(refused, Err(BitmapNotCommitted));
    }
    world.commit(READY).unwrap();
    assert_eq!(world.commit(READY), Err(AlreadyCommitted));
    world.witness(READY).unwrap();
    assert_eq!(world.witness(READY), Err(AlreadyAttested));
    let mut world = cast(phase::COOLDOWN);
    for step in [0, 3, 5, u64::MAX] {
        assert_eq!(
            world.attest_step(READY, step, &[[1; 32]; 3]),
            Err(WrongStep)
        );
    }
    for digests in [0, 1, 2, 4, 9] {
        let refused = world.attest(READY, &vec![[1; 32]; digests]);
        assert_eq!(refused, Err(WrongDigestCount));
    }
    world.attest(READY, &[[1; 32]; 3]).unwrap();
    assert_eq!(world.attest(READY, &[[1; 32]; 3]), Err(AlreadyAttested));
    assert_eq!(world.header().pending.agreed, 1, "the only one that counts");
    assert_eq!(world.record(IDLE, b"x"), Err(NotUploader));
    assert_eq!(world.record(WAITING, b"x"), Err(NotActive));
    for bad in [&b""[..], &[b'a'; 129], &[b'a'; 70_000], b"a b", b"\n", &[0]] {
        assert_eq!(world.record(READY, bad), Err(BadUri));
    }
    world.record(READY, &[b'~'; 128]).unwrap();
    assert_eq!(world.record(READY, b"x"), Err(UriRecorded));
}
