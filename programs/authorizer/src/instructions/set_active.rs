//! `set_active(active)`: the grantor grants or revokes.

use anchor_lang::prelude::*;

use crate::{events, Authorization, AuthorizerError};

#[derive(Accounts)]
pub struct SetActive<'info> {
    pub grantor: Signer<'info>,
    #[account(mut, has_one = grantor @ AuthorizerError::WrongGrantor)]
    pub authorization: Account<'info, Authorization>,
}

pub(crate) fn handler(ctx: Context<SetActive>, active: bool) -> Result<()> {
    ctx.accounts.authorization.active = active;
    emit!(events::ActiveSet {
        authorization: ctx.accounts.authorization.key(),
        active
    });
    Ok(())
}
