//! What the authority's instructions on a log share.

use anchor_lang::prelude::*;

use crate::account::Run;
use crate::CoordinatorError;

#[derive(Accounts)]
pub struct Administer<'info> {
    pub authority: Signer<'info>,
    #[account(
        has_one = authority @ CoordinatorError::WrongAuthority,
        has_one = run_state @ CoordinatorError::WrongRunState
    )]
    pub run: Box<Account<'info, Run>>,
    /// CHECK: named by the run; `with_state` checks owner, discriminator, version and size.
    #[account(mut)]
    pub run_state: UncheckedAccount<'info>,
}
