//! The one door to a `RunState`: every instruction that reads or changes the log comes through here.

use anchor_lang::prelude::*;

use crate::account::Membership;
use crate::state::{self, State};
use crate::CoordinatorError;

/// Address of the sysvar that holds the hashes of recent slots.
pub const SLOT_HASHES_ID: Pubkey = pubkey!("SysvarS1otHashes111111111111111111111111111");
/// Address of the sysvar that holds the instructions of the running transaction.
pub const INSTRUCTIONS_ID: Pubkey = pubkey!("Sysvar1nstructions1111111111111111111111111");
/// SHA-256 of `account:RunState`, first eight bytes: how a log's account begins.
#[constant]
pub const RUN_STATE_DISCRIMINATOR: [u8; 8] = [196, 228, 198, 184, 77, 229, 44, 21];

/// Rounds that a log keeps.
#[constant]
pub const RUN_STATE_RING: u8 = state::RING as u8;
/// Most slots of a log.
#[constant]
pub const RUN_STATE_MAX_CAPACITY: u16 = state::MAX_CAPACITY as u16;
/// Most witnesses of a round.
#[constant]
pub const RUN_STATE_MAX_WITNESSES: u8 = state::MAX_WITNESSES as u8;
/// Longest uri of a checkpoint, in bytes.
#[constant]
pub const RUN_STATE_MAX_URI: u8 = state::MAX_URI as u8;
/// The layout that this program reads and writes.
#[constant]
pub const RUN_STATE_VERSION: u64 = state::VERSION;

/// Borrows the log in `info` for `f`.
///
/// # Errors
/// `WrongRunState` if the account is not this program's, or is none of its logs; what the layout refuses (version,
/// size); what `f` returns.
pub fn with_state<T>(info: &AccountInfo, f: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
    require_keys_eq!(*info.owner, crate::ID, CoordinatorError::WrongRunState);
    let mut data = info.try_borrow_mut_data()?;
    let (discriminator, body) = data
        .split_first_chunk_mut::<8>()
        .ok_or(CoordinatorError::WrongRunState)?;
    require!(
        *discriminator == RUN_STATE_DISCRIMINATOR,
        CoordinatorError::WrongRunState
    );
    let mut state = State::from_bytes(body).map_err(CoordinatorError::from)?;
    f(&mut state)
}

/// Whether the account is a log of this program. Once a run is closed, whoever holds the key of its log may put anything
/// at the address, also an account of this program that nobody made a log of.
pub fn is_log(info: &AccountInfo) -> Result<bool> {
    let data = info.try_borrow_data()?;
    Ok(*info.owner == crate::ID && data.starts_with(&RUN_STATE_DISCRIMINATOR))
}

/// Whether the table still gives the membership's slot to its wallet.
pub fn owns_slot(s: &State, membership: &Membership) -> bool {
    let slot = s.slots.get(usize::from(membership.slot));
    slot.is_some_and(|slot| !slot.is_free() && slot.wallet == membership.wallet.to_bytes())
}
