//! What happened, told as it happens: an indexer needs no account diffs.

use crate::state::Bits;

/// Why a member's presence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    /// It called `leave`.
    Left = 0,
    /// Its authorization was revoked.
    Evicted = 1,
    /// It missed `max_missed` rounds of an epoch.
    MissedRounds = 2,
    /// It missed three warmups in a row.
    MissedWarmups = 3,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    PhaseChanged {
        from: u8,
        to: u8,
        epoch: u64,
        step: u64,
        round: u64,
    },
    /// A pause was asked for (`true`) or taken back before it began.
    PauseRequested {
        requested: bool,
    },
    EpochStarted {
        epoch: u64,
        members: Bits,
        round_rate: u64,
    },
    RoundOpened {
        round: u64,
        step: u64,
        epoch: u64,
        trained: bool,
        seed: [u8; 32],
        data_index: u64,
        samples: u32,
        assigned: Bits,
        /// Witnesses of the round before.
        witnesses: Bits,
    },
    /// `paid` is the sum over the accepted slots; `returned` and `lost` count samples.
    RoundClosed {
        round: u64,
        step: u64,
        epoch: u64,
        trained: bool,
        assigned: Bits,
        accepted: Bits,
        paid: u64,
        returned: u64,
        lost: u64,
        history: [u8; 32],
    },
    /// `active` means that it came back into the running epoch.
    Joined {
        slot: u16,
        wallet: [u8; 32],
        tier: u8,
        weight: u16,
        active: bool,
    },
    /// One member's presence ended.
    Left {
        slot: u16,
        wallet: [u8; 32],
        reason: Reason,
    },
    /// The presence of several members ended at once.
    Dropped {
        members: Bits,
        reason: Reason,
    },
    CheckpointAgreed {
        step: u64,
        epoch: u64,
        weights_hash: [u8; 32],
    },
    /// The agreed checkpoint became the run's; `uri_len` is 0 where nobody recorded a uri.
    CheckpointRecorded {
        step: u64,
        epoch: u64,
        uri_len: u16,
    },
    /// The log went back to the last agreed checkpoint.
    Rewound {
        from_step: u64,
        to_step: u64,
        data_index: u64,
        lost_samples: u64,
        history: [u8; 32],
    },
    Configured {
        total_steps: u64,
    },
    SpecSealed {
        spec_hash: [u8; 32],
    },
}

/// Takes the events: the program logs them, tests collect them.
pub trait Sink {
    fn emit(&mut self, event: Event);
}

/// Drops everything.
pub struct Silent;

impl Sink for Silent {
    fn emit(&mut self, _: Event) {}
}
