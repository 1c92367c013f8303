//! Who may do what in whose name.
//!
//! A grantor writes down that a grantee may act within a scope, up to limits; the grantee may pass that on to
//! delegates. Other programs read the [`Authorization`] account and decide for themselves what a scope means:
//! the coordinator asks for the scope `CoordinatorJoinRun` of a run's join authority.

// Anchor's own macros expand to code that trips over these two.
#![allow(clippy::result_large_err, clippy::diverging_sub_expression)]
#![deny(
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::indexing_slicing
)]

use anchor_lang::prelude::*;

pub mod bounded;
pub mod error;
pub mod events;
pub mod instructions;
pub mod state;

use bounded::{Bytes, Keys};
pub use error::AuthorizerError;
pub use instructions::*;
pub use state::*;

declare_id!("DTrPTpHVse5cCM49ZXVZ741caG5Zqn9HfspeQmosFR7M");

include!("security_txt.rs");

/// The authorizer program.
#[program]
pub mod authorizer {
    use super::*;

    /// Writes an authorization down, inactive until the grantor says `set_active`.
    pub fn create(
        ctx: Context<Create>,
        grantee: Pubkey,
        scope: Bytes,
        max_weight: u16,
        min_tier: u8,
    ) -> Result<()> {
        instructions::create::handler(ctx, grantee, scope, max_weight, min_tier)
    }

    /// Grants or revokes: what depends on the authorization ends with it.
    pub fn set_active(ctx: Context<SetActive>, active: bool) -> Result<()> {
        instructions::set_active::handler(ctx, active)
    }

    /// Changes the largest weight and the lowest tier number that are allowed.
    pub fn set_limits(ctx: Context<SetLimits>, max_weight: u16, min_tier: u8) -> Result<()> {
        instructions::set_limits::handler(ctx, max_weight, min_tier)
    }

    /// Clears the delegates if asked to, then adds some. At most 64 in all.
    pub fn set_delegates(ctx: Context<SetDelegates>, add: Keys, clear: bool) -> Result<()> {
        instructions::set_delegates::handler(ctx, add, clear)
    }

    /// Ends an inactive authorization that has no delegates or is thirty days old.
    pub fn close(ctx: Context<Close>) -> Result<()> {
        instructions::close::handler(ctx)
    }
}
