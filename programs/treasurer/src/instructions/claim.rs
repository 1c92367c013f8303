//! `claim()`: pays a member what it earned and was not paid yet.
//!
//! Anybody may ask for it: the money goes to the wallet's own associated token account, and a member that never
//! comes back cannot keep a pool from closing. It works after the run was closed too: by then all pay was settled into
//! the memberships.

use anchor_lang::prelude::*;
use anchor_spl::associated_token::AssociatedToken;
use anchor_spl::token_interface::{
    transfer_checked, Mint, TokenAccount, TokenInterface, TransferChecked,
};
use coordinator::program::Coordinator;
use coordinator::Membership;

use crate::events::Claimed;
use crate::{payment, vault, Claim, Pool, TreasurerError, SEED_CLAIM, SEED_POOL};

#[derive(Accounts)]
pub struct ClaimPay<'info> {
    /// Pays for the claim and the token account, where they are new.
    #[account(mut)]
    pub payer: Signer<'info>,
    /// CHECK: who is paid: named by the membership, in the claim's seeds, owner of the token account.
    pub wallet: UncheckedAccount<'info>,
    #[account(
        mut,
        seeds = [SEED_POOL, pool.run_state.as_ref()],
        bump = pool.bump,
        has_one = run_state @ TreasurerError::WrongRunState,
        has_one = run @ TreasurerError::WrongRun,
        has_one = mint @ TreasurerError::WrongMint,
        has_one = vault @ TreasurerError::WrongVault
    )]
    pub pool: Box<Account<'info, Pool>>,
    /// CHECK: named by the pool; may be closed.
    pub run: UncheckedAccount<'info>,
    /// CHECK: named by the pool; may be closed, else the coordinator checks the rest.
    #[account(mut)]
    pub run_state: UncheckedAccount<'info>,
    #[account(
        mut,
        has_one = wallet @ TreasurerError::WrongMembership,
        has_one = run_state @ TreasurerError::WrongMembership,
        constraint = membership.created_slot == pool.created_slot @ TreasurerError::WrongMembership
    )]
    pub membership: Box<Account<'info, Membership>>,
    #[account(
        init_if_needed,
        payer = payer,
        space = 8 + Claim::INIT_SPACE,
        seeds = [SEED_CLAIM, pool.key().as_ref(), wallet.key().as_ref()],
        bump
    )]
    pub claim: Box<Account<'info, Claim>>,
    #[account(mint::token_program = token_program)]
    pub mint: Box<InterfaceAccount<'info, Mint>>,
    #[account(mut)]
    pub vault: Box<InterfaceAccount<'info, TokenAccount>>,
    #[account(
        init_if_needed,
        payer = payer,
        associated_token::mint = mint,
        associated_token::authority = wallet,
        associated_token::token_program = token_program
    )]
    pub wallet_token: Box<InterfaceAccount<'info, TokenAccount>>,
    pub coordinator_program: Program<'info, Coordinator>,
    pub token_program: Interface<'info, TokenInterface>,
    pub associated_token_program: Program<'info, AssociatedToken>,
    pub system_program: Program<'info, System>,
}

pub(crate) fn handler(ctx: Context<ClaimPay>) -> Result<()> {
    let a = ctx.accounts;
    if a.pool.run_lives() {
        let settle = coordinator::cpi::accounts::Settle {
            run_state: a.run_state.to_account_info(),
            membership: a.membership.to_account_info(),
        };
        coordinator::cpi::settle(CpiContext::new(a.coordinator_program.key(), settle))?;
        a.membership.reload()?;
    }
    if a.claim.created_slot != a.pool.created_slot {
        a.claim.claimed = 0;
    }
    vault::count(&mut a.vault, &a.token_program)?;
    let payment = payment(a.membership.earned, a.claim.claimed, a.vault.amount);
    a.claim.pool = a.pool.key();
    a.claim.wallet = a.wallet.key();
    a.claim.created_slot = a.pool.created_slot;
    a.claim.bump = ctx.bumps.claim;
    a.claim.claimed = a
        .claim
        .claimed
        .checked_add(payment.amount)
        .ok_or(TreasurerError::Overflow)?;
    a.pool.paid = a
        .pool
        .paid
        .checked_add(payment.amount)
        .ok_or(TreasurerError::Overflow)?;
    if payment.amount > 0 {
        pay(a, payment.amount)?;
    }
    emit!(Claimed {
        pool: a.pool.key(),
        wallet: a.wallet.key(),
        amount: payment.amount,
        still_owed: payment.still_owed,
    });
    Ok(())
}

fn pay(a: &ClaimPay, amount: u64) -> Result<()> {
    let run_state = a.run_state.key();
    let seeds: &[&[&[u8]]] = &[&[SEED_POOL, run_state.as_ref(), &[a.pool.bump]]];
    let transfer = TransferChecked {
        from: a.vault.to_account_info(),
        mint: a.mint.to_account_info(),
        to: a.wallet_token.to_account_info(),
        authority: a.pool.to_account_info(),
    };
    let context = CpiContext::new_with_signer(a.token_program.key(), transfer, seeds);
    transfer_checked(context, amount, a.mint.decimals)
}
