//! Every rule of the configuration has its own error.

use crate::support::*;
use coordinator::machine::*;
use coordinator::state::*;

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

/// At the bounds themselves everything is accepted, and a run with such rules trains.
#[test]
fn rules_at_their_bounds_are_accepted() {
    let years = 315_360_000;
    let most = Config {
        warmup_time: years,
        cooldown_time: years,
        max_round_train_time: years,
        round_witness_time: years,
        epoch_time: years,
        waiting_for_members_extra_time: years,
        global_batch_size_warmup_tokens: u64::MAX,
        total_steps: u64::MAX,
        global_batch_size_start: 1 << 24,
        global_batch_size_end: 1 << 24,
        max_seq_len: u32::MAX,
        pay_per_tier: [1_000_000; 4],
        init_min_clients: 4,
        min_clients: 4,
        min_full_members: 4,
        witness_nodes: 32,
        max_missed: u16::MAX,
        max_failed_warmups: u16::MAX,
        max_tier: 2,
        _pad: [0; 7],
    };
    let least = Config {
        warmup_time: 1,
        cooldown_time: 1,
        max_round_train_time: 1,
        round_witness_time: 1,
        epoch_time: 1,
        waiting_for_members_extra_time: 0,
        global_batch_size_warmup_tokens: 0,
        total_steps: 1,
        global_batch_size_start: 1,
        global_batch_size_end: 1,
        max_seq_len: 1,
        pay_per_tier: [0; 4],
        init_min_clients: 1,
        min_clients: 1,
        min_full_members: 1,
        witness_nodes: 0,
        max_missed: 1,
        max_failed_warmups: 1,
        max_tier: 0,
        _pad: [0; 7],
    };
    for rules in [most, least] {
        let mut world = World::new(4, rules);
        for member in 1..=4 {
            world.join_as(&request(member, 0, u16::MAX)).unwrap();
        }
        world.now += years as i64;
        assert_eq!(world.tick(), 1);
        for slot in 0..4 {
            world.ready_slot(slot).unwrap();
        }
        assert_eq!(world.tick(), 1);
        world.do_round(&[0, 1, 2, 3]);
        world.do_round(&[0, 1, 2, 3]);
        assert_eq!(world.accepted(1).len(), 4);
    }
    // what is reserved stays zero
    let mut world = World::bare(4);
    let dirty = Config {
        _pad: [9; 7],
        ..most
    };
    world.configure(&dirty).unwrap();
    assert_eq!(world.header().config, most);
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
