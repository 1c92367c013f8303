//! What the treasurer tells the world.

use anchor_lang::prelude::*;

/// A pool owns a new run.
#[event]
pub struct PoolCreated {
    pub pool: Pubkey,
    pub run: Pubkey,
    pub authority: Pubkey,
    pub mint: Pubkey,
}

/// The pool changed hands.
#[event]
pub struct PoolAuthoritySet {
    pub pool: Pubkey,
    pub authority: Pubkey,
}

/// A member was paid; `still_owed` is what the vault could not cover.
#[event]
pub struct Claimed {
    pub pool: Pubkey,
    pub wallet: Pubkey,
    pub amount: u64,
    pub still_owed: u64,
}

/// A claim's rent went back to its wallet.
#[event]
pub struct ClaimClosed {
    pub pool: Pubkey,
    pub wallet: Pubkey,
}

/// The authority took out what no member is owed; `still_owed` stays for the members.
#[event]
pub struct Withdrawn {
    pub pool: Pubkey,
    pub amount: u64,
    pub still_owed: u64,
}

/// The pool is gone, and its run; `unpaid` was earned but never funded.
#[event]
pub struct PoolClosed {
    pub pool: Pubkey,
    pub run: Pubkey,
    pub unpaid: u64,
}
