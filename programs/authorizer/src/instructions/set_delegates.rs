//! `set_delegates(add, clear)`: the grantee says who may use its authorization besides itself.

use anchor_lang::prelude::*;

use crate::bounded::Keys;
use crate::{events, Authorization, AuthorizerError, MAX_DELEGATES};

#[derive(Accounts)]
#[instruction(add: Keys, clear: bool)]
pub struct SetDelegates<'info> {
    /// Pays for growth and gets back what shrinking frees.
    #[account(mut)]
    pub payer: Signer<'info>,
    pub grantee: Signer<'info>,
    #[account(
        mut,
        has_one = grantee @ AuthorizerError::WrongGrantee,
        realloc = Authorization::space(
            authorization.scope.len(),
            kept(&authorization, clear).saturating_add(add.len()),
        ),
        realloc::payer = payer,
        realloc::zero = false
    )]
    pub authorization: Account<'info, Authorization>,
    pub system_program: Program<'info, System>,
}

fn kept(authorization: &Authorization, clear: bool) -> usize {
    if clear {
        0
    } else {
        authorization.delegates.len()
    }
}

pub(crate) fn handler(ctx: Context<SetDelegates>, add: Keys, clear: bool) -> Result<()> {
    let authorization = &mut ctx.accounts.authorization;
    let total = kept(authorization, clear).saturating_add(add.len());
    require!(
        total <= usize::from(MAX_DELEGATES),
        AuthorizerError::TooManyDelegates
    );
    if clear {
        authorization.delegates.clear();
    }
    for key in add.into_inner() {
        require!(
            !authorization.covers(&key),
            AuthorizerError::DuplicateDelegate
        );
        authorization.delegates.push(key);
    }
    emit!(events::DelegatesSet {
        authorization: authorization.key(),
        num_delegates: u32::try_from(total).unwrap_or(u32::MAX),
    });
    Ok(())
}
