//! What may happen to a run, and the rules that it may have.

use crate::support::*;
use coordinator::state::*;
use proptest::prelude::*;

/// Of the largest table; a run that is smaller takes slots modulo its own.
pub const CAPACITY: usize = 6;
pub const MEMBERS: u8 = 9;

#[derive(Clone, Debug)]
pub enum Op {
    Join {
        member: u8,
        tier: u8,
        weight: u16,
    },
    Leave {
        slot: usize,
    },
    Evict {
        slot: usize,
    },
    Ready {
        slot: usize,
    },
    Commit {
        slot: usize,
    },
    Witness {
        slot: usize,
        mask: u64,
    },
    /// All that the slot owes now.
    Duties {
        slot: usize,
    },
    /// All slots but the dead ones do what they owe, and as witnesses name these.
    Round {
        dead: u64,
        held: u64,
    },
    /// All attest the same weights, and nobody records them.
    Agree,
    /// Rounds in a row in which all commit, and the witnesses name these, one word a round.
    Quarrel {
        held: Vec<u64>,
    },
    /// Leaves and joins as it was, or of another tier.
    Return {
        slot: usize,
        shift: u8,
    },
    Attest {
        slot: usize,
        digest: u8,
    },
    Record {
        slot: usize,
    },
    Pause {
        on: bool,
    },
    Rate {
        rate: u64,
    },
    Settle {
        slot: usize,
    },
    Wait {
        seconds: i64,
    },
    /// Nobody does anything for some waits in a row: warmups fail, the run may rewind.
    Silence {
        waits: u8,
    },
    /// The clock says anything at all.
    Jump {
        now: i64,
    },
    /// New rules, where the run is halted.
    Configure {
        rules: Box<Config>,
    },
    /// Another specification, where the run is halted.
    Respecify,
}

pub fn op() -> impl Strategy<Value = Op> {
    let slot = 0..CAPACITY;
    let weight = prop_oneof![9 => 1u16..5, 1 => Just(u16::MAX)];
    prop_oneof![
        4 => (1..=MEMBERS, prop_oneof![3 => Just(0u8), 1 => 0u8..3], weight)
            .prop_map(|(member, tier, weight)| Op::Join { member, tier, weight }),
        1 => slot.clone().prop_map(|slot| Op::Leave { slot }),
        1 => slot.clone().prop_map(|slot| Op::Evict { slot }),
        2 => slot.clone().prop_map(|slot| Op::Ready { slot }),
        2 => slot.clone().prop_map(|slot| Op::Commit { slot }),
        2 => (slot.clone(), any::<u64>()).prop_map(|(slot, mask)| Op::Witness { slot, mask }),
        4 => slot.clone().prop_map(|slot| Op::Duties { slot }),
        16 => (
            prop_oneof![3 => Just(0u64), 2 => any::<u64>().prop_map(|x| x & (x >> 6))],
            prop_oneof![3 => Just(u64::MAX), 1 => any::<u64>()],
        )
            .prop_map(|(dead, held)| Op::Round { dead, held }),
        2 => prop::collection::vec(any::<u64>(), 3..12).prop_map(|held| Op::Quarrel { held }),
        2 => (slot.clone(), prop_oneof![2 => Just(0u8), 1 => 1u8..3])
            .prop_map(|(slot, shift)| Op::Return { slot, shift }),
        1 => Just(Op::Agree),
        2 => (slot.clone(), 0u8..2).prop_map(|(slot, digest)| Op::Attest { slot, digest }),
        1 => slot.clone().prop_map(|slot| Op::Record { slot }),
        1 => any::<bool>().prop_map(|on| Op::Pause { on }),
        1 => rate().prop_map(|rate| Op::Rate { rate }),
        2 => slot.prop_map(|slot| Op::Settle { slot }),
        6 => (1i64..30).prop_map(|seconds| Op::Wait { seconds }),
        1 => (2u8..12).prop_map(|waits| Op::Silence { waits }),
        1 => rules().prop_map(|rules| Op::Configure { rules: Box::new(rules) }),
        1 => Just(Op::Respecify),
    ]
}

/// Like [`op`], with a clock that jumps.
pub fn wild_op() -> impl Strategy<Value = Op> {
    let now = prop_oneof![
        Just(i64::MIN),
        Just(i64::MIN + 1),
        Just(-1),
        Just(0),
        Just(i64::MAX - 1),
        Just(i64::MAX),
        any::<i64>(),
        0i64..3_000_000,
    ];
    prop_oneof![12 => op(), 1 => now.prop_map(|now| Op::Jump { now })]
}

fn rate() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => 0u64..1000,
        1 => Just((1 << 62) - 1),
        1 => Just(1 << 62),
        1 => Just((1 << 62) + 1),
    ]
}

/// A small table returns samples to few places, and loses some.
pub fn capacity() -> impl Strategy<Value = usize> {
    prop_oneof![2 => Just(CAPACITY), 1 => Just(2), 1 => 3..CAPACITY]
}

pub fn rules() -> impl Strategy<Value = Config> {
    let members = (1u16..3, 0u16..3, 0u16..4, 1u16..3, 1u16..4);
    let data = (1u32..9, 0u32..9, 0u64..1800);
    let pay = [1u32..6, 0..6, 0..6].prop_map(|[a, b, c]| [a, b, c, 0]);
    let pay = prop_oneof![6 => pay, 1 => Just([1_000_000, 999_983, 1, 0])];
    let ends = (20u64..300, 5u64..60, 0u64..6, 0u8..3);
    (members, data, pay, ends).prop_map(|(members, data, pay_per_tier, ends)| {
        let (min_clients, more, witness_nodes, max_missed, max_failed_warmups) = members;
        let (start, growth, warmup_tokens) = data;
        let (epoch_time, total_steps, extra, top) = ends;
        Config {
            init_min_clients: min_clients + more,
            min_clients,
            witness_nodes,
            max_missed,
            max_failed_warmups,
            epoch_time,
            waiting_for_members_extra_time: extra,
            global_batch_size_start: start,
            global_batch_size_end: start + growth,
            global_batch_size_warmup_tokens: warmup_tokens,
            total_steps,
            pay_per_tier,
            max_tier: top.max(1),
            ..config()
        }
    })
}
