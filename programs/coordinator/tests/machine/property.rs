//! Random schedules against a plain model: every sample in one place, every vote counted by hand,
//! every history hashed again, every point paid once, and never stuck.

use crate::support::*;
use coordinator::machine::*;
use coordinator::state::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const CAPACITY: usize = 6;
const MEMBERS: u8 = 8;

#[derive(Clone, Debug)]
enum Op {
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
    /// All slots but some do what they owe.
    Round {
        dead: u64,
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
}

fn op() -> impl Strategy<Value = Op> {
    let slot = 0..CAPACITY;
    prop_oneof![
        4 => (1..=MEMBERS, prop_oneof![3 => Just(0u8), 1 => 0u8..3], 1u16..5)
            .prop_map(|(member, tier, weight)| Op::Join { member, tier, weight }),
        1 => slot.clone().prop_map(|slot| Op::Leave { slot }),
        1 => slot.clone().prop_map(|slot| Op::Evict { slot }),
        2 => slot.clone().prop_map(|slot| Op::Ready { slot }),
        2 => slot.clone().prop_map(|slot| Op::Commit { slot }),
        2 => (slot.clone(), any::<u64>()).prop_map(|(slot, mask)| Op::Witness { slot, mask }),
        4 => slot.clone().prop_map(|slot| Op::Duties { slot }),
        14 => prop_oneof![3 => Just(0u64), 2 => any::<u64>().prop_map(|x| x & (x >> 6))]
            .prop_map(|dead| Op::Round { dead }),
        2 => (slot.clone(), 0u8..2).prop_map(|(slot, digest)| Op::Attest { slot, digest }),
        1 => slot.clone().prop_map(|slot| Op::Record { slot }),
        1 => any::<bool>().prop_map(|on| Op::Pause { on }),
        1 => (0u64..1000).prop_map(|rate| Op::Rate { rate }),
        2 => slot.prop_map(|slot| Op::Settle { slot }),
        6 => (1i64..30).prop_map(|seconds| Op::Wait { seconds }),
        1 => (2u8..12).prop_map(|waits| Op::Silence { waits }),
    ]
}

fn rules() -> impl Strategy<Value = Config> {
    (
        1u16..3,
        1u16..4,
        0u16..4,
        1u16..3,
        1u16..3,
        20u64..300,
        1u32..9,
        0u32..9,
    )
        .prop_map(
            |(
                min,
                init,
                witness_nodes,
                max_missed,
                max_failed_warmups,
                epoch_time,
                start,
                more,
            )| Config {
                init_min_clients: init.max(min),
                min_clients: min,
                witness_nodes,
                max_missed,
                max_failed_warmups,
                epoch_time,
                global_batch_size_start: start,
                global_batch_size_end: start + more,
                global_batch_size_warmup_tokens: 900,
                total_steps: 60,
                pay_per_tier: [5, 3, 1, 1],
                ..config()
            },
        )
}

/// What the model remembers of a round that is not closed.
struct Trained {
    round: Round,
    /// Slot, tier, weight, and the samples that it was given.
    shares: Vec<(usize, u8, u16, Vec<u64>)>,
}

struct Model {
    world: World,
    seen: usize,
    history: [u8; 32],
    open: BTreeMap<u64, Trained>,
    commitments: BTreeMap<(u64, usize), [u8; 32]>,
    votes: BTreeMap<(u64, usize), Bits>,
    /// Sample to whether it was accepted after the checkpoint.
    accepted: BTreeMap<u64, bool>,
    lost: BTreeMap<u64, bool>,
    /// Points per wallet that were settled, and that were earned.
    settled: BTreeMap<[u8; 32], u64>,
    earned: BTreeMap<[u8; 32], u64>,
    offered: u64,
}

impl Model {
    fn new(config: Config) -> Self {
        Self {
            world: World::new(CAPACITY, config),
            seen: 0,
            history: [0; 32],
            open: BTreeMap::new(),
            commitments: BTreeMap::new(),
            votes: BTreeMap::new(),
            accepted: BTreeMap::new(),
            lost: BTreeMap::new(),
            settled: BTreeMap::new(),
            earned: BTreeMap::new(),
            offered: 0,
        }
    }

    fn run(&mut self, op: &Op) {
        match *op {
            Op::Join {
                member,
                tier,
                weight,
            } => {
                let _ = self.world.join_as(&request(member, tier, weight));
            }
            Op::Leave { slot } => {
                let _ = self.world.leave(slot);
            }
            Op::Evict { slot } => {
                let member = self.world.slot(slot).wallet[0];
                let _ = self.world.evict(slot, member);
            }
            Op::Ready { slot } => {
                let _ = self.world.ready_slot(slot);
            }
            Op::Commit { slot } => self.commit(slot),
            Op::Witness { slot, mask } => {
                let held = self.world.before().committed.map(|word| word & mask);
                self.witness(slot, &held);
            }
            Op::Duties { slot } => self.duties(slot),
            Op::Round { dead } => {
                for slot in (0..CAPACITY).filter(|slot| dead >> slot & 1 == 0) {
                    self.duties(slot);
                }
            }
            Op::Attest { slot, digest } => self.attest(slot, digest),
            Op::Record { slot } => {
                let _ = self.world.record(slot, b"hf://somewhere");
            }
            Op::Pause { on } => {
                let _ = self.world.set_paused(on);
            }
            Op::Rate { rate } => self.world.set_rate(rate).unwrap(),
            Op::Settle { slot } => self.settle(slot),
            Op::Wait { seconds } => self.world.now += seconds,
            Op::Silence { waits } => {
                for _ in 1..waits {
                    self.run(&Op::Wait { seconds: 41 });
                }
            }
        }
        self.follow();
        for _ in 0..8 {
            // one transition may make the next one due, and a tick makes four
            let made = self.world.tick();
            assert!(made <= MAX_TRANSITIONS);
            self.follow();
            if made == 0 {
                break;
            }
        }
        assert_eq!(self.world.tick(), 0, "ticks do not come to rest");
        self.check();
    }

    fn commit(&mut self, slot: usize) {
        let round = self.world.round().number;
        if self.world.commit(slot).is_ok() {
            let member = self.world.slot(slot).wallet[1];
            self.commitments.insert((round, slot), blob(member, round));
        }
    }

    fn witness(&mut self, slot: usize, held: &Bits) {
        let round = self.world.before().number;
        if self.world.witness_round(slot, round, held).is_ok() {
            self.votes.insert((round, slot), *held);
        }
    }

    fn attest(&mut self, slot: usize, digest: u8) {
        let parts = 3 - usize::from(self.world.slot(slot).tier.min(2));
        let _ = self.world.attest(slot, &[[digest; 32]; 3][..parts]);
    }

    fn settle(&mut self, slot: usize) {
        let wallet = self.world.slot(slot).wallet;
        let done = self.world.settle(slot, wallet[0]).unwrap();
        *self.settled.entry(wallet).or_default() += done.moved;
    }

    fn duties(&mut self, slot: usize) {
        let _ = self.world.ready_slot(slot);
        let committed = self.world.before().committed;
        self.witness(slot, &committed);
        self.commit(slot);
        if self.world.phase() == phase::COOLDOWN {
            self.attest(slot, 1);
            let _ = self.world.record(slot, b"hf://somewhere");
        }
    }

    /// Follow the events since the last look.
    fn follow(&mut self) {
        while let Some(event) = self.world.log.0.get(self.seen).copied() {
            self.seen += 1;
            match event {
                Event::RoundOpened {
                    round,
                    trained: true,
                    ..
                } => self.opened(round),
                Event::RoundClosed {
                    round,
                    trained,
                    accepted,
                    paid,
                    lost,
                    history,
                    ..
                } => {
                    self.closed(round, trained, &accepted, paid, lost, history);
                }
                Event::CheckpointRecorded { .. } => {
                    self.accepted.values_mut().for_each(|since| *since = false);
                    self.lost.values_mut().for_each(|since| *since = false);
                }
                Event::Rewound {
                    data_index,
                    history,
                    ..
                } => self.rewound(data_index, history),
                _ => {}
            }
        }
    }

    fn opened(&mut self, number: u64) {
        let header = self.world.header();
        let round = header.rounds[usize::try_from(number % 4).unwrap()];
        assert_eq!(round.number, number);
        let mut samples = Vec::new();
        for fill in &round.fills[..usize::from(round.num_fills)] {
            samples.extend(fill.first()..fill.end());
        }
        let mut next = round.data_index;
        while samples.len() < round.samples as usize {
            samples.push(next);
            next += 1;
        }
        let members: Vec<usize> = bits::iter(&round.assigned).collect();
        assert!(!members.is_empty(), "a round with nobody to train");
        let weights: Vec<u64> = members
            .iter()
            .map(|slot| u64::from(self.world.slot(*slot).weight))
            .collect();
        let (total, n) = (weights.iter().sum::<u64>(), members.len() as u64);
        let spare = u64::from(round.samples) - n;
        let end = |k: usize| k as u64 + spare * weights[..k].iter().sum::<u64>() / total;
        let shares: Vec<_> = members
            .iter()
            .enumerate()
            .map(|(k, slot)| {
                let place = self.world.slot(*slot);
                let range = end(k) as usize..end(k + 1) as usize;
                assert!(!range.is_empty());
                (*slot, place.tier, place.weight, samples[range].to_vec())
            })
            .collect();
        assert_eq!(end(n as usize), u64::from(round.samples));
        self.open.insert(number, Trained { round, shares });
    }

    fn closed(
        &mut self,
        number: u64,
        trained: bool,
        accepted: &Bits,
        paid: u64,
        lost: u64,
        history: [u8; 32],
    ) {
        let header = self.world.header();
        let round = header.rounds[usize::try_from(number % 4).unwrap()];
        assert_eq!((round.number, round.accepted), (number, *accepted));
        let known = self.open.remove(&number);
        assert_eq!(known.is_some(), trained);
        let shares = known.map_or(Vec::new(), |k| {
            assert_eq!(k.round.assigned, round.assigned);
            k.shares
        });
        assert_eq!(
            *accepted,
            self.count_votes(&round),
            "votes of round {number}"
        );
        let mut record = self.history.to_vec();
        record.extend(round.epoch.to_le_bytes());
        record.extend(round.number.to_le_bytes());
        record.extend(round.step.to_le_bytes());
        record.push(u8::from(trained));
        record.extend(round.seed);
        record.extend(round.data_index.to_le_bytes());
        record.extend(round.samples.to_le_bytes());
        record.extend(round.assigned.iter().flat_map(|word| word.to_le_bytes()));
        record.extend(header.spec_hash);
        record.extend((bits::count(accepted) as u16).to_le_bytes());
        let mut unaccepted = Vec::new();
        let pay = |tier: u8, weight: u16| {
            u128::from(weight) * u128::from(header.config.pay_per_tier[usize::from(tier)])
        };
        let yes = |slot: usize| bits::contains(accepted, slot);
        let sum: u128 = shares
            .iter()
            .filter(|s| yes(s.0))
            .map(|s| pay(s.1, s.2))
            .sum();
        let carry = self.offered - self.earned.values().sum::<u64>();
        let total = u128::from(header.round_rate) + u128::from(carry);
        let mut amounts = Vec::new();
        for (slot, tier, weight, samples) in shares {
            if !yes(slot) {
                unaccepted.extend(samples);
                continue;
            }
            record.extend((slot as u16).to_le_bytes());
            record.push(tier);
            record.extend(weight.to_le_bytes());
            record.extend(self.commitments[&(number, slot)]);
            for sample in samples {
                assert!(
                    self.accepted.insert(sample, true).is_none(),
                    "trained twice"
                );
            }
            amounts.push((slot, (total * pay(tier, weight) / sum) as u64));
        }
        assert_eq!(paid, amounts.iter().map(|(_, amount)| amount).sum::<u64>());
        for (slot, amount) in amounts {
            let wallet = self.world.slot(slot).wallet;
            *self.earned.entry(wallet).or_default() += amount;
        }
        self.offered += if sum > 0 { header.round_rate } else { 0 };
        self.history = solana_sha256_hasher::hash(&record).to_bytes();
        assert_eq!(history, self.history, "history of round {number}");
        // what was not accepted is in the table, in the round opened since, or lost
        if lost > 0 {
            let kept: BTreeSet<u64> = self.held().into_iter().collect();
            let gone: Vec<u64> = unaccepted
                .into_iter()
                .filter(|s| !kept.contains(s))
                .collect();
            assert_eq!(gone.len() as u64, lost);
            self.lost
                .extend(gone.into_iter().map(|sample| (sample, true)));
        }
    }

    fn rewound(&mut self, data_index: u64, history: [u8; 32]) {
        self.history = history;
        let undone: Vec<u64> = self
            .accepted
            .iter()
            .filter(|(_, since)| **since)
            .map(|(s, _)| *s)
            .collect();
        for sample in undone {
            self.accepted.remove(&sample);
            if sample < data_index {
                self.lost.insert(sample, false);
            }
        }
        self.lost.retain(|sample, _| *sample < data_index);
        assert!(self.accepted.keys().all(|sample| *sample < data_index));
    }

    /// The rule of the design, vote by vote.
    fn count_votes(&self, round: &Round) -> Bits {
        let attesters: Vec<usize> = bits::iter(&round.attested).collect();
        let mut accepted = bits::EMPTY;
        if attesters.is_empty() || 2 * attesters.len() < bits::count(&round.witnesses) as usize {
            return accepted;
        }
        for slot in bits::iter(&round.committed) {
            let others: Vec<&usize> = attesters.iter().filter(|w| **w != slot).collect();
            let names = |w: usize| bits::contains(&self.votes[&(round.number, w)], slot);
            let yes = if others.is_empty() {
                names(slot)
            } else {
                let votes = others.iter().filter(|w| names(***w)).count();
                votes >= 1 && 3 * votes >= 2 * others.len()
            };
            if yes {
                bits::insert(&mut accepted, slot);
            }
        }
        accepted
    }

    /// Samples in the table and in rounds that are not closed.
    fn held(&mut self) -> Vec<u64> {
        let mut held = Vec::new();
        for known in self.open.values() {
            held.extend(known.shares.iter().flat_map(|s| s.3.iter().copied()));
        }
        let s = self.world.state();
        for entry in &s.returned[..usize::from(s.header.returned_len)] {
            assert!(entry.len > 0);
            held.extend(entry.first()..entry.end());
        }
        held
    }

    fn check(&mut self) {
        let header = self.world.header();
        for round in &header.rounds {
            assert!(bits::is_empty(&bits::minus(
                &round.accepted,
                &round.committed
            )));
            assert!(bits::is_empty(&bits::minus(
                &round.committed,
                &round.assigned
            )));
            assert!(bits::is_empty(&bits::minus(
                &round.attested,
                &round.witnesses
            )));
        }
        assert_eq!(header.history, self.history);
        // every sample handed out is in exactly one place
        let mut places = self.held();
        places.extend(self.accepted.keys());
        places.extend(self.lost.keys());
        places.sort_unstable();
        assert!(
            places.iter().copied().eq(0..header.data_index),
            "samples: {places:?}"
        );
        assert_eq!(header.lost_samples, self.lost.len() as u64);
        // every point is paid once
        let mut points = self.settled.clone();
        for slot in 0..CAPACITY {
            let place = self.world.slot(slot);
            if !place.is_free() {
                *points.entry(place.wallet).or_default() += place.earned;
            }
        }
        points.retain(|_, amount| *amount > 0);
        let mut earned = self.earned.clone();
        earned.retain(|_, amount| *amount > 0);
        assert_eq!(points, earned);
        assert_eq!(header.total_earned, earned.values().sum::<u64>());
        assert_eq!(header.total_earned + header.pay_carry, self.offered);
    }

    /// One member is left, all others are dead: the run gets to its end.
    fn finish_alone(&mut self) {
        let me = MEMBERS;
        let _ = self.world.set_paused(false);
        for _ in 0..4000 {
            if self.world.phase() == phase::FINISHED {
                return;
            }
            if self.world.phase() == phase::PAUSED {
                self.world.set_paused(false).unwrap();
            }
            let slot = (0..CAPACITY).find(|s| {
                let place = self.world.slot(*s);
                place.is_present() && place.wallet == wallet(me)
            });
            match slot {
                Some(slot) if self.world.slot(slot).next_tier > 0 => {
                    self.world.leave(slot).unwrap(); // an epoch needs a member of tier 0
                }
                Some(slot) => self.duties(slot),
                None => {
                    for slot in 0..CAPACITY {
                        self.settle(slot); // a full table never blocks
                    }
                    let _ = self.world.join_as(&request(me, 0, 1));
                }
            }
            self.run(&Op::Wait { seconds: 7 });
        }
        panic!("stuck: {:?}", self.world.header());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_schedule_keeps_the_books_and_never_gets_stuck(
        config in rules(),
        ops in prop::collection::vec(op(), 1..250),
    ) {
        let mut model = Model::new(config);
        model.run(&Op::Rate { rate: 100 });
        for op in &ops {
            model.run(op);
        }
        // one member is enough from here on
        let lonely = Config { init_min_clients: 1, min_clients: 1, ..config };
        model.world.state().header.config = lonely;
        model.finish_alone();
        // and it was no accident: steps were taken and the last ones counted
        prop_assert!(model.world.header().step >= config.total_steps);
    }
}
