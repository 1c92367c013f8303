//! Bytes that are no state are refused; nothing that an account may hold can panic.

use crate::support::*;
use coordinator::machine::*;
use coordinator::state::*;
use proptest::prelude::*;

#[test]
fn a_state_that_is_not_one_is_refused() {
    let size = State::size(4);
    let mut memory = vec![0u64; size / 8 + 1];
    let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut memory);
    assert_eq!(
        State::from_bytes(&mut bytes[..size]).err(),
        Some(MachineError::WrongVersion)
    );
    assert_eq!(
        State::from_bytes(&mut bytes[..size - 1]).err(),
        Some(MachineError::WrongSize)
    );
    assert_eq!(
        State::from_bytes(&mut bytes[1..=size]).err(),
        Some(MachineError::Misaligned)
    );
    assert_eq!(
        State::from_bytes(&mut []).err(),
        Some(MachineError::WrongSize)
    );
    assert!(State::init(&mut bytes[..size], &[1; 32], 7).is_ok());
    assert_eq!(
        State::init(&mut bytes[..size], &[1; 32], 7).err(),
        Some(MachineError::NotZeroed)
    );
    assert!(State::from_bytes(&mut bytes[..size]).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]

    /// Whatever an account holds, an action is done or refused, never a panic.
    #[test]
    fn garbage_never_panics(
        seed in any::<u64>(),
        phase in 0u8..9,
        flags in any::<u8>(),
        open in 0u8..6,
        statuses in prop::collection::vec(0u8..5, 8),
        now in any::<i64>(),
    ) {
        let mut world = World::bare(8);
        let mut x = seed;
        for byte in world.data_mut() {
            x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            *byte = (x >> 56) as u8;
        }
        let mut sane = config();
        sane.warmup_time = seed;
        let data = world.data_mut();
        data[..8].copy_from_slice(&1u64.to_le_bytes());
        let at = std::mem::offset_of!(Header, capacity);
        data[at..at + 2].copy_from_slice(&8u16.to_le_bytes());
        {
            let s = world.state();
            s.header.phase = phase;
            s.header.flags = flags;
            s.header.open = open;
            if seed % 3 == 0 {
                s.header.config = sane;
                s.header.next_round = 77;
            }
            for (slot, status) in s.slots.iter_mut().zip(&statuses) {
                slot.status = *status;
            }
            for round in s.header.rounds.iter_mut() {
                round.status %= 5;
                if seed % 2 == 0 {
                    round.num_fills %= 9;
                }
            }
        }
        world.now = now;
        let env = world.env();
        let mut log = Log(Vec::new());
        for action in 0..13 {
            let key = world.key(3);
            let round = world.header().rounds[usize::from(open % 4)];
            let step = world.header().pending.step;
            let mut s = world.state();
            let _ = match action {
                0 => tick(&mut s, &env, &mut log).map(|_| ()),
                1 => ready(&mut s, 3, &key),
                2 => commit(&mut s, 3, &key, round.number, &[1; 32]),
                3 => witness(&mut s, 3, &key, round.number, &round.committed),
                4 => attest_checkpoint(&mut s, 3, &key, step, &[[1; 32]; 3], &mut log),
                5 => record_checkpoint(&mut s, 3, &key, b"x", &mut log),
                6 => join(&mut s, &env, &request(9, 0, 1), &mut log).map(|_| ()),
                7 => settle(&mut s, 3, &key).map(|_| ()),
                8 => set_paused(&mut s, &env, true, &mut log),
                9 => leave(&mut s, 3, &key, &mut log),
                10 => configure(&mut s, &env, &config(), &mut log),
                11 => check_closable(&s),
                _ => tick(&mut s, &env, &mut log).map(|_| ()),
            };
        }
    }
}
