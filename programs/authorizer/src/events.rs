//! What the authorizer tells the world.

use anchor_lang::prelude::*;

/// An authorization was written down (inactive).
#[event]
pub struct Created {
    pub authorization: Pubkey,
    pub grantor: Pubkey,
    pub grantee: Pubkey,
    pub scope: Vec<u8>,
}

/// The grantor granted or revoked.
#[event]
pub struct ActiveSet {
    pub authorization: Pubkey,
    pub active: bool,
}

/// The grantor changed the limits.
#[event]
pub struct LimitsSet {
    pub authorization: Pubkey,
    pub max_weight: u16,
    pub min_tier: u8,
}

/// The grantee changed the delegates; this many are there now.
#[event]
pub struct DelegatesSet {
    pub authorization: Pubkey,
    pub num_delegates: u32,
}

/// The authorization is gone.
#[event]
pub struct Closed {
    pub authorization: Pubkey,
}
