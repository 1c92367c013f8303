//! `create(grantee, scope, max_weight, min_tier)`: a grantor writes an authorization down, inactive.

use anchor_lang::prelude::*;

use crate::bounded::Bytes;
use crate::{events, scope_seed, Authorization, AuthorizerError, MAX_SCOPE, SEED_AUTHORIZATION};

#[derive(Accounts)]
#[instruction(grantee: Pubkey, scope: Bytes)]
pub struct Create<'info> {
    #[account(mut)]
    pub payer: Signer<'info>,
    /// Part of the seeds: nobody can write in another's name.
    pub grantor: Signer<'info>,
    #[account(
        init,
        payer = payer,
        space = Authorization::space(scope.len(), 0),
        seeds = [SEED_AUTHORIZATION, grantor.key().as_ref(), grantee.as_ref(), scope_seed(&scope)],
        bump
    )]
    pub authorization: Account<'info, Authorization>,
    pub system_program: Program<'info, System>,
}

pub(crate) fn handler(
    ctx: Context<Create>,
    grantee: Pubkey,
    scope: Bytes,
    max_weight: u16,
    min_tier: u8,
) -> Result<()> {
    require!(
        !scope.is_empty() && scope.len() <= usize::from(MAX_SCOPE),
        AuthorizerError::ScopeLength
    );
    require!(max_weight > 0, AuthorizerError::ZeroWeight);
    let grantor = ctx.accounts.grantor.key();
    emit!(events::Created {
        authorization: ctx.accounts.authorization.key(),
        grantor,
        grantee,
        scope: scope.to_vec()
    });
    ctx.accounts.authorization.set_inner(Authorization {
        grantor,
        grantee,
        active: false,
        max_weight,
        min_tier,
        bump: ctx.bumps.authorization,
        created_at: Clock::get()?.unix_timestamp,
        scope: scope.into(),
        delegates: Vec::new(),
    });
    Ok(())
}
