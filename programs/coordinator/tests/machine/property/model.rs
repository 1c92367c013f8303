//! The run, and what a bystander knows of it.

use super::ops::Op;
use crate::support::*;
use coordinator::machine::*;
use coordinator::state::*;
use std::collections::{BTreeMap, BTreeSet};

/// A member as it was when a round began to name it.
#[derive(Clone)]
pub struct Named {
    pub slot: usize,
    pub wallet: [u8; 32],
    pub tier: u8,
    pub weight: u16,
    pub samples: Vec<u64>,
}

/// What is remembered of a round.
pub struct Known {
    pub round: Round,
    pub shares: Vec<Named>,
    pub witnesses: Vec<(usize, [u8; 32])>,
    pub is_closed: bool,
}

/// A place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub step: u64,
    pub round: u64,
    pub data_index: u64,
    pub history: [u8; 32],
    pub epoch: u64,
    pub weights_hash: Option<[u8; 32]>,
}

pub struct Model {
    pub world: World,
    pub capacity: usize,
    seen: usize,
    /// The log's head, as the events tell it.
    pub head: Position,
    pub checkpoint: Position,
    pub pending: Option<Position>,
    pub spec: u8,
    pub seed: [u8; 32],
    /// The history before the round that was closed last in this epoch, while no round was opened since.
    pub before_close: Option<[u8; 32]>,
    pub phase: u8,
    pub failed_warmups: u16,
    pub has_rewound: bool,
    pub rounds: BTreeMap<u64, Known>,
    pub commitments: BTreeMap<(u64, usize), [u8; 32]>,
    pub votes: BTreeMap<(u64, usize), Bits>,
    /// Votes on the pending checkpoint by slot.
    pub digests: BTreeMap<usize, Vec<[u8; 32]>>,
    /// Sample to whether it was accepted after the checkpoint.
    pub accepted: BTreeMap<u64, bool>,
    pub lost: BTreeSet<u64>,
    /// What was given back, oldest first: start and end.
    pub returned: Vec<(u64, u64)>,
    pub rates: (u64, u64),
    /// Points per wallet that were settled, and that were earned.
    pub settled: BTreeMap<[u8; 32], u64>,
    pub earned: BTreeMap<[u8; 32], u64>,
    /// Sum of the rates of the rounds that paid.
    pub offered: u128,
    /// The latest time there was.
    pub latest: i64,
    pub marks: BTreeSet<&'static str>,
}

/// The rules for a table of this size.
fn fit(rules: Config, capacity: usize) -> Config {
    Config {
        init_min_clients: rules.init_min_clients.min(capacity as u16),
        ..rules
    }
}

impl Model {
    pub fn new(capacity: usize, config: Config) -> Self {
        let world = World::new(capacity, fit(config, capacity));
        let start = Position {
            step: 0,
            round: 1,
            data_index: 0,
            history: [0; 32],
            epoch: 0,
            weights_hash: None,
        };
        Self {
            latest: world.now,
            seen: world.log.0.len(),
            world,
            capacity,
            head: start,
            checkpoint: start,
            pending: None,
            spec: 5,
            seed: [0; 32],
            before_close: None,
            phase: phase::WAITING_FOR_MEMBERS,
            failed_warmups: 0,
            has_rewound: false,
            rounds: BTreeMap::new(),
            commitments: BTreeMap::new(),
            votes: BTreeMap::new(),
            digests: BTreeMap::new(),
            accepted: BTreeMap::new(),
            lost: BTreeSet::new(),
            returned: Vec::new(),
            rates: (0, 0),
            settled: BTreeMap::new(),
            earned: BTreeMap::new(),
            offered: 0,
            marks: BTreeSet::new(),
        }
    }

    pub fn run(&mut self, op: &Op) {
        self.act(op);
        self.latest = self.latest.max(self.world.now);
        self.follow();
        for _ in 0..16 {
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

    fn act(&mut self, op: &Op) {
        let capacity = self.capacity;
        let place = |slot: usize| slot % capacity;
        match *op {
            Op::Join {
                member,
                tier,
                weight,
            } => {
                let _ = self.world.join_as(&request(member, tier, weight));
            }
            Op::Leave { slot } => {
                let slot = place(slot);
                if self.world.leave(slot).is_ok() {
                    self.gone(slot);
                }
            }
            Op::Evict { slot } => {
                let slot = place(slot);
                let member = self.world.slot(slot).wallet[0];
                if self.world.evict(slot, member).is_ok() {
                    self.gone(slot);
                }
            }
            Op::Ready { slot } => {
                let _ = self.world.ready_slot(place(slot));
            }
            Op::Commit { slot } => self.commit(place(slot)),
            Op::Witness { slot, mask } => {
                let held = self.world.before().committed.map(|word| word & mask);
                self.witness(place(slot), &held);
            }
            Op::Duties { slot } => self.duties(place(slot)),
            Op::Round { dead, held } => {
                for slot in (0..self.capacity).filter(|slot| dead >> slot & 1 == 0) {
                    self.duties_with(slot, held);
                }
            }
            Op::Agree => {
                for slot in 0..self.capacity {
                    self.attest(slot, 1);
                }
                self.run(&Op::Wait { seconds: 41 });
            }
            Op::Quarrel { ref held } => {
                for held in held {
                    self.run(&Op::Round {
                        dead: 0,
                        held: *held,
                    });
                }
            }
            Op::Return { slot, shift } => {
                let place = self.world.slot(place(slot));
                self.run(&Op::Leave { slot });
                let _ = self.world.join_as(&JoinRequest {
                    wallet: place.wallet,
                    hot_key: place.hot_key,
                    p2p_key: place.p2p_key,
                    tier: (place.next_tier + shift) % 3,
                    weight: place.next_weight,
                });
            }
            Op::Attest { slot, digest } => self.attest(place(slot), digest),
            Op::Record { slot } => {
                let _ = self.world.record(place(slot), b"hf://somewhere");
            }
            Op::Pause { on } => {
                let _ = self.world.set_paused(on);
            }
            Op::Rate { rate } => {
                if self.world.set_rate(rate).is_ok() {
                    self.rates.1 = rate;
                }
            }
            Op::Settle { slot } => self.settle(place(slot)),
            Op::Wait { seconds } => self.world.now = self.world.now.saturating_add(seconds),
            Op::Silence { waits } => {
                for _ in 1..waits {
                    self.run(&Op::Wait { seconds: 41 });
                }
            }
            Op::Jump { now } => self.world.now = now,
            Op::Configure { ref rules } => {
                let _ = self.world.configure(&fit(**rules, self.capacity));
            }
            Op::Respecify => {
                if self.world.unseal().is_ok() {
                    self.spec ^= 1;
                    self.world.seal_as(&[self.spec; 32]).unwrap();
                }
            }
        }
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

    pub fn settle(&mut self, slot: usize) {
        let wallet = self.world.slot(slot).wallet;
        let done = self.world.settle(slot, wallet[0]).unwrap();
        *self.settled.entry(wallet).or_default() += done.moved;
        if done.freed {
            self.marks.insert("slot freed");
        }
    }

    pub fn duties(&mut self, slot: usize) {
        self.duties_with(slot, u64::MAX);
    }

    fn duties_with(&mut self, slot: usize, held: u64) {
        let _ = self.world.ready_slot(slot);
        let committed = self.world.before().committed;
        self.witness(slot, &committed.map(|word| word & held));
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
                Event::EpochStarted {
                    epoch, round_rate, ..
                } => {
                    self.head.epoch += 1;
                    self.before_close = None;
                    self.rates.0 = self.rates.1;
                    assert_eq!((epoch, round_rate), (self.head.epoch, self.rates.0));
                }
                Event::RoundOpened {
                    round,
                    trained,
                    witnesses,
                    ..
                } => self.opened(round, trained, &witnesses),
                Event::RoundClosed { .. } => self.closed(&event),
                Event::CheckpointRecorded { .. } => self.recorded(),
                Event::Rewound { .. } => self.rewound(&event),
                Event::PhaseChanged { from, to, .. } => self.entered(from, to),
                _ => {}
            }
        }
    }

    /// Only the transitions of the design's table.
    fn entered(&mut self, from: u8, to: u8) {
        assert_eq!(from, self.phase, "phases follow each other");
        assert!(
            matches!(
                (from, to),
                (0, 7)
                    | (7, 0 | 1 | 6)
                    | (6, 0 | 7)
                    | (1, 2 | 7)
                    | (2, 1 | 3 | 7)
                    | (3, 4)
                    | (4, 3 | 5)
                    | (5, 1 | 6 | 7)
            ),
            "{from} to {to}"
        );
        self.phase = to;
        match (from, to) {
            (phase::WARMUP, phase::ROUND_TRAIN) => self.failed_warmups = 0,
            (phase::WARMUP, phase::WAITING_FOR_MEMBERS) => self.warmup_failed(),
            (_, phase::COOLDOWN) => {
                self.digests.clear();
                self.pending = Some(self.head);
            }
            (phase::COOLDOWN, _) => self.pending = None,
            _ => {}
        }
        if !matches!(to, phase::ROUND_TRAIN | phase::ROUND_WITNESS) {
            let open: Vec<_> = self.rounds.values().filter(|r| !r.is_closed).collect();
            assert!(open.is_empty(), "a round was left behind");
        }
    }

    fn warmup_failed(&mut self) {
        self.failed_warmups += 1;
        let is_last = self.failed_warmups >= self.world.header().config.max_failed_warmups;
        if is_last {
            self.failed_warmups = 0;
        }
        assert!(is_last || !self.has_rewound, "rewound too early");
        self.has_rewound = false;
        if is_last {
            assert_eq!(self.head.history, self.checkpoint.history);
        }
    }

    /// What this schedule went through beside its events.
    pub fn marks(&self) -> BTreeSet<&'static str> {
        self.marks.clone()
    }
}
