//! `Membership`: what one wallet is in one run, across everything that its slot in the table goes through.

use anchor_lang::prelude::*;

use crate::CoordinatorError;

/// First seed of a membership's address; then the `RunState` and the wallet.
#[constant]
pub const SEED_MEMBER: &[u8] = b"member";
/// Longest contact, in bytes.
#[constant]
pub const MAX_CONTACT: u16 = 128;

/// Keyed by the `RunState`, which is fresh for every run, and dated, so that old earnings never meet a new vault.
#[account]
#[derive(InitSpace, Debug)]
pub struct Membership {
    pub run_state: Pubkey,
    pub wallet: Pubkey,
    /// Signs the duties besides the wallet.
    pub hot_key: Pubkey,
    /// ed25519 key of the member's libp2p identity, unique in the run.
    pub p2p_key: [u8; 32],
    pub tier: u8,
    pub weight: u16,
    /// Position in the table; the wallet's only while the table says so too.
    pub slot: u16,
    pub bump: u8,
    /// Settled pay of all epochs, in points.
    pub earned: u64,
    /// Epoch of the last join.
    pub last_epoch: u64,
    /// `created_slot` of the run that was joined: an earlier run at the same address had another.
    pub created_slot: u64,
    /// Comma-separated multiaddrs.
    #[max_len(128)]
    pub contact: String,
    /// The authorization that admitted the member; the zero key in a run that was open then.
    pub authorization: Pubkey,
}

/// Checks a contact's length.
///
/// # Errors
/// `ContactTooLong`.
pub fn check_contact(contact: &str) -> Result<()> {
    require!(
        contact.len() <= usize::from(MAX_CONTACT),
        CoordinatorError::ContactTooLong
    );
    Ok(())
}
