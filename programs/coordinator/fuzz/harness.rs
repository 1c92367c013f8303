//! Bytes become a schedule of calls with arbitrary arguments, or an account.
//!
//! The first byte chooses: a run from its creation, whose books must be right after every call; the same
//! with bytes of the account overwritten now and then; or an account that is nothing but input. Never may a
//! call panic, and a refused one leaves every byte alone. Only a tick of an account that no run could have
//! may fail half-way: its transaction is dropped.

use super::machine::*;
use super::state::*;

/// Numbers out of the input; zeros when it is used up.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        for byte in &mut out {
            if let Some((first, rest)) = self.0.split_first() {
                (*byte, self.0) = (*first, rest);
            }
        }
        out
    }

    fn byte(&mut self) -> u8 {
        self.bytes::<1>()[0]
    }

    fn short(&mut self) -> u16 {
        u16::from_le_bytes(self.bytes())
    }

    fn long(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }

    /// Mostly near to `n`, sometimes anything.
    fn near(&mut self, n: u64) -> u64 {
        match self.byte() {
            0..=199 => n,
            b @ 200..=227 => n.wrapping_add(u64::from(b - 199)),
            b @ 228..=249 => n.wrapping_sub(u64::from(b - 227)),
            _ => self.long(),
        }
    }

    /// A key that is likely to be used twice.
    fn key(&mut self, kind: u8) -> [u8; 32] {
        let mut key = [self.byte() % 12; 32];
        if key[0] > 0 {
            key[31] = kind;
        }
        key
    }

    fn bits(&mut self) -> Bits {
        [self.long(), self.long(), self.long(), self.long()]
    }

    fn config(&mut self, capacity: u16) -> Config {
        if self.byte() == 255 {
            return bytemuck::pod_read_unaligned(&self.bytes::<{ size_of::<Config>() }>());
        }
        let init = 1 + u16::from(self.byte()) % capacity.min(4);
        let start = 1 + u32::from(self.byte() % 16);
        Config {
            warmup_time: 1 + u64::from(self.byte() % 32),
            cooldown_time: 1 + u64::from(self.byte() % 32),
            max_round_train_time: 1 + u64::from(self.byte() % 16),
            round_witness_time: 1 + u64::from(self.byte() % 16),
            epoch_time: 1 + u64::from(self.byte()),
            waiting_for_members_extra_time: u64::from(self.byte() % 8),
            global_batch_size_warmup_tokens: u64::from(self.short()),
            total_steps: 1 + u64::from(self.byte()),
            global_batch_size_start: start,
            global_batch_size_end: start + u32::from(self.byte() % 16),
            max_seq_len: 1 + u32::from(self.byte()),
            pay_per_tier: [u32::from(self.byte()), u32::from(self.short()), 1, 0],
            init_min_clients: init,
            min_clients: 1 + u16::from(self.byte()) % init,
            min_full_members: 1 + u16::from(self.byte() % 2) % init,
            witness_nodes: u16::from(self.byte() % 34),
            max_missed: 1 + u16::from(self.byte() % 3),
            max_failed_warmups: 1 + u16::from(self.byte() % 3),
            max_tier: self.byte() % 3,
            _pad: [0; 7],
        }
    }
}

#[derive(Default)]
struct Counted {
    events: u64,
    paid: u64,
}

impl Sink for Counted {
    fn emit(&mut self, event: Event) {
        self.events += 1;
        if let Event::RoundClosed { paid, .. } = event {
            self.paid = self.paid.saturating_add(paid);
        }
    }
}

struct Account {
    memory: Vec<u64>,
    len: usize,
    now: i64,
    sink: Counted,
    settled: u64,
    /// Whether every byte came from the machine itself.
    genuine: bool,
}

impl Account {
    fn zeroed(capacity: usize) -> Self {
        let len = State::size(capacity);
        Self {
            memory: vec![0; len.div_ceil(8)],
            len,
            now: 1_700_000_000,
            sink: Counted::default(),
            settled: 0,
            genuine: true,
        }
    }

    fn data(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.memory)[..self.len]
    }

    /// Call with the state; after an error every byte is as before.
    fn act<T>(
        &mut self,
        call: impl FnOnce(&mut State, &Env, &mut Counted) -> Result<T, MachineError>,
    ) -> Option<T> {
        self.call(true, call)
    }

    fn call<T>(
        &mut self,
        must_restore: bool,
        call: impl FnOnce(&mut State, &Env, &mut Counted) -> Result<T, MachineError>,
    ) -> Option<T> {
        let env = Env {
            now: self.now,
            slot_hash: [self.now as u8; 32],
        };
        let before = self.memory.clone();
        let len = self.len;
        let data = &mut bytemuck::cast_slice_mut::<u64, u8>(&mut self.memory)[..len];
        let Ok(mut state) = State::from_bytes(data) else {
            assert!(before == self.memory);
            return None;
        };
        let outcome = call(&mut state, &env, &mut self.sink).ok();
        if outcome.is_none() {
            assert!(!must_restore || before == self.memory, "a refusal wrote");
            self.memory = before;
        }
        outcome
    }

    fn tick(&mut self) {
        let genuine = self.genuine;
        let made = self.call(genuine, |s, env, sink| tick(s, env, sink));
        assert!(!genuine || made.is_some(), "a tick of a real run failed");
        assert!(made.is_none_or(|made| made <= MAX_TRANSITIONS));
    }

    /// One call with arguments from the input.
    fn step(&mut self, input: &mut Input) {
        let kind = input.byte();
        let slot = match input.byte() {
            b @ 0..=239 => u16::from(b % 8),
            _ => input.short(),
        };
        let Ok(s) = State::from_bytes(self.data()) else {
            return;
        };
        let capacity = s.header.capacity;
        let (place, header) = (s.slots.get(usize::from(slot)).copied(), *s.header);
        let key = match (input.byte(), place) {
            (0..=199, Some(place)) => place.hot_key,
            (200..=229, Some(place)) => place.wallet,
            _ => input.key(1),
        };
        let open = header.rounds[usize::from(header.open & 3)];
        let before = header.rounds[usize::from(header.open.wrapping_sub(1) & 3)];
        match kind % 20 {
            0 | 1 => {
                let tier = input.byte();
                let request = JoinRequest {
                    wallet: input.key(0),
                    hot_key: input.key(1),
                    p2p_key: input.key(2),
                    tier: if tier < 250 { tier % 3 } else { tier },
                    weight: input.near(1) as u16,
                };
                self.act(|s, env, sink| join(s, env, &request, sink));
            }
            2 | 3 => {
                self.act(|s, _, _| ready(s, slot, &key));
            }
            4..=6 => {
                let (round, hash) = (input.near(open.number), [input.byte(); 32]);
                self.act(|s, _, _| commit(s, slot, &key, round, &hash));
            }
            7..=9 => {
                let round = input.near(before.number);
                let bitmap = match input.byte() {
                    0..=99 => before.committed,
                    100..=199 => bits::and(&before.committed, &input.bits()),
                    _ => input.bits(),
                };
                self.act(|s, _, _| witness(s, slot, &key, round, &bitmap));
            }
            10 => {
                let step = input.near(header.pending.step);
                let digests = vec![[input.byte() % 2; 32]; usize::from(input.byte() % 5)];
                self.act(|s, _, sink| attest_checkpoint(s, slot, &key, step, &digests, sink));
            }
            11 => {
                let uri = vec![input.byte(); usize::from(input.byte())];
                self.act(|s, _, sink| record_checkpoint(s, slot, &key, &uri, sink));
            }
            12 => {
                self.act(|s, _, sink| leave(s, slot, &key, sink));
            }
            13 => {
                let wallet = place.map_or(key, |place| place.wallet);
                self.act(|s, _, sink| evict(s, slot, &wallet, sink));
            }
            14 => {
                let wallet = place.map_or(key, |place| place.wallet);
                let done = self.act(|s, _, _| settle(s, slot, &wallet));
                let moved = done.map_or(0, |done| done.moved);
                self.settled = self.settled.saturating_add(moved);
            }
            15 => {
                let paused = input.byte() & 1 == 0;
                self.act(|s, env, sink| set_paused(s, env, paused, sink));
            }
            16 => match input.byte() % 4 {
                0 => {
                    let config = input.config(capacity.max(1));
                    self.act(|s, env, sink| configure(s, env, &config, sink));
                }
                1 => {
                    let hash = input.bytes();
                    self.act(|s, env, sink| seal_spec(s, env, &hash, sink));
                }
                2 => {
                    self.act(|s, env, sink| unseal_spec(s, env, sink));
                }
                _ => {
                    let rate = input.long() >> (input.byte() % 64);
                    self.act(|s, _, _| set_round_rate(s, rate));
                }
            },
            17 => {
                self.act(|s, _, _| check_closable(s));
                self.now = input.near(self.now as u64) as i64;
            }
            _ => self.now = self.now.wrapping_add(i64::from(input.byte() % 48)),
        }
        self.tick();
    }

    /// The books of a run that only the machine wrote.
    fn check(&mut self) {
        let (settled, paid) = (self.settled, self.sink.paid);
        let s = State::from_bytes(self.data()).expect("a genuine account stays one");
        let earned: u64 = s.slots.iter().map(|slot| slot.earned).sum();
        assert_eq!(s.header.total_earned, earned + settled, "points");
        assert_eq!(s.header.total_earned, paid);
        let returned = usize::from(s.header.returned_len);
        assert!(returned <= s.slots.len());
        let mut somewhere = s.header.lost_samples;
        for entry in &s.returned[..returned] {
            assert!(entry.len > 0 && entry.end() <= s.header.data_index);
            somewhere += u64::from(entry.len);
        }
        for round in &s.header.rounds {
            let inner = [&round.accepted, &round.committed, &round.attested];
            let outer = [&round.committed, &round.assigned, &round.witnesses];
            for (inner, outer) in inner.into_iter().zip(outer) {
                assert!(bits::is_empty(&bits::minus(inner, outer)));
            }
            if matches!(round.status, round_status::OPEN | round_status::COMMITTED) {
                somewhere += u64::from(round.samples);
                let named = bits::or(&round.assigned, &round.witnesses);
                for slot in bits::iter(&named) {
                    assert!(!s.slots[slot].is_free(), "a round names nobody");
                }
            }
        }
        assert!(somewhere <= s.header.data_index, "samples");
        assert!(usize::from(s.header.open) < RING && s.header.phase <= phase::PAUSED);
    }
}

/// One input.
pub fn run(data: &[u8]) {
    let mut input = Input(data);
    let mode = input.byte() % 4;
    let capacity = match input.byte() {
        b @ 0..=249 => 1 + usize::from(b % 8),
        b => 64 * usize::from(b - 249).min(4),
    };
    let mut account = Account::zeroed(capacity);
    if mode == 3 {
        account.genuine = false;
        account.now = input.long() as i64;
        let calls = input.bytes::<96>();
        let fill = input.0;
        let valid = fill.first().is_some_and(|b| b & 1 == 0);
        let data = account.data();
        for (byte, value) in data.iter_mut().zip(fill.iter().skip(1)) {
            *byte = *value;
        }
        if valid {
            data[..8].copy_from_slice(&VERSION.to_le_bytes());
            let at = core::mem::offset_of!(Header, capacity);
            data[at..at + 2].copy_from_slice(&(capacity as u16).to_le_bytes());
        }
        let mut calls = Input(&calls);
        while !calls.0.is_empty() {
            account.step(&mut calls);
        }
        return;
    }
    let config = input.config(capacity as u16);
    State::init(account.data(), &[7; 32], 1).expect("zeroed");
    account.act(|s, env, sink| configure(s, env, &config, sink));
    account.act(|s, env, sink| seal_spec(s, env, &[5; 32], sink));
    account.act(|s, env, sink| set_paused(s, env, false, sink));
    for _ in 0..1024 {
        if input.0.is_empty() {
            break;
        }
        if mode == 2 && input.0[0] >= 250 {
            let (at, value) = (input.long() as usize, input.byte());
            let len = account.len;
            account.data()[at % len] = value;
            account.genuine = false;
        }
        account.step(&mut input);
        if account.genuine {
            account.check();
        }
    }
}
