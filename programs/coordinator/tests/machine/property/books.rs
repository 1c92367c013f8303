//! Rounds as they open and close: samples, votes, history, pay.

use super::model::{Known, Model, Named};
use coordinator::machine::*;
use coordinator::state::*;
use sha2::{Digest, Sha256};

impl Model {
    pub fn opened(&mut self, number: u64, trained: bool, witnesses: &Bits) {
        let header = self.world.header();
        let round = header.rounds[usize::try_from(number % 4).unwrap()];
        assert_eq!((round.number, round.step), (number, self.head.step));
        assert_eq!(number, self.head.round, "round numbers never restart");
        assert_eq!(round.epoch, self.head.epoch);
        assert_eq!(round.data_index, self.head.data_index);
        self.check_draws(&round, trained, witnesses);
        self.head.round += 1;
        if let Some(before) = self.rounds.get_mut(&(number - 1)) {
            let drawn = bits::iter(witnesses);
            before.witnesses = drawn.map(|s| (s, self.world.slot(s).wallet)).collect();
        }
        let mut shares = Vec::new();
        if trained {
            self.head.step += 1;
            let samples = self.samples_of(&round);
            shares = self.shares_of(&round, &samples);
        } else {
            assert_eq!((round.samples, round.assigned), (0, bits::EMPTY));
        }
        let known = Known {
            round,
            shares,
            witnesses: Vec::new(),
            is_closed: false,
        };
        self.rounds.insert(number, known);
    }

    /// The seed follows from the one before, the log as it was before a round closed just now, and the newest slot's
    /// hash; as many witnesses as
    /// wanted are drawn of those who can work, if there is something to attest.
    fn check_draws(&mut self, round: &Round, trained: bool, witnesses: &Bits) {
        let history = self.before_close.take().unwrap_or(self.head.history);
        let seed = Sha256::new()
            .chain_update(self.seed)
            .chain_update(history)
            .chain_update(self.world.env().slot_hash);
        self.seed = seed.finalize().into();
        assert_eq!(round.seed, self.seed);
        let before = self.rounds.get(&(round.number - 1));
        let something = before.is_some_and(|known| {
            let mut shares = known.shares.iter();
            let number = known.round.number;
            !known.is_closed && shares.any(|s| self.commitments.contains_key(&(number, s.slot)))
        });
        let drawn = bits::count(witnesses);
        if !something {
            assert_eq!(drawn, 0, "nothing to attest");
        } else if trained {
            let want = match self.world.header().config.witness_nodes {
                0 => 32,
                n => u32::from(n),
            };
            assert!(bits::is_empty(&bits::minus(witnesses, &round.assigned)));
            assert_eq!(drawn, bits::count(&round.assigned).min(want));
        }
    }

    /// The batch ramps with the tokens handed out, and everybody has a sample.
    fn batch(&mut self, members: u32) -> u32 {
        let rules = self.world.header().config;
        let tokens = u128::from(self.head.data_index) * u128::from(rules.max_seq_len);
        let warmup = u128::from(rules.global_batch_size_warmup_tokens);
        let (start, end) = (rules.global_batch_size_start, rules.global_batch_size_end);
        let batch = if tokens >= warmup {
            end
        } else {
            start + u32::try_from(u128::from(end - start) * tokens / warmup).unwrap()
        };
        batch.max(members)
    }

    /// Eight returned intervals at most, oldest first, then new samples.
    fn samples_of(&mut self, round: &Round) -> Vec<u64> {
        assert_eq!(round.samples, self.batch(bits::count(&round.assigned)));
        let mut want = u64::from(round.samples);
        let mut fills = Vec::new();
        while want > 0 && fills.len() < 8 && !self.returned.is_empty() {
            let (start, end) = self.returned[0];
            let cut = end.min(start + want);
            fills.push((start, cut));
            want -= cut - start;
            if cut == end {
                self.returned.remove(0);
            } else {
                self.returned[0] = (cut, end);
            }
        }
        let given = &round.fills[..usize::from(round.num_fills)];
        let given: Vec<_> = given.iter().map(|f| (f.first(), f.end())).collect();
        assert_eq!(given, fills, "what was returned comes first");
        let new = (self.head.data_index, self.head.data_index + want);
        self.head.data_index = new.1;
        let pieces = fills.into_iter().chain([new]);
        pieces.flat_map(|(start, end)| start..end).collect()
    }

    fn shares_of(&mut self, round: &Round, samples: &[u64]) -> Vec<Named> {
        let members: Vec<usize> = bits::iter(&round.assigned).collect();
        assert!(!members.is_empty(), "a round with nobody to train");
        let places: Vec<Slot> = members.iter().map(|slot| self.world.slot(*slot)).collect();
        let total: u64 = places.iter().map(|p| u64::from(p.weight)).sum();
        let spare = u64::from(round.samples) - members.len() as u64;
        let end = |k: usize| {
            let before: u64 = places[..k].iter().map(|p| u64::from(p.weight)).sum();
            k + usize::try_from(spare * before / total).unwrap()
        };
        assert_eq!(end(members.len()), samples.len());
        let share = |(k, slot): (usize, &usize)| {
            assert!(end(k) < end(k + 1), "everybody has a sample");
            Named {
                slot: *slot,
                wallet: places[k].wallet,
                tier: places[k].tier,
                weight: places[k].weight,
                samples: samples[end(k)..end(k + 1)].to_vec(),
            }
        };
        members.iter().enumerate().map(share).collect()
    }

    pub fn closed(&mut self, event: &Event) {
        let Event::RoundClosed {
            round: number,
            trained,
            accepted,
            paid,
            returned,
            lost,
            history,
            ..
        } = *event
        else {
            unreachable!()
        };
        let header = self.world.header();
        let round = header.rounds[usize::try_from(number % 4).unwrap()];
        assert_eq!((round.number, round.accepted), (number, accepted));
        let known = self.rounds.get_mut(&number).expect("it was opened");
        assert!(!known.is_closed, "closed twice");
        known.is_closed = true;
        assert_eq!(known.round.is_trained(), trained);
        assert_eq!(known.round.assigned, round.assigned);
        let shares = known.shares.clone();
        let votes = self.count_votes(&round);
        assert_eq!(accepted, votes, "votes of round {number}");
        let (yes, no): (Vec<Named>, Vec<Named>) = shares
            .into_iter()
            .partition(|share| bits::contains(&accepted, share.slot));
        assert_eq!(
            yes.len(),
            bits::count(&accepted) as usize,
            "of the assigned"
        );
        self.before_close = Some(self.head.history);
        self.head.history = self.hash(&round, &yes);
        assert_eq!(history, self.head.history, "history of round {number}");
        for sample in yes.iter().flat_map(|share| &share.samples) {
            let before = self.accepted.insert(*sample, true);
            assert!(before.is_none(), "trained twice");
        }
        self.pay(&yes, paid);
        let before = self.lost.len();
        let samples: Vec<u64> = no.into_iter().flat_map(|share| share.samples).collect();
        self.give_back(&samples);
        let gone = (self.lost.len() - before) as u64;
        assert_eq!((returned, lost), (samples.len() as u64 - gone, gone));
    }

    /// To the table's end, neighbours merged; what finds no place there is lost.
    fn give_back(&mut self, samples: &[u64]) {
        let is_next = |a: &u64, b: &u64| a + 1 == *b;
        for piece in samples.chunk_by(is_next) {
            let (start, end) = (piece[0], piece[0] + piece.len() as u64);
            let room = self.returned.len() < self.capacity;
            match self.returned.last_mut() {
                Some(last) if last.1 == start => last.1 = end,
                _ if room => self.returned.push((start, end)),
                _ => self.lost.extend(piece),
            }
        }
    }

    /// The record of a round, hashed on the history before it.
    fn hash(&self, round: &Round, accepted: &[Named]) -> [u8; 32] {
        let mut record = self.head.history.to_vec();
        record.extend(round.epoch.to_le_bytes());
        record.extend(round.number.to_le_bytes());
        record.extend(round.step.to_le_bytes());
        record.push(u8::from(round.is_trained()));
        record.extend(round.seed);
        record.extend(round.data_index.to_le_bytes());
        record.extend(round.samples.to_le_bytes());
        record.extend(round.assigned.iter().flat_map(|word| word.to_le_bytes()));
        record.extend([self.spec; 32]);
        record.extend((accepted.len() as u16).to_le_bytes());
        for share in accepted {
            record.extend((share.slot as u16).to_le_bytes());
            record.push(share.tier);
            record.extend(share.weight.to_le_bytes());
            record.extend(self.commitments[&(round.number, share.slot)]);
        }
        Sha256::digest(&record).into()
    }

    /// The rate and the carry, by weight and tier, to the last unit.
    fn pay(&mut self, accepted: &[Named], paid: u64) {
        let tiers = self.world.header().config.pay_per_tier;
        let share =
            |named: &Named| u128::from(named.weight) * u128::from(tiers[usize::from(named.tier)]);
        let sum: u128 = accepted.iter().map(share).sum();
        let earned: u128 = self.earned.values().map(|e| u128::from(*e)).sum();
        let total = u128::from(self.rates.0) + self.offered - earned;
        if sum == 0 || earned + total > u128::from(u64::MAX) {
            assert_eq!(paid, 0);
            if sum > 0 {
                self.marks.insert("earned all there is");
            }
            return;
        }
        let mut given = 0;
        for named in accepted {
            let amount = u64::try_from(total * share(named) / sum).unwrap();
            *self.earned.entry(named.wallet).or_default() += amount;
            given += amount;
        }
        assert_eq!(paid, given);
        assert!(
            total - u128::from(given) < accepted.len() as u128,
            "a carry is a remainder"
        );
        self.offered += u128::from(self.rates.0);
        if u128::from(given) < total {
            self.marks.insert("carried");
        }
    }

    /// The rule of the design, vote by vote.
    fn count_votes(&self, round: &Round) -> Bits {
        let known = &self.rounds[&round.number];
        let attesters: Vec<usize> = (known.witnesses.iter().map(|(slot, _)| *slot))
            .filter(|slot| self.votes.contains_key(&(round.number, *slot)))
            .collect();
        let mut accepted = bits::EMPTY;
        if attesters.is_empty() || 2 * attesters.len() < known.witnesses.len() {
            return accepted;
        }
        let committed = known.shares.iter().map(|share| share.slot);
        for slot in committed.filter(|s| self.commitments.contains_key(&(round.number, *s))) {
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
}
