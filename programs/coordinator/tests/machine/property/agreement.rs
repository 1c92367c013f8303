//! The checkpoint: who agreed on what, and what going back restores.

use super::model::{Model, Position};
use coordinator::machine::*;
use coordinator::state::*;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

impl Model {
    pub fn attest(&mut self, slot: usize, digest: u8) {
        let held = 1 + usize::from(
            self.world
                .header()
                .config
                .max_tier
                .saturating_sub(self.world.slot(slot).tier),
        );
        let digests: Vec<_> = (1..=held as u8).map(|part| [digest * part; 32]).collect();
        if self.world.attest(slot, &digests).is_ok() {
            self.digests.insert(slot, digests);
            self.count_digests();
        }
    }

    /// A presence ended, and its vote with it.
    pub fn gone(&mut self, slot: usize) {
        self.digests.remove(&slot);
        if self.world.phase() == phase::COOLDOWN {
            self.count_digests();
        }
    }

    /// More than half of the active members that hold a part agree on it, for every part.
    fn count_digests(&mut self) {
        let header = self.world.header();
        let pending = self.pending.expect("in Cooldown");
        if pending.weights_hash.is_none() {
            let parts: Option<Vec<_>> = (0..=header.config.max_tier)
                .map(|part| self.majority(header.config.max_tier - part, usize::from(part)))
                .collect();
            let hash = parts.map(|digests| {
                digests[1..].iter().fold(digests[0], |hash, digest| {
                    Sha256::new()
                        .chain_update(hash)
                        .chain_update(digest)
                        .finalize()
                        .into()
                })
            });
            self.pending = Some(Position {
                weights_hash: hash,
                ..pending
            });
        }
        let agreed = self.pending.and_then(|p| p.weights_hash);
        assert_eq!(header.pending.agreed != 0, agreed.is_some(), "agreement");
        assert_eq!(header.pending.weights_hash, agreed.unwrap_or([0; 32]));
    }

    /// The digest of a part that the members of tiers up to `lowest` hold.
    fn majority(&mut self, lowest: u8, part: usize) -> Option<[u8; 32]> {
        let slots = self.world.state().slots.to_vec();
        let mut holders = 0;
        let mut votes = BTreeMap::<[u8; 32], usize>::new();
        for (index, slot) in slots.iter().enumerate() {
            if slot.status != slot_status::ACTIVE || slot.tier > lowest {
                continue;
            }
            let vote = self.digests.get(&index).map(|digests| digests[part]);
            holders += usize::from(vote.is_some() || slot.flags & slot_flag::READY != 0);
            if let Some(vote) = vote {
                *votes.entry(vote).or_default() += 1;
            }
        }
        votes
            .into_iter()
            .find(|(_, votes)| 2 * votes > holders)
            .map(|(digest, _)| digest)
    }

    pub fn recorded(&mut self) {
        self.checkpoint = self.pending.expect("in Cooldown");
        assert!(self.checkpoint.weights_hash.is_some(), "never agreed on");
        self.accepted.values_mut().for_each(|since| *since = false);
    }

    pub fn rewound(&mut self, event: &Event) {
        let Event::Rewound {
            from_step,
            to_step,
            data_index,
            history,
            ..
        } = *event
        else {
            unreachable!()
        };
        assert_eq!(from_step, self.head.step);
        let to = self.checkpoint;
        assert_eq!(
            (to_step, data_index, history),
            (to.step, to.data_index, to.history),
            "exactly the checkpoint's position"
        );
        self.has_rewound = true;
        self.head.step = to.step;
        self.head.data_index = to.data_index;
        self.head.history = to.history;
        let undone: Vec<u64> = self
            .accepted
            .iter()
            .filter(|(_, since)| **since)
            .map(|(s, _)| *s)
            .collect();
        for sample in undone {
            self.accepted.remove(&sample);
            if sample < data_index {
                self.lost.insert(sample);
                self.marks.insert("below the checkpoint taken up and lost");
            }
        }
        self.lost.retain(|sample| *sample < data_index);
        self.returned.retain(|(start, _)| *start < data_index);
        for (_, end) in &mut self.returned {
            *end = data_index.min(*end);
        }
        assert!(self.accepted.keys().all(|sample| *sample < data_index));
    }

    pub fn check_checkpoint(&mut self) {
        let header = self.world.header();
        for (held, known) in [
            (header.checkpoint, Some(self.checkpoint)),
            (header.pending, self.pending),
        ] {
            let Some(known) = known else { continue };
            let position = Position {
                step: held.step,
                round: held.round,
                data_index: held.data_index,
                history: held.history,
                epoch: held.epoch,
                weights_hash: (held.agreed != 0).then_some(held.weights_hash),
            };
            assert_eq!(position, known);
        }
    }
}
