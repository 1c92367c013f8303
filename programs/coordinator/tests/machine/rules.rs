//! Every rule of the configuration has its own error; nothing that an account may hold can panic.

use crate::support::*;
use coordinator::machine::*;
use coordinator::state::*;
use proptest::prelude::*;

#[test]
fn each_rule_has_its_error() {
    use MachineError as E;
    let long = 315_360_001;
    let rules: &[(Config, E)] = &[
        (
            Config {
                warmup_time: 0,
                ..config()
            },
            E::BadWarmupTime,
        ),
        (
            Config {
                warmup_time: long,
                ..config()
            },
            E::BadWarmupTime,
        ),
        (
            Config {
                cooldown_time: 0,
                ..config()
            },
            E::BadCooldownTime,
        ),
        (
            Config {
                cooldown_time: long,
                ..config()
            },
            E::BadCooldownTime,
        ),
        (
            Config {
                max_round_train_time: 0,
                ..config()
            },
            E::BadRoundTrainTime,
        ),
        (
            Config {
                max_round_train_time: long,
                ..config()
            },
            E::BadRoundTrainTime,
        ),
        (
            Config {
                round_witness_time: 0,
                ..config()
            },
            E::BadRoundWitnessTime,
        ),
        (
            Config {
                round_witness_time: long,
                ..config()
            },
            E::BadRoundWitnessTime,
        ),
        (
            Config {
                epoch_time: 0,
                ..config()
            },
            E::BadEpochTime,
        ),
        (
            Config {
                epoch_time: long,
                ..config()
            },
            E::BadEpochTime,
        ),
        (
            Config {
                waiting_for_members_extra_time: long,
                ..config()
            },
            E::BadExtraTime,
        ),
        (
            Config {
                total_steps: 0,
                ..config()
            },
            E::BadTotalSteps,
        ),
        (
            Config {
                global_batch_size_start: 0,
                ..config()
            },
            E::BadBatchStart,
        ),
        (
            Config {
                global_batch_size_start: (1 << 24) + 1,
                ..config()
            },
            E::BadBatchStart,
        ),
        (
            Config {
                global_batch_size_end: 11,
                ..config()
            },
            E::BadBatchEnd,
        ),
        (
            Config {
                global_batch_size_end: (1 << 24) + 1,
                ..config()
            },
            E::BadBatchEnd,
        ),
        (
            Config {
                max_seq_len: 0,
                ..config()
            },
            E::BadMaxSeqLen,
        ),
        (
            Config {
                pay_per_tier: [1, 1, 1_000_001, 1],
                ..config()
            },
            E::BadPayPerTier,
        ),
        (
            Config {
                init_min_clients: 0,
                ..config()
            },
            E::BadInitMinClients,
        ),
        (
            Config {
                init_min_clients: 5,
                ..config()
            },
            E::BadInitMinClients,
        ),
        (
            Config {
                min_clients: 0,
                ..config()
            },
            E::BadMinClients,
        ),
        (
            Config {
                min_clients: 2,
                ..config()
            },
            E::BadMinClients,
        ),
        (
            Config {
                min_full_members: 0,
                ..config()
            },
            E::BadMinFullMembers,
        ),
        (
            Config {
                min_full_members: 2,
                ..config()
            },
            E::BadMinFullMembers,
        ),
        (
            Config {
                witness_nodes: 33,
                ..config()
            },
            E::BadWitnessNodes,
        ),
        (
            Config {
                max_missed: 0,
                ..config()
            },
            E::BadMaxMissed,
        ),
        (
            Config {
                max_failed_warmups: 0,
                ..config()
            },
            E::BadMaxFailedWarmups,
        ),
        (
            Config {
                max_tier: 3,
                ..config()
            },
            E::BadMaxTier,
        ),
    ];
    for (rule, error) in rules {
        let mut world = World::bare(4);
        assert_eq!(world.configure(rule), Err(*error));
        assert_eq!(world.configure(&config()), Ok(()));
    }
}

#[test]
fn rules_and_rates_are_guarded() {
    let mut world = World::new(4, config());
    assert_eq!(world.configure(&config()), Err(MachineError::NotHalted));
    assert_eq!(world.seal(), Err(MachineError::NotHalted));
    assert_eq!(
        world.set_rate((1 << 62) + 1),
        Err(MachineError::RateTooHigh)
    );
    assert_eq!(world.set_rate(1 << 62), Ok(()));
    world.set_paused(true).unwrap();
    assert_eq!(world.configure(&config()), Ok(()));
}

#[test]
fn every_error_says_what_to_do() {
    for error in MachineError::ALL {
        assert!(error.message().len() > 20, "{}", error.name());
        assert_eq!(error.to_string(), error.message());
    }
    let numbers: Vec<u32> = MachineError::ALL.iter().map(|e| *e as u32).collect();
    assert_eq!(numbers, (0..numbers.len() as u32).collect::<Vec<_>>());
}

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
