//! `close_run()`: a halted run with nothing left to settle ends; every lamport goes to the recipient.

use anchor_lang::prelude::*;

use crate::account::{with_state, Run, Spec};
use crate::events::RunClosed;
use crate::machine;
use crate::CoordinatorError;

#[derive(Accounts)]
pub struct CloseRun<'info> {
    pub authority: Signer<'info>,
    /// CHECK: receives the lamports; any account but those that close.
    #[account(mut, constraint = recipient.key() != run_state.key() @ CoordinatorError::RecipientCloses)]
    pub recipient: UncheckedAccount<'info>,
    #[account(
        mut,
        has_one = authority @ CoordinatorError::WrongAuthority,
        has_one = run_state @ CoordinatorError::WrongRunState,
        close = recipient
    )]
    pub run: Box<Account<'info, Run>>,
    /// CHECK: named by the run; `with_state` checks owner, discriminator, version and size.
    #[account(mut)]
    pub run_state: UncheckedAccount<'info>,
    #[account(mut, has_one = run @ CoordinatorError::WrongSpec, close = recipient)]
    pub spec: Box<Account<'info, Spec>>,
}

pub(crate) fn handler(ctx: Context<CloseRun>) -> Result<()> {
    with_state(&ctx.accounts.run_state, |s| {
        machine::check_closable(s).map_err(CoordinatorError::from)?;
        // What is earned is dated by this slot: a later run at this address must have another.
        require!(
            s.header.total_earned == 0 || Clock::get()?.slot > s.header.created_slot,
            CoordinatorError::ClosedTooSoon
        );
        Ok(())
    })?;
    close(&ctx.accounts.run_state, &ctx.accounts.recipient)?;
    emit!(RunClosed {
        run: ctx.accounts.run.key(),
        run_state: ctx.accounts.run_state.key()
    });
    Ok(()) // `run` and `spec` close on the way out
}

/// Empties an account of this program as Anchor's `close` does for its own types.
fn close(info: &AccountInfo, recipient: &AccountInfo) -> Result<()> {
    let sum = recipient
        .lamports()
        .checked_add(info.lamports())
        .ok_or(CoordinatorError::Overflow)?;
    **recipient.try_borrow_mut_lamports()? = sum;
    **info.try_borrow_mut_lamports()? = 0;
    info.assign(&System::id());
    Ok(info.resize(0)?)
}
