//! A run in memory, with members that are numbers from 1.

use coordinator::machine::*;
use coordinator::state::*;

#[derive(Clone)]
pub struct Log(pub Vec<Event>);

impl Sink for Log {
    fn emit(&mut self, event: Event) {
        self.0.push(event);
    }
}

#[derive(Clone)]
pub struct World {
    memory: Vec<u64>,
    bytes: usize,
    pub now: i64,
    pub log: Log,
}

pub fn wallet(member: u8) -> [u8; 32] {
    [member; 32]
}

pub fn hot(member: u8) -> [u8; 32] {
    let mut key = [member; 32];
    key[0] = 0xaa;
    key
}

pub fn peer(member: u8) -> [u8; 32] {
    let mut key = [member; 32];
    key[0] = 0xbb;
    key
}

pub fn blob(member: u8, round: u64) -> [u8; 32] {
    let mut hash = [member; 32];
    hash[..8].copy_from_slice(&round.to_le_bytes());
    hash
}

pub fn set(slots: &[usize]) -> Bits {
    let mut set = bits::EMPTY;
    for slot in slots {
        bits::insert(&mut set, *slot);
    }
    set
}

pub fn config() -> Config {
    Config {
        warmup_time: 30,
        cooldown_time: 40,
        max_round_train_time: 20,
        round_witness_time: 10,
        epoch_time: 1000,
        waiting_for_members_extra_time: 5,
        global_batch_size_warmup_tokens: 0,
        total_steps: 1000,
        global_batch_size_start: 12,
        global_batch_size_end: 12,
        max_seq_len: 16,
        pay_per_tier: [1; 4],
        init_min_clients: 1,
        min_clients: 1,
        min_full_members: 1,
        witness_nodes: 0,
        max_missed: 3,
        max_failed_warmups: 3,
        max_tier: 2,
        _pad: [0; 7],
    }
}

pub fn request(member: u8, tier: u8, weight: u16) -> JoinRequest {
    JoinRequest {
        wallet: wallet(member),
        hot_key: hot(member),
        p2p_key: peer(member),
        tier,
        weight,
    }
}

type Outcome<T> = Result<T, MachineError>;

impl World {
    pub fn bare(capacity: usize) -> Self {
        let bytes = State::size(capacity);
        let memory = vec![0u64; bytes.div_ceil(8)];
        let mut world = Self {
            memory,
            bytes,
            now: 1_000_000,
            log: Log(Vec::new()),
        };
        let bytes = world.bytes;
        State::init(
            &mut bytemuck::cast_slice_mut(&mut world.memory)[..bytes],
            &[7; 32],
            7,
        )
        .unwrap();
        world
    }

    /// Configured, sealed, resumed: waiting for members.
    pub fn new(capacity: usize, config: Config) -> Self {
        let mut world = Self::bare(capacity);
        world.configure(&config).unwrap();
        world.seal().unwrap();
        world.set_paused(false).unwrap();
        world
    }

    /// In the first round of an epoch, with members 1.. of these tiers in slots 0.. .
    pub fn training(tiers: &[u8], config: Config) -> Self {
        let mut world = Self::new(16, config);
        for (member, tier) in (1u8..).zip(tiers) {
            world.join(member, *tier).unwrap();
        }
        world.start_epoch();
        world
    }

    pub fn start_epoch(&mut self) {
        assert_eq!(self.phase(), phase::WAITING_FOR_MEMBERS);
        self.now += 5;
        assert_eq!(self.tick(), 1);
        for slot in 0..self.state().slots.len() {
            if self.state().slots[slot].is_active() {
                self.ready_slot(slot).unwrap();
            }
        }
        assert_eq!(self.tick(), 1);
        assert_eq!(self.phase(), phase::ROUND_TRAIN);
    }

    pub fn data_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.memory)[..self.bytes]
    }

    /// The account as it is after these changes by hand, and one more change counted.
    pub fn changed(&self, change: impl FnOnce(&mut State)) -> Vec<u8> {
        let mut copy = self.clone();
        let mut state = copy.state();
        state.header.nonce += 1;
        change(&mut state);
        copy.data_mut().to_vec()
    }

    pub fn state(&mut self) -> State<'_> {
        State::from_bytes(&mut bytemuck::cast_slice_mut(&mut self.memory)[..self.bytes]).unwrap()
    }

    pub fn header(&mut self) -> Header {
        *self.state().header
    }

    pub fn slot(&mut self, slot: usize) -> Slot {
        self.state().slots[slot]
    }

    pub fn phase(&mut self) -> u8 {
        self.state().header.phase
    }

    pub fn env(&self) -> Env {
        let mut slot_hash = [9; 32];
        slot_hash[..8].copy_from_slice(&self.now.to_le_bytes());
        Env {
            now: self.now,
            slot_hash,
        }
    }

    /// Run an action; after an error nothing may have changed, not even the log.
    pub fn act<T>(
        &mut self,
        action: impl FnOnce(&mut State, &Env, &mut Log) -> Outcome<T>,
    ) -> Outcome<T> {
        let env = self.env();
        let before = self.memory.clone();
        let events = self.log.0.len();
        let bytes = self.bytes;
        let data = &mut bytemuck::cast_slice_mut(&mut self.memory)[..bytes];
        let mut state = State::from_bytes(data).unwrap();
        let outcome = action(&mut state, &env, &mut self.log);
        if outcome.is_err() {
            assert!(before == self.memory, "a refused action changed the state");
            assert_eq!(events, self.log.0.len(), "a refused action told something");
        }
        outcome
    }

    pub fn tick(&mut self) -> u8 {
        let before = self.memory.clone();
        let made = self.act(|s, env, log| tick(s, env, log)).unwrap();
        assert!(
            made > 0 || before == self.memory,
            "a tick with nothing due changed the state"
        );
        made
    }

    pub fn configure(&mut self, config: &Config) -> Outcome<()> {
        self.act(|s, env, log| configure(s, env, config, log))
    }

    pub fn seal(&mut self) -> Outcome<()> {
        self.seal_as(&[5; 32])
    }

    pub fn seal_as(&mut self, spec_hash: &[u8; 32]) -> Outcome<()> {
        self.act(|s, env, log| seal_spec(s, env, spec_hash, log))
    }

    pub fn unseal(&mut self) -> Outcome<()> {
        self.act(|s, env, log| unseal_spec(s, env, log))
    }

    pub fn set_paused(&mut self, paused: bool) -> Outcome<()> {
        self.act(|s, env, log| set_paused(s, env, paused, log))
    }

    pub fn set_rate(&mut self, rate: u64) -> Outcome<()> {
        self.act(|s, _, _| set_round_rate(s, rate))
    }

    pub fn join(&mut self, member: u8, tier: u8) -> Outcome<u16> {
        self.join_as(&request(member, tier, 1))
    }

    pub fn join_as(&mut self, request: &JoinRequest) -> Outcome<u16> {
        self.act(|s, env, log| join(s, env, request, log))
    }

    /// The key that may act for a slot, here its hot key.
    pub fn key(&mut self, slot: usize) -> [u8; 32] {
        self.state().slots.get(slot).map_or([0; 32], |s| s.hot_key)
    }

    pub fn ready_slot(&mut self, slot: usize) -> Outcome<()> {
        let key = self.key(slot);
        self.act(|s, _, _| ready(s, slot as u16, &key))
    }

    pub fn ready_as(&mut self, slot: u16, key: &[u8; 32]) -> Outcome<()> {
        self.act(|s, _, _| ready(s, slot, key))
    }

    pub fn commit_round(&mut self, slot: usize, round: u64) -> Outcome<()> {
        let key = self.key(slot);
        let member = key[1];
        self.act(|s, _, _| commit(s, slot as u16, &key, round, &blob(member, round)))
    }

    /// The newest round.
    pub fn round(&mut self) -> Round {
        let header = self.header();
        header.rounds[usize::from(header.open)]
    }

    /// The round before the newest.
    pub fn before(&mut self) -> Round {
        let header = self.header();
        header.rounds[(usize::from(header.open) + 3) % 4]
    }

    pub fn commit(&mut self, slot: usize) -> Outcome<()> {
        let round = self.round().number;
        self.commit_round(slot, round)
    }

    pub fn witness_round(&mut self, slot: usize, round: u64, bitmap: &Bits) -> Outcome<()> {
        let key = self.key(slot);
        self.act(|s, _, _| witness(s, slot as u16, &key, round, bitmap))
    }

    /// Attest all that was committed.
    pub fn witness(&mut self, slot: usize) -> Outcome<()> {
        let before = self.before();
        self.witness_round(slot, before.number, &before.committed)
    }

    pub fn attest(&mut self, slot: usize, digests: &[[u8; 32]]) -> Outcome<()> {
        let step = self.header().pending.step;
        self.attest_step(slot, step, digests)
    }

    pub fn attest_step(&mut self, slot: usize, step: u64, digests: &[[u8; 32]]) -> Outcome<()> {
        let key = self.key(slot);
        self.act(|s, _, log| attest_checkpoint(s, slot as u16, &key, step, digests, log))
    }

    pub fn record(&mut self, slot: usize, uri: &[u8]) -> Outcome<()> {
        let key = self.key(slot);
        self.act(|s, _, log| record_checkpoint(s, slot as u16, &key, uri, log))
    }

    pub fn leave(&mut self, slot: usize) -> Outcome<()> {
        let key = self.key(slot);
        self.act(|s, _, log| leave(s, slot as u16, &key, log))
    }

    pub fn evict(&mut self, slot: usize, member: u8) -> Outcome<()> {
        self.act(|s, _, log| evict(s, slot as u16, &wallet(member), log))
    }

    pub fn settle(&mut self, slot: usize, member: u8) -> Outcome<Settled> {
        self.act(|s, _, _| settle(s, slot as u16, &wallet(member)))
    }

    pub fn closable(&mut self) -> Outcome<()> {
        self.act(|s, _, _| check_closable(s))
    }

    /// These slots do all that the round asks of them, then ticks follow.
    pub fn do_round(&mut self, slots: &[usize]) {
        let (round, before) = (self.round(), self.before());
        for slot in slots {
            if before.status == round_status::COMMITTED && bits::contains(&before.witnesses, *slot)
            {
                self.witness(*slot).unwrap();
            }
            if bits::contains(&round.assigned, *slot) {
                self.commit(*slot).unwrap();
            }
        }
        self.tick();
    }

    /// Let a wait pass: nothing is due one second before its end, something at its end.
    pub fn pass(&mut self, seconds: i64) {
        let start = self.header().phase_start;
        self.now = start + seconds - 1;
        assert_eq!(self.tick(), 0, "due a second early");
        self.now += 1;
        assert!(self.tick() > 0, "not due at the second");
    }

    /// The accepted slots of a closed round.
    pub fn accepted(&self, round: u64) -> Vec<usize> {
        let found = self.log.0.iter().rev().find_map(|e| match e {
            Event::RoundClosed {
                round: r, accepted, ..
            } if *r == round => Some(*accepted),
            _ => None,
        });
        bits::iter(&found.expect("the round was not closed")).collect()
    }

    pub fn happened(&self, wanted: impl Fn(&Event) -> bool) -> usize {
        self.log.0.iter().filter(|e| wanted(e)).count()
    }
}
