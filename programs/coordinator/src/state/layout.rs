//! The bytes of a `RunState` account: plain structs, little-endian, no padding that is not named.
//!
//! `layout.json` beside `Cargo.toml` freezes every offset; clients decode from it.

use bytemuck::{Pod, Zeroable};

/// Rounds that are kept on chain.
pub const RING: usize = 4;
/// Most slots that a run can have.
pub const MAX_CAPACITY: usize = 256;
/// Most witnesses of one round.
pub const MAX_WITNESSES: usize = 32;
/// Highest tier that a run can allow.
pub const MAX_TIER: u8 = 2;
/// Most returned intervals that one round takes up.
pub const FILLS: usize = 8;
/// Longest uri of a checkpoint, in bytes.
pub const MAX_URI: usize = 128;
/// The version that this program reads and writes.
pub const VERSION: u64 = 1;
/// `Header::uploader` while nobody is drawn.
pub const NO_UPLOADER: u16 = u16::MAX;

/// A set of slots: bit `i % 64` of word `i / 64` is slot `i`.
pub type Bits = [u64; 4];

/// Values of `Header::phase`.
pub mod phase {
    pub const UNINITIALIZED: u8 = 0;
    pub const WAITING_FOR_MEMBERS: u8 = 1;
    pub const WARMUP: u8 = 2;
    pub const ROUND_TRAIN: u8 = 3;
    pub const ROUND_WITNESS: u8 = 4;
    pub const COOLDOWN: u8 = 5;
    pub const FINISHED: u8 = 6;
    pub const PAUSED: u8 = 7;
}

/// Bits of `Header::flags`.
pub mod run_flag {
    /// A pause is asked for; the epoch ends first.
    pub const PAUSE_REQUESTED: u8 = 1;
    /// `configure` was called.
    pub const CONFIGURED: u8 = 2;
    /// The specification is sealed.
    pub const SPEC_SEALED: u8 = 4;
    /// The open round is a drain round: nobody trains, the round before is attested.
    pub const DRAINING: u8 = 8;
    /// The weights are agreed, their uri is not recorded yet.
    pub const URI_MISSING: u8 = 16;
}

/// Values of `Slot::status`.
pub mod slot_status {
    pub const FREE: u8 = 0;
    /// Present; takes part from the next epoch.
    pub const WAITING: u8 = 1;
    /// Takes part in this epoch.
    pub const ACTIVE: u8 = 2;
    /// Gone; the slot is kept for its pay and for the rounds that name it.
    pub const DEPARTED: u8 = 3;
}

/// Bits of `Slot::flags`.
pub mod slot_flag {
    /// Said `ready` and has not missed a commit since.
    pub const READY: u8 = 1;
    /// Voted on the checkpoint of this cooldown.
    pub const ATTESTED: u8 = 2;
    /// Belongs to the current epoch: may come back into it.
    pub const IN_EPOCH: u8 = 4;
}

/// Values of `Round::status`.
pub mod round_status {
    /// Never used, or its commitments were overwritten by votes on a checkpoint.
    pub const EMPTY: u8 = 0;
    pub const OPEN: u8 = 1;
    /// Its commits are over; it is being attested, or waits for it.
    pub const COMMITTED: u8 = 2;
    pub const CLOSED: u8 = 3;
}

/// The rules of a run. Times in seconds.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Config {
    pub warmup_time: u64,
    pub cooldown_time: u64,
    pub max_round_train_time: u64,
    pub round_witness_time: u64,
    /// Counted from the first round of the epoch.
    pub epoch_time: u64,
    /// Counted from the moment when enough members are present.
    pub waiting_for_members_extra_time: u64,
    pub global_batch_size_warmup_tokens: u64,
    pub total_steps: u64,
    pub global_batch_size_start: u32,
    pub global_batch_size_end: u32,
    /// Tokens in a sample.
    pub max_seq_len: u32,
    /// Relative pay of a unit of weight, by tier.
    pub pay_per_tier: [u32; 4],
    pub init_min_clients: u16,
    pub min_clients: u16,
    pub min_full_members: u16,
    /// Witnesses drawn for a round; 0 draws everyone, up to [`MAX_WITNESSES`].
    pub witness_nodes: u16,
    pub max_missed: u16,
    pub max_failed_warmups: u16,
    pub max_tier: u8,
    pub _pad: [u8; 7],
}

/// Samples `start .. start + len`. The start is kept as two words so that the struct has 12 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Interval {
    /// Low word, high word.
    pub start: [u32; 2],
    pub len: u32,
}

/// A position in the log, and the weights there.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Checkpoint {
    pub weights_hash: [u8; 32],
    pub history: [u8; 32],
    pub step: u64,
    /// The next round's number at that point.
    pub round: u64,
    pub data_index: u64,
    pub epoch: u64,
    pub uri_len: u16,
    pub agreed: u8,
    pub _pad: [u8; 5],
    pub uri: [u8; MAX_URI],
}

/// One round of the log.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Round {
    pub number: u64,
    pub step: u64,
    pub epoch: u64,
    /// The first sample that no earlier round took.
    pub data_index: u64,
    pub opened_at: i64,
    pub seed: [u8; 32],
    pub assigned: Bits,
    pub committed: Bits,
    pub witnesses: Bits,
    pub attested: Bits,
    pub accepted: Bits,
    /// Returned intervals that this round takes up, before new samples.
    pub fills: [Interval; FILLS],
    pub samples: u32,
    pub num_fills: u16,
    pub trained: u8,
    pub status: u8,
}

/// A member's place.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Slot {
    pub wallet: [u8; 32],
    /// Signs the duties; all zero means that only the wallet does.
    pub hot_key: [u8; 32],
    pub p2p_key: [u8; 32],
    /// Points earned and not yet moved to the membership account.
    pub earned: u64,
    /// The last epoch in which the member was active (low 32 bits).
    pub last_epoch: u32,
    pub weight: u16,
    pub next_weight: u16,
    pub missed: u16,
    pub missed_warmups: u16,
    pub status: u8,
    pub flags: u8,
    pub tier: u8,
    pub next_tier: u8,
}

/// Everything of a run that does not grow with its capacity.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Header {
    pub version: u64,
    /// One more on every change.
    pub nonce: u64,
    pub run: [u8; 32],
    pub spec_hash: [u8; 32],
    pub history: [u8; 32],
    pub seed: [u8; 32],
    pub config: Config,
    pub round_rate: u64,
    pub next_round_rate: u64,
    pub pay_carry: u64,
    pub epoch: u64,
    /// Trained rounds opened so far.
    pub step: u64,
    /// Samples handed out so far.
    pub data_index: u64,
    pub next_round: u64,
    pub phase_start: i64,
    /// When the epoch's first round opened; before that, when its warmup began.
    pub epoch_start: i64,
    pub lost_samples: u64,
    /// Samples below the checkpoint's data index that rounds have taken up since: a rewind loses them.
    pub fills_since_checkpoint: u64,
    /// The part of `lost_samples` at or above the checkpoint's data index: a rewind hands them out again.
    pub lost_since_checkpoint: u64,
    pub total_earned: u64,
    /// The chain's slot when the run was created: tells this run from an earlier one at the same address.
    pub created_slot: u64,
    pub capacity: u16,
    pub returned_len: u16,
    pub failed_warmups: u16,
    pub uploader: u16,
    pub phase: u8,
    pub flags: u8,
    /// Ring index of the newest round.
    pub open: u8,
    pub _pad: [u8; 5],
    pub checkpoint: Checkpoint,
    /// What the members are agreeing on in Cooldown.
    pub pending: Checkpoint,
    pub rounds: [Round; RING],
}

impl Interval {
    pub fn new(start: u64, len: u32) -> Self {
        let [a, b, c, d, e, f, g, h] = start.to_le_bytes();
        let low = u32::from_le_bytes([a, b, c, d]);
        let high = u32::from_le_bytes([e, f, g, h]);
        Self {
            start: [low, high],
            len,
        }
    }

    pub fn first(&self) -> u64 {
        let [low, high] = self.start;
        u64::from(low) | (u64::from(high) << 32)
    }

    /// One past the last sample.
    pub fn end(&self) -> u64 {
        self.first().saturating_add(u64::from(self.len))
    }
}

impl Round {
    pub fn is_trained(&self) -> bool {
        self.trained != 0
    }
}

impl Slot {
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub fn is_free(&self) -> bool {
        self.status == slot_status::FREE
    }

    pub fn is_active(&self) -> bool {
        self.status == slot_status::ACTIVE
    }

    /// Takes part now or from the next epoch.
    pub fn is_present(&self) -> bool {
        self.status == slot_status::ACTIVE || self.status == slot_status::WAITING
    }

    /// Can be given work and be drawn as a witness.
    pub fn is_assignable(&self) -> bool {
        self.is_active() && self.has(slot_flag::READY)
    }

    pub fn signs(&self, key: &[u8; 32]) -> bool {
        self.wallet == *key || (self.hot_key == *key && self.hot_key != [0; 32])
    }
}

impl Header {
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub fn set(&mut self, flag: u8, on: bool) {
        if on {
            self.flags |= flag;
        } else {
            self.flags &= !flag;
        }
    }
}
