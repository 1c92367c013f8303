//! `close_membership()`: a wallet takes the rent of its membership back.
//!
//! Refused while the run lives and the wallet has a slot or has earned something: what was earned must outlast what
//! was claimed against it. A membership of an earlier run at the same address closes at any time.

use anchor_lang::prelude::*;

use crate::account::{is_log, owns_slot, with_state, Membership};
use crate::events::MembershipClosed;
use crate::CoordinatorError;

#[derive(Accounts)]
pub struct CloseMembership<'info> {
    #[account(mut)]
    pub wallet: Signer<'info>,
    /// CHECK: named by the membership; no longer this program's once the run is closed, `with_state` reads it until then.
    pub run_state: UncheckedAccount<'info>,
    #[account(
        mut,
        has_one = wallet @ CoordinatorError::WrongMember,
        has_one = run_state @ CoordinatorError::WrongRunState,
        close = wallet
    )]
    pub membership: Box<Account<'info, Membership>>,
}

pub(crate) fn handler(ctx: Context<CloseMembership>) -> Result<()> {
    let membership = &ctx.accounts.membership;
    if is_log(&ctx.accounts.run_state)? {
        with_state(&ctx.accounts.run_state, |s| {
            let current = membership.created_slot == s.header.created_slot;
            require!(
                !current || membership.earned == 0,
                CoordinatorError::MembershipEarned
            );
            require!(!owns_slot(s, membership), CoordinatorError::MembershipInUse);
            Ok(())
        })?;
    }
    emit!(MembershipClosed {
        run_state: membership.run_state,
        wallet: membership.wallet
    });
    Ok(())
}
