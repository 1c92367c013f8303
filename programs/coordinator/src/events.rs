//! What the coordinator tells the world: an indexer needs no account diffs. Sets are 32 bytes, bit i is slot i.

use anchor_lang::prelude::*;

use crate::machine::{Event, Reason, Sink};
use crate::state::{bits::to_bytes, Header};

/// A run was registered.
#[event]
pub struct RunCreated {
    pub run: Pubkey,
    pub run_state: Pubkey,
    pub creator: Pubkey,
    pub authority: Pubkey,
    pub run_id: String,
}

/// A run is gone.
#[event]
pub struct RunClosed {
    pub run: Pubkey,
    pub run_state: Pubkey,
}

/// The run changed hands.
#[event]
pub struct AuthoritySet {
    pub run: Pubkey,
    pub authority: Pubkey,
}

/// The run is described anew, and perhaps admits by another key.
#[event]
pub struct MetadataSet {
    pub run: Pubkey,
    pub name: String,
    pub join_authority: Pubkey,
}

/// Another specification will be written.
#[event]
pub struct SpecReset {
    pub run: Pubkey,
    pub spec_len: u32,
    pub spec_sha256: [u8; 32],
}

/// What closed rounds share from the next epoch on.
#[event]
pub struct RoundRateSet {
    pub run: Pubkey,
    pub rate: u64,
}

/// A member is reached elsewhere.
#[event]
pub struct ContactUpdated {
    pub run_state: Pubkey,
    pub wallet: Pubkey,
}

/// Pay moved from a slot to its member's account.
#[event]
pub struct Settled {
    pub run: Pubkey,
    pub wallet: Pubkey,
    pub slot: u16,
    pub moved: u64,
    pub earned: u64,
    pub freed: bool,
}

/// A wallet took its membership's rent back.
#[event]
pub struct MembershipClosed {
    pub run_state: Pubkey,
    pub wallet: Pubkey,
}

/// The run went from one phase to another.
#[event]
pub struct PhaseChanged {
    pub run: Pubkey,
    pub from: u8,
    pub to: u8,
    pub epoch: u64,
    pub step: u64,
    pub round: u64,
}

/// A pause was asked for, or taken back before it began.
#[event]
pub struct PauseRequested {
    pub run: Pubkey,
    pub requested: bool,
}

/// An epoch began with these members.
#[event]
pub struct EpochStarted {
    pub run: Pubkey,
    pub epoch: u64,
    pub members: [u8; 32],
    pub round_rate: u64,
}

/// A round opened; the witnesses attest the one before.
#[event]
pub struct RoundOpened {
    pub run: Pubkey,
    pub round: u64,
    pub step: u64,
    pub epoch: u64,
    pub trained: bool,
    pub seed: [u8; 32],
    pub data_index: u64,
    pub samples: u32,
    pub assigned: [u8; 32],
    pub witnesses: [u8; 32],
}

/// A round closed: whose work counts, what it paid, and the log's hash after it.
#[event]
pub struct RoundClosed {
    pub run: Pubkey,
    pub round: u64,
    pub step: u64,
    pub epoch: u64,
    pub trained: bool,
    pub assigned: [u8; 32],
    pub accepted: [u8; 32],
    pub paid: u64,
    pub returned: u64,
    pub lost: u64,
    pub history: [u8; 32],
}

/// A wallet joined; `active` if it came back into the running epoch.
#[event]
pub struct Joined {
    pub run: Pubkey,
    pub slot: u16,
    pub wallet: Pubkey,
    pub tier: u8,
    pub weight: u16,
    pub active: bool,
}

/// Why a presence ended.
#[derive(AnchorSerialize, AnchorDeserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftReason {
    Left,
    Evicted,
    MissedRounds,
    MissedWarmups,
}

/// One member's presence ended.
#[event]
pub struct Left {
    pub run: Pubkey,
    pub slot: u16,
    pub wallet: Pubkey,
    pub reason: LeftReason,
}

/// The presence of several members ended at once.
#[event]
pub struct Dropped {
    pub run: Pubkey,
    pub members: [u8; 32],
    pub reason: LeftReason,
}

/// The members agree on the weights.
#[event]
pub struct CheckpointAgreed {
    pub run: Pubkey,
    pub step: u64,
    pub epoch: u64,
    pub weights_hash: [u8; 32],
}

/// The agreed checkpoint became the run's; without a uri if nobody recorded one.
#[event]
pub struct CheckpointRecorded {
    pub run: Pubkey,
    pub step: u64,
    pub epoch: u64,
    pub uri_len: u16,
}

/// The log went back to the last agreed checkpoint.
#[event]
pub struct Rewound {
    pub run: Pubkey,
    pub from_step: u64,
    pub to_step: u64,
    pub data_index: u64,
    pub lost_samples: u64,
    pub history: [u8; 32],
}

/// The rules of the run were set.
#[event]
pub struct Configured {
    pub run: Pubkey,
    pub total_steps: u64,
}

/// The specification is complete and fixed.
#[event]
pub struct SpecSealed {
    pub run: Pubkey,
    pub spec_hash: [u8; 32],
}

/// Logs the machine's events under the run's key.
pub struct Emitter {
    run: Pubkey,
}

impl Emitter {
    pub fn new(header: &Header) -> Self {
        Self {
            run: Pubkey::from(header.run),
        }
    }
}

impl From<Reason> for LeftReason {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::Left => Self::Left,
            Reason::Evicted => Self::Evicted,
            Reason::MissedRounds => Self::MissedRounds,
            Reason::MissedWarmups => Self::MissedWarmups,
        }
    }
}

impl Sink for Emitter {
    fn emit(&mut self, event: Event) {
        let run = self.run;
        match event {
            Event::PhaseChanged {
                from,
                to,
                epoch,
                step,
                round,
            } => {
                emit!(PhaseChanged {
                    run,
                    from,
                    to,
                    epoch,
                    step,
                    round
                })
            }
            Event::PauseRequested { requested } => emit!(PauseRequested { run, requested }),
            Event::EpochStarted {
                epoch,
                members,
                round_rate,
            } => {
                emit!(EpochStarted {
                    run,
                    epoch,
                    members: to_bytes(&members),
                    round_rate
                })
            }
            Event::RoundOpened {
                round,
                step,
                epoch,
                trained,
                seed,
                data_index,
                samples,
                assigned,
                witnesses,
            } => emit!(RoundOpened {
                run,
                round,
                step,
                epoch,
                trained,
                seed,
                data_index,
                samples,
                assigned: to_bytes(&assigned),
                witnesses: to_bytes(&witnesses),
            }),
            Event::RoundClosed {
                round,
                step,
                epoch,
                trained,
                assigned,
                accepted,
                paid,
                returned,
                lost,
                history,
            } => emit!(RoundClosed {
                run,
                round,
                step,
                epoch,
                trained,
                assigned: to_bytes(&assigned),
                accepted: to_bytes(&accepted),
                paid,
                returned,
                lost,
                history,
            }),
            Event::Joined {
                slot,
                wallet,
                tier,
                weight,
                active,
            } => {
                emit!(Joined {
                    run,
                    slot,
                    wallet: wallet.into(),
                    tier,
                    weight,
                    active
                })
            }
            Event::Left {
                slot,
                wallet,
                reason,
            } => {
                emit!(Left {
                    run,
                    slot,
                    wallet: wallet.into(),
                    reason: reason.into()
                })
            }
            Event::Dropped { members, reason } => {
                emit!(Dropped {
                    run,
                    members: to_bytes(&members),
                    reason: reason.into()
                })
            }
            Event::CheckpointAgreed {
                step,
                epoch,
                weights_hash,
            } => {
                emit!(CheckpointAgreed {
                    run,
                    step,
                    epoch,
                    weights_hash
                })
            }
            Event::CheckpointRecorded {
                step,
                epoch,
                uri_len,
            } => {
                emit!(CheckpointRecorded {
                    run,
                    step,
                    epoch,
                    uri_len
                })
            }
            Event::Rewound {
                from_step,
                to_step,
                data_index,
                lost_samples,
                history,
            } => {
                emit!(Rewound {
                    run,
                    from_step,
                    to_step,
                    data_index,
                    lost_samples,
                    history
                })
            }
            Event::Configured { total_steps } => emit!(Configured { run, total_steps }),
            Event::SpecSealed { spec_hash } => emit!(SpecSealed { run, spec_hash }),
        }
    }
}
