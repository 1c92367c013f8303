//! Presence, pay and administration in every phase, to the byte.

use crate::cast::*;
use crate::support::*;
use coordinator::machine::MachineError::*;
use coordinator::machine::*;
use coordinator::state::*;

#[test]
fn presence_by_phase() {
    for phase in PHASES {
        let in_epoch = (phase::WARMUP..=phase::COOLDOWN).contains(&phase);
        for slot in [READY, IDLE, WAITING] {
            let member = slot as u8 + 1;
            let world = cast(phase);
            let expected = world.changed(|s| {
                s.slots[slot].status = slot_status::DEPARTED;
                s.slots[slot].flags &= slot_flag::IN_EPOCH;
            });
            let mut left = world.clone();
            left.leave(slot).unwrap();
            assert_eq!(left.data_mut(), expected, "leave {phase} {slot}");
            let mut evicted = world.clone();
            evicted.evict(slot, member).unwrap();
            assert_eq!(evicted.data_mut(), expected, "evict {phase} {slot}");
            assert_eq!(evicted.evict(slot, member), Err(NotPresent));
            assert_eq!(evicted.evict(slot, 77), Err(NotPresent), "another's");
            // and back at once as in this epoch: the same slot, active again
            let joined = match phase {
                phase::UNINITIALIZED => Err(NotConfigured),
                phase::FINISHED => Err(RunFinished),
                _ => Ok(slot as u16),
            };
            let mut back = left;
            assert_eq!(back.join(member, 0), joined, "join {phase}");
            if joined.is_ok() {
                let status = [slot_status::WAITING, slot_status::ACTIVE][usize::from(in_epoch)];
                let place = back.slot(slot);
                assert_eq!((place.status, place.flags & 3), (status, 0));
                assert_eq!(back.join(member, 0), Err(AlreadyJoined));
            }
        }
        let mut world = cast(phase);
        if phase != phase::FINISHED {
            assert_eq!(world.evict(DEPARTED, 4), Err(NotPresent));
        }
        assert_eq!(world.evict(FREE, 0), Err(NotPresent));
        let joined = match phase {
            phase::UNINITIALIZED => Err(NotConfigured),
            phase::FINISHED => Err(RunFinished),
            _ => Ok(FREE as u16),
        };
        assert_eq!(world.join(9, 2), joined);
    }
}

#[test]
fn settle_by_phase() {
    for phase in PHASES {
        for slot in [READY, IDLE, WAITING, DEPARTED] {
            let mut world = cast(phase);
            let earned = world.slot(slot).earned;
            assert!(earned > 0);
            let in_epoch = (phase::WARMUP..=phase::COOLDOWN).contains(&phase);
            let freed = world.slot(slot).status == slot_status::DEPARTED && !in_epoch;
            let expected = world.changed(|s| {
                s.slots[slot].earned = 0;
                if freed {
                    s.slots[slot] = Slot::default();
                }
            });
            assert_eq!(world.settle(slot, 77), Ok(Settled::default()), "another's");
            let moved = Settled {
                moved: earned,
                freed,
            };
            assert_eq!(
                world.settle(slot, slot as u8 + 1),
                Ok(moved),
                "{phase} {slot}"
            );
            assert_eq!(world.data_mut(), expected, "{phase} {slot}");
            let again = world.settle(slot, slot as u8 + 1);
            assert_eq!(again, Ok(Settled::default()), "nobody is paid twice");
            assert_eq!(world.data_mut(), expected);
        }
        assert_eq!(cast(phase).settle(FREE, 0), Ok(Settled::default()));
    }
}

#[test]
fn administration_by_phase() {
    let halted = |phase| {
        matches!(
            phase,
            phase::UNINITIALIZED | phase::FINISHED | phase::PAUSED
        )
    };
    for phase in PHASES {
        let refused_if_live = if halted(phase) {
            Ok(())
        } else {
            Err(NotHalted)
        };
        assert_eq!(cast(phase).configure(&config()), refused_if_live, "{phase}");
        assert_eq!(cast(phase).unseal(), refused_if_live, "{phase}");
        let sealed = match phase {
            phase::UNINITIALIZED => Ok(()),
            _ if halted(phase) => Err(SpecSealed),
            _ => Err(NotHalted),
        };
        assert_eq!(cast(phase).seal(), sealed, "{phase}");
        let mut world = cast(phase);
        let expected = world.changed(|s| s.header.next_round_rate = 1 << 62);
        assert_eq!(world.set_rate(1 << 62), Ok(()));
        assert_eq!(world.data_mut(), expected);
        assert_eq!(world.set_rate((1 << 62) + 1), Err(RateTooHigh));
        assert_eq!(world.set_rate(u64::MAX), Err(RateTooHigh));
        let (pause, resume) = match phase {
            phase::UNINITIALIZED => (Err(NotConfigured), Err(NotConfigured)),
            phase::FINISHED => (Err(RunFinished), Err(RunFinished)),
            phase::PAUSED => (Err(AlreadyPaused), Ok(())),
            _ => (Ok(()), Err(NotPaused)),
        };
        assert_eq!(cast(phase).set_paused(true), pause, "{phase}");
        assert_eq!(cast(phase).set_paused(false), resume, "{phase}");
        if (phase::ROUND_TRAIN..=phase::COOLDOWN).contains(&phase) {
            let mut world = cast(phase);
            let expected = world.changed(|s| s.header.flags |= run_flag::PAUSE_REQUESTED);
            world.set_paused(true).unwrap();
            assert_eq!(world.data_mut(), expected);
            assert_eq!(world.set_paused(true), Err(AlreadyPaused));
            let expected = world.changed(|s| s.header.flags &= !run_flag::PAUSE_REQUESTED);
            world.set_paused(false).unwrap();
            assert_eq!(world.data_mut(), expected);
        }
        let mut world = cast(phase);
        let owed = if halted(phase) {
            Err(NotSettled)
        } else {
            Err(NotHalted)
        };
        assert_eq!(world.closable(), owed, "{phase}");
        for slot in 0..4 {
            world.settle(slot, slot as u8 + 1).unwrap();
        }
        assert_eq!(world.closable(), refused_if_live, "{phase}");
        // and nothing is due in a cast that just arrived
        let mut world = cast(phase);
        for now in [i64::MIN, 0, world.now] {
            world.now = now;
            assert_eq!(world.tick(), 0, "{phase}");
        }
    }
}
