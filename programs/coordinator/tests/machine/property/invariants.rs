//! What holds after every step.

use super::model::Model;
use coordinator::state::*;

impl Model {
    pub fn check(&mut self) {
        let header = self.world.header();
        assert_eq!(header.phase, self.phase);
        assert_eq!(header.history, self.head.history);
        assert_eq!(
            (header.step, header.next_round, header.epoch),
            (self.head.step, self.head.round, self.head.epoch)
        );
        self.check_checkpoint();
        self.check_rounds();
        self.check_members();
        self.check_samples();
        self.check_points();
    }

    /// A round in the ring is what it was when it opened, and names whom it named.
    fn check_rounds(&mut self) {
        let header = self.world.header();
        let slots = self.world.state().slots.to_vec();
        let commitments = self.world.state().commitments.to_vec();
        let in_epoch = (phase::WARMUP..=phase::COOLDOWN).contains(&header.phase);
        for (row, round) in header.rounds.iter().enumerate() {
            let Some(known) = self.rounds.get(&round.number) else {
                assert_eq!(*round, Round::default());
                continue;
            };
            let as_opened = Round {
                committed: round.committed,
                witnesses: round.witnesses,
                attested: round.attested,
                accepted: round.accepted,
                status: round.status,
                ..known.round
            };
            assert_eq!(*round, as_opened, "a round changed");
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
            let drawn: Vec<usize> = known.witnesses.iter().map(|w| w.0).collect();
            assert!(bits::iter(&round.witnesses).eq(drawn), "witnesses changed");
            let overwritten = round.status == round_status::EMPTY || !round.is_trained();
            for share in known.shares.iter().filter(|_| !overwritten) {
                let held = commitments[row * self.capacity + share.slot];
                let known = self.commitments.get(&(round.number, share.slot));
                let has_committed = bits::contains(&round.committed, share.slot);
                assert_eq!(has_committed.then_some(&held), known, "a commitment");
            }
            let is_over = !matches!(round.status, round_status::OPEN | round_status::COMMITTED);
            assert_eq!(is_over, known.is_closed);
            if is_over && (overwritten || !in_epoch || round.epoch != header.epoch) {
                continue;
            }
            for share in &known.shares {
                let slot = &slots[share.slot];
                assert_eq!(slot.wallet, share.wallet, "a slot changed hands");
                assert_eq!((slot.tier, slot.weight), (share.tier, share.weight));
            }
            for (slot, wallet) in &known.witnesses {
                assert!(
                    is_over || slots[*slot].wallet == *wallet,
                    "a witness changed"
                );
            }
        }
    }

    /// No wallet and no peer twice, and nothing left in free slots.
    fn check_members(&mut self) {
        let header = self.world.header();
        let in_epoch = (phase::WARMUP..=phase::COOLDOWN).contains(&header.phase);
        let slots = self.world.state().slots.to_vec();
        for (index, slot) in slots.iter().enumerate() {
            match slot.status {
                slot_status::FREE => assert_eq!(*slot, Slot::default()),
                slot_status::ACTIVE => {
                    assert!(in_epoch, "active outside of an epoch");
                    assert!(slot.has(slot_flag::IN_EPOCH));
                    assert_eq!(u64::from(slot.last_epoch), header.epoch);
                }
                _ => assert!(!slot.has(slot_flag::READY | slot_flag::ATTESTED)),
            }
            assert!(slot.is_free() || slot.weight > 0 && slot.next_weight > 0);
            for other in slots[..index].iter().filter(|other| !other.is_free()) {
                assert!(slot.wallet != other.wallet && slot.p2p_key != other.p2p_key);
            }
        }
        let draining = header.has(run_flag::DRAINING);
        let newest = header.rounds[usize::from(header.open)];
        let in_round = matches!(header.phase, phase::ROUND_TRAIN | phase::ROUND_WITNESS);
        assert_eq!(draining, in_round && !newest.is_trained());
        assert!(
            !header.has(run_flag::PAUSE_REQUESTED) || in_round || header.phase == phase::COOLDOWN
        );
    }

    /// Every sample that was handed out is in exactly one place.
    fn check_samples(&mut self) {
        let header = self.world.header();
        assert_eq!(header.data_index, self.head.data_index);
        let s = self.world.state();
        let table = &s.returned[..usize::from(s.header.returned_len)];
        let table: Vec<_> = table.iter().map(|e| (e.first(), e.end())).collect();
        assert_eq!(table, self.returned);
        let returned = self.returned.iter();
        let mut places: Vec<u64> = returned.flat_map(|(start, end)| *start..*end).collect();
        let open = self.rounds.values().filter(|known| !known.is_closed);
        places.extend(open.flat_map(|known| known.shares.iter().flat_map(|s| &s.samples)));
        places.extend(self.accepted.keys());
        places.extend(&self.lost);
        places.sort_unstable();
        assert!(
            places.iter().copied().eq(0..header.data_index),
            "samples: {places:?}"
        );
        assert_eq!(header.lost_samples, self.lost.len() as u64);
    }

    /// Every point is paid once.
    fn check_points(&mut self) {
        let header = self.world.header();
        let mut points = self.settled.clone();
        for slot in 0..self.capacity {
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
        assert_eq!(
            u128::from(header.total_earned) + u128::from(header.pay_carry),
            self.offered
        );
        let is_settled = (0..self.capacity).all(|slot| self.world.slot(slot).earned == 0);
        let is_halted = matches!(self.phase, 0 | phase::FINISHED | phase::PAUSED);
        assert_eq!(self.world.closable().is_ok(), is_settled && is_halted);
    }
}
