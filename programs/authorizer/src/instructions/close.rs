//! `close()`: the grantor takes the rent of an authorization back.
//!
//! While delegates depend on it, it must first grow old: revoked, it is kept for 30 days as the record of why.

use anchor_lang::prelude::*;

use crate::{events, Authorization, AuthorizerError, CLOSE_AFTER_S};

#[derive(Accounts)]
pub struct Close<'info> {
    pub grantor: Signer<'info>,
    /// CHECK: receives the lamports; any account will do.
    #[account(mut)]
    pub recipient: UncheckedAccount<'info>,
    #[account(mut, has_one = grantor @ AuthorizerError::WrongGrantor, close = recipient)]
    pub authorization: Account<'info, Authorization>,
}

pub(crate) fn handler(ctx: Context<Close>) -> Result<()> {
    let authorization = &ctx.accounts.authorization;
    require!(!authorization.active, AuthorizerError::StillActive);
    let age_s = Clock::get()?
        .unix_timestamp
        .saturating_sub(authorization.created_at);
    require!(
        authorization.delegates.is_empty() || age_s >= CLOSE_AFTER_S,
        AuthorizerError::StillDelegated
    );
    emit!(events::Closed {
        authorization: authorization.key()
    });
    Ok(())
}
