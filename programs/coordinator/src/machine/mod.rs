//! The coordinator's rules: a pure state machine over [`State`], without accounts or Anchor types.
//!
//! Every function checks first and changes the state last, so after an error nothing has changed.
//! None of the actions ticks: the caller calls [`tick`] after an action that can make a phase due
//! (`join`, `ready`, `commit`, `witness`, `attest_checkpoint`, `record_checkpoint`, `leave`, `evict`).

#![deny(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod admin;
mod checkpoint;
mod close;
mod data;
mod duties;
mod election;
mod error;
mod events;
mod join;
mod open;
mod pay;
mod tick;

pub use admin::{
    check_closable, configure, is_halted, seal_spec, set_paused, set_round_rate, unseal_spec,
};
pub use checkpoint::{attest_checkpoint, record_checkpoint};
pub use duties::{commit, ready, witness};
pub(crate) use error::ensure;
pub use error::MachineError;
pub use events::{Event, Reason, Silent, Sink};
pub use join::{evict, join, leave, settle, JoinRequest, Settled};
pub use tick::{tick, MAX_TRANSITIONS};

use crate::state::{Slot, State};

/// What the machine may know of the world outside the account.
#[derive(Clone, Copy, Debug)]
pub struct Env {
    /// Unix time in seconds.
    pub now: i64,
    /// The newest entry of SlotHashes.
    pub slot_hash: [u8; 32],
}

/// Count a change.
pub(crate) fn touch(s: &mut State) {
    s.header.nonce = s.header.nonce.wrapping_add(1);
}

/// The slot, if `signer` may act for it.
pub(crate) fn signed<'a>(
    s: &'a State,
    slot: u16,
    signer: &[u8; 32],
) -> Result<&'a Slot, MachineError> {
    let place = s
        .slots
        .get(usize::from(slot))
        .ok_or(MachineError::NoSuchSlot)?;
    ensure(
        !place.is_free() && place.signs(signer),
        MachineError::WrongSigner,
    )?;
    Ok(place)
}

/// The slot's memory.
pub(crate) fn slot_mut<'a>(s: &'a mut State, slot: usize) -> Result<&'a mut Slot, MachineError> {
    s.slots.get_mut(slot).ok_or(MachineError::NoSuchSlot)
}
