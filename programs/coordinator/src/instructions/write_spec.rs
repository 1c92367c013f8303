//! `write_spec(offset, bytes)`: one piece of the specification, in any order that leaves no gap.

use anchor_lang::prelude::*;
use anchor_lang::system_program::{transfer, Transfer};

use crate::account::{Run, Spec};
use crate::bounded::Bytes;
use crate::CoordinatorError;

#[derive(Accounts)]
pub struct WriteSpec<'info> {
    /// Pays the rent of what the account grows by.
    #[account(mut)]
    pub payer: Signer<'info>,
    pub authority: Signer<'info>,
    #[account(
        has_one = authority @ CoordinatorError::WrongAuthority,
        has_one = run_state @ CoordinatorError::WrongRunState
    )]
    pub run: Box<Account<'info, Run>>,
    /// CHECK: named by the run; not read.
    pub run_state: UncheckedAccount<'info>,
    #[account(
        mut,
        has_one = run @ CoordinatorError::WrongSpec,
        constraint = !spec.sealed @ CoordinatorError::SpecSealed
    )]
    pub spec: Box<Account<'info, Spec>>,
    pub system_program: Program<'info, System>,
}

pub(crate) fn handler(ctx: Context<WriteSpec>, offset: u32, bytes: Bytes) -> Result<()> {
    let written = ctx.accounts.spec.len;
    let end = u32::try_from(bytes.len())
        .ok()
        .and_then(|n| offset.checked_add(n));
    let end = end
        .filter(|end| *end <= ctx.accounts.run.spec_len)
        .ok_or(CoordinatorError::SpecTooLong)?;
    require!(offset <= written, CoordinatorError::SpecGap);
    let len = end.max(written);
    grow(&ctx, len)?;
    ctx.accounts.spec.len = len;
    let info = ctx.accounts.spec.to_account_info();
    let mut data = info.try_borrow_mut_data()?;
    let from = Spec::HEAD.saturating_add(to_usize(offset));
    let to = Spec::HEAD.saturating_add(to_usize(end));
    data.get_mut(from..to)
        .ok_or(CoordinatorError::SpecTooLong)?
        .copy_from_slice(&bytes);
    Ok(())
}

/// Makes room for `len` bytes and lets the payer bring what is missing for the rent.
fn grow(ctx: &Context<WriteSpec>, len: u32) -> Result<()> {
    let info = ctx.accounts.spec.to_account_info();
    let size = Spec::HEAD.saturating_add(to_usize(len));
    if size <= info.data_len() {
        return Ok(());
    }
    let missing = Rent::get()?
        .minimum_balance(size)
        .saturating_sub(info.lamports());
    if missing > 0 {
        let accounts = Transfer {
            from: ctx.accounts.payer.to_account_info(),
            to: info.clone(),
        };
        transfer(
            CpiContext::new(ctx.accounts.system_program.key(), accounts),
            missing,
        )?;
    }
    Ok(info.resize(size)?)
}

fn to_usize(n: u32) -> usize {
    n as usize // 32 bits at least, on the host and on chain
}
