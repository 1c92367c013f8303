//! One member is alive and time passes: the log goes on.

use super::model::Model;
use super::ops::{Op, MEMBERS};
use crate::support::*;
use coordinator::machine::*;
use coordinator::state::*;

/// Seconds from one look at the run to the next.
const STEP: i64 = 7;
/// Looks until the next round is trained: the waits of an epoch that dies, and of two that are missed.
const PATIENCE: u32 = 75;

impl Model {
    /// Whether the clock has room for some waits.
    pub fn time_can_pass(&self) -> bool {
        self.latest < i64::MAX - 1_000_000
    }

    fn trained(&self) -> usize {
        let me = wallet(MEMBERS);
        let mine = |named: &super::model::Named| named.wallet == me;
        self.rounds
            .values()
            .filter(|known| known.shares.iter().any(mine))
            .count()
    }

    /// From here on only one member does anything. Soon it trains a round, and another one, and what
    /// it did is accepted.
    pub fn train_alone(&mut self) {
        self.world.now = self.latest;
        let rules = Config {
            init_min_clients: 1,
            min_clients: 1,
            total_steps: self.world.header().step + 10,
            ..self.world.header().config
        };
        if self.world.configure(&rules).is_err() {
            self.world.state().header.config = rules; // one member is enough from here on
        }
        let mut patience = PATIENCE;
        let mut trained = self.trained();
        let first = trained;
        while trained < first + 6 && self.world.phase() != phase::FINISHED {
            let now = self.trained();
            if now > trained {
                (trained, patience) = (now, PATIENCE);
            }
            patience = patience.checked_sub(1).expect("stuck");
            self.look();
            self.run(&Op::Wait { seconds: STEP });
        }
        if trained >= first + 4 {
            let me = wallet(MEMBERS);
            let done = |known: &super::model::Known| {
                let mut shares = known.shares.iter();
                let mine = shares.find(|share| share.wallet == me);
                mine.is_some_and(|share| {
                    known.is_closed && (share.samples.iter()).all(|s| self.accepted.contains_key(s))
                })
            };
            assert!(self.rounds.values().any(done), "nothing was accepted");
        }
    }

    /// What a live member, and the authority of its run, do at a look.
    fn look(&mut self) {
        if self.world.phase() == phase::PAUSED {
            self.world.set_paused(false).unwrap();
        }
        let me = wallet(MEMBERS);
        let mine = |place: &Slot| place.is_present() && place.wallet == me;
        let slots = self.world.state().slots.to_vec();
        match slots.iter().position(mine) {
            Some(slot) if slots[slot].next_tier > 0 => {
                self.run(&Op::Leave { slot }); // an epoch needs a member of tier 0
            }
            Some(slot) => self.duties(slot),
            None => {
                for slot in 0..self.capacity {
                    self.settle(slot); // departed members leave room
                }
                let joined = self.world.join_as(&request(MEMBERS, 0, 1));
                let full = |place: &Slot| place.is_present() && place.next_tier == 0;
                if joined == Err(MachineError::TableFull) && !slots.iter().any(full) {
                    self.run(&Op::Evict { slot: 0 }); // nobody in this table can start an epoch
                }
            }
        }
    }
}
