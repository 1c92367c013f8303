//! `close_pool()`: the authority closes the run and takes out what no member is owed; the pool ends when nobody can be
//! paid any more.
//!
//! While members are owed something and the vault holds something, their part stays and so does the pool, without the
//! run: a member that cannot be paid does not hold its rent. Claim for them (anybody may), then close again. What was
//! earned but never funded does not keep a pool with an empty vault.

use anchor_lang::prelude::*;
use anchor_lang::AccountsClose;
use anchor_spl::token_interface::{
    close_account, transfer_checked, CloseAccount, Mint, TokenAccount, TokenInterface,
    TransferChecked,
};
use coordinator::machine::{check_closable, MachineError};
use coordinator::program::Coordinator;
use coordinator::with_state;

use crate::events::{PoolClosed, Withdrawn};
use crate::{vault, Pool, TreasurerError, SEED_POOL};

#[derive(Accounts)]
pub struct ClosePool<'info> {
    /// Receives the rent of run, run state and specification, and of pool and vault at the end.
    #[account(mut)]
    pub authority: Signer<'info>,
    #[account(
        mut,
        seeds = [SEED_POOL, pool.run_state.as_ref()],
        bump = pool.bump,
        has_one = run_state @ TreasurerError::WrongRunState,
        has_one = authority @ TreasurerError::WrongAuthority,
        has_one = run @ TreasurerError::WrongRun,
        has_one = mint @ TreasurerError::WrongMint,
        has_one = vault @ TreasurerError::WrongVault
    )]
    pub pool: Box<Account<'info, Pool>>,
    /// CHECK: named by the pool; the coordinator checks the rest, unless it is closed.
    #[account(mut)]
    pub run: UncheckedAccount<'info>,
    /// CHECK: named by the pool; `with_state` and the coordinator check the rest, unless it is closed.
    #[account(mut)]
    pub run_state: UncheckedAccount<'info>,
    /// CHECK: the coordinator checks that it is the run's.
    #[account(mut)]
    pub spec: UncheckedAccount<'info>,
    #[account(mint::token_program = token_program)]
    pub mint: Box<InterfaceAccount<'info, Mint>>,
    #[account(mut)]
    pub vault: Box<InterfaceAccount<'info, TokenAccount>>,
    /// Receives what no member is owed: any account of the token but the vault (Anchor
    /// refuses the same writable account twice).
    #[account(
        mut,
        token::mint = mint,
        token::token_program = token_program
    )]
    pub authority_token: Box<InterfaceAccount<'info, TokenAccount>>,
    pub coordinator_program: Program<'info, Coordinator>,
    pub token_program: Interface<'info, TokenInterface>,
}

pub(crate) fn handler(ctx: Context<ClosePool>) -> Result<()> {
    let a = ctx.accounts;
    if a.pool.run_lives() {
        a.pool.total_earned = final_earnings(&a.run_state)?;
        close_run(a)?;
    }
    vault::count(&mut a.vault, &a.token_program)?;
    let owed = a.pool.owed();
    let excess = a.vault.amount.saturating_sub(owed);
    let stays = a.vault.amount.saturating_sub(excess);
    if excess > 0 {
        withdraw(a, excess)?;
        a.pool.withdrawn = a
            .pool
            .withdrawn
            .checked_add(excess)
            .ok_or(TreasurerError::Overflow)?;
    }
    emit!(Withdrawn {
        pool: a.pool.key(),
        amount: excess,
        still_owed: owed
    });
    if stays == 0 {
        close_vault(a)?;
        a.pool.close(a.authority.to_account_info())?;
        emit!(PoolClosed {
            pool: a.pool.key(),
            run: a.run.key(),
            unpaid: owed
        });
    }
    Ok(())
}

fn withdraw(a: &ClosePool, amount: u64) -> Result<()> {
    let run_state = a.run_state.key();
    let seeds: &[&[&[u8]]] = &[&[SEED_POOL, run_state.as_ref(), &[a.pool.bump]]];
    let transfer = TransferChecked {
        from: a.vault.to_account_info(),
        mint: a.mint.to_account_info(),
        to: a.authority_token.to_account_info(),
        authority: a.pool.to_account_info(),
    };
    let context = CpiContext::new_with_signer(a.token_program.key(), transfer, seeds);
    transfer_checked(context, amount, a.mint.decimals)
}

/// All that members of a run that may be closed have earned.
fn final_earnings(run_state: &AccountInfo) -> Result<u64> {
    let (closable, total_earned) = with_state(run_state, |s| {
        Ok((check_closable(s), s.header.total_earned))
    })
    .map_err(|_| TreasurerError::RunStateUnreadable)?;
    closable.map_err(|refusal| match refusal {
        MachineError::NotHalted => TreasurerError::RunNotHalted,
        _ => TreasurerError::RunNotSettled,
    })?;
    Ok(total_earned)
}

fn close_run(a: &ClosePool) -> Result<()> {
    let run_state = a.run_state.key();
    let seeds: &[&[&[u8]]] = &[&[SEED_POOL, run_state.as_ref(), &[a.pool.bump]]];
    let run = coordinator::cpi::accounts::CloseRun {
        authority: a.pool.to_account_info(),
        recipient: a.authority.to_account_info(),
        run: a.run.to_account_info(),
        run_state: a.run_state.to_account_info(),
        spec: a.spec.to_account_info(),
    };
    coordinator::cpi::close_run(CpiContext::new_with_signer(
        a.coordinator_program.key(),
        run,
        seeds,
    ))
}

fn close_vault(a: &ClosePool) -> Result<()> {
    let run_state = a.run_state.key();
    let seeds: &[&[&[u8]]] = &[&[SEED_POOL, run_state.as_ref(), &[a.pool.bump]]];
    let vault = CloseAccount {
        account: a.vault.to_account_info(),
        destination: a.authority.to_account_info(),
        authority: a.pool.to_account_info(),
    };
    close_account(CpiContext::new_with_signer(
        a.token_program.key(),
        vault,
        seeds,
    ))
}
