//! `set_limits(max_weight, min_tier)`: the grantor changes what may be declared on joining.

use anchor_lang::prelude::*;

use crate::{events, Authorization, AuthorizerError};

#[derive(Accounts)]
pub struct SetLimits<'info> {
    pub grantor: Signer<'info>,
    #[account(mut, has_one = grantor @ AuthorizerError::WrongGrantor)]
    pub authorization: Account<'info, Authorization>,
}

pub(crate) fn handler(ctx: Context<SetLimits>, max_weight: u16, min_tier: u8) -> Result<()> {
    require!(max_weight > 0, AuthorizerError::ZeroWeight);
    let authorization = &mut ctx.accounts.authorization;
    authorization.max_weight = max_weight;
    authorization.min_tier = min_tier;
    emit!(events::LimitsSet {
        authorization: authorization.key(),
        max_weight,
        min_tier
    });
    Ok(())
}
