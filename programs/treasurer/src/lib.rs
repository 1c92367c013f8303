//! The pool that pays the members of a run.
//!
//! A pool is the authority of its run, so its own authority steers the run through `update_pool`. Members are paid
//! what the coordinator says that they earned: 1 point is 1 base unit of the pool's token. Funding is a plain
//! transfer into the vault, by anybody.

// Anchor's own macros expand to code that trips over these two.
#![allow(clippy::result_large_err, clippy::diverging_sub_expression)]
#![deny(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::indexing_slicing
)]

use anchor_lang::prelude::*;
use coordinator::CreateRunArgs;

pub mod bounded;
pub mod error;
pub mod events;
pub mod instructions;
pub mod mint;
pub mod state;
pub mod vault;

pub use error::TreasurerError;
pub use instructions::*;
pub use state::*;

declare_id!("6aE5ZjrM2mxKZMkdWwKJq6HAThjCy3vvBedea1eLexYR");

include!("../../authorizer/src/security_txt.rs");

/// The treasurer program.
#[program]
pub mod treasurer {
    use super::*;

    /// Creates a run that the new pool owns; `args.authority` is ignored.
    pub fn create_pool(ctx: Context<CreatePool>, args: CreateRunArgs) -> Result<()> {
        instructions::create_pool::handler(ctx, args)
    }

    /// Does one of the authority's instructions on the run in the pool's name.
    pub fn update_pool(ctx: Context<UpdatePool>, action: PoolAction) -> Result<()> {
        instructions::update_pool::handler(ctx, action)
    }

    /// Pays a member what it earned and was not paid yet, as far as the vault reaches.
    pub fn claim(ctx: Context<ClaimPay>) -> Result<()> {
        instructions::claim::handler(ctx)
    }

    /// Returns the rent of a claim to its wallet, once the pool is closed.
    pub fn close_claim(ctx: Context<CloseClaim>) -> Result<()> {
        instructions::close_claim::handler(ctx)
    }

    /// Closes the run, withdraws what no member is owed, and closes the pool once nobody can be paid any more.
    pub fn close_pool(ctx: Context<ClosePool>) -> Result<()> {
        instructions::close_pool::handler(ctx)
    }
}
