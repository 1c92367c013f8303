//! `set_authority(authority)`: the authority hands the run over.

use anchor_lang::prelude::*;

use crate::account::Run;
use crate::events::AuthoritySet;
use crate::CoordinatorError;

#[derive(Accounts)]
pub struct SetAuthority<'info> {
    pub authority: Signer<'info>,
    #[account(mut, has_one = authority @ CoordinatorError::WrongAuthority)]
    pub run: Box<Account<'info, Run>>,
}

pub(crate) fn handler(ctx: Context<SetAuthority>, authority: Pubkey) -> Result<()> {
    require_keys_neq!(
        authority,
        Pubkey::default(),
        CoordinatorError::AuthorityMissing
    );
    ctx.accounts.run.authority = authority;
    emit!(AuthoritySet {
        run: ctx.accounts.run.key(),
        authority
    });
    Ok(())
}
