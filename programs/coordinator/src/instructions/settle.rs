//! `settle()`: anybody moves what a slot earned into its member's account, and frees the slot if the member is gone.
//!
//! Nothing happens when the slot is another's by now: it was settled before it was freed. So a claim can always
//! settle first.

use anchor_lang::prelude::*;

use crate::account::{with_state, Membership};
use crate::events::Settled;
use crate::machine;
use crate::CoordinatorError;

#[derive(Accounts)]
pub struct Settle<'info> {
    /// CHECK: named by the membership; `with_state` checks owner, discriminator, version and size.
    #[account(mut)]
    pub run_state: UncheckedAccount<'info>,
    #[account(mut, has_one = run_state @ CoordinatorError::WrongRunState)]
    pub membership: Box<Account<'info, Membership>>,
}

pub(crate) fn handler(ctx: Context<Settle>) -> Result<()> {
    let membership = &mut ctx.accounts.membership;
    with_state(&ctx.accounts.run_state, |s| {
        let wallet = membership.wallet.to_bytes();
        let settled =
            machine::settle(s, membership.slot, &wallet).map_err(CoordinatorError::from)?;
        membership.earned = membership
            .earned
            .checked_add(settled.moved)
            .ok_or(CoordinatorError::Overflow)?;
        emit!(Settled {
            run: Pubkey::from(s.header.run),
            wallet: membership.wallet,
            slot: membership.slot,
            moved: settled.moved,
            earned: membership.earned,
            freed: settled.freed,
        });
        Ok(())
    })
}
