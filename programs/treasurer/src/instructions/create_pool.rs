//! `create_pool(args)`: a creator registers a run whose authority is a new pool.
//!
//! The run state's account signs, as `create_run` wants: that also keeps everybody else from the pool's address.

use anchor_lang::prelude::*;
use anchor_spl::associated_token::AssociatedToken;
use anchor_spl::token_interface::{Mint, TokenAccount, TokenInterface};
use coordinator::program::Coordinator;
use coordinator::CreateRunArgs;

use crate::events::PoolCreated;
use crate::mint::check_mint;
use crate::{Pool, SEED_POOL};

#[derive(Accounts)]
pub struct CreatePool<'info> {
    #[account(mut)]
    pub payer: Signer<'info>,
    /// The run's creator, and the pool's authority.
    pub authority: Signer<'info>,
    #[account(
        init,
        payer = payer,
        space = 8 + Pool::INIT_SPACE,
        seeds = [SEED_POOL, run_state.key().as_ref()],
        bump
    )]
    pub pool: Box<Account<'info, Pool>>,
    /// `check_mint` refuses extensions that could keep a member from its pay.
    #[account(mint::token_program = token_program)]
    pub mint: Box<InterfaceAccount<'info, Mint>>,
    /// Anybody may have created it before; it is the pool's all the same.
    #[account(
        init_if_needed,
        payer = payer,
        associated_token::mint = mint,
        associated_token::authority = pool,
        associated_token::token_program = token_program
    )]
    pub vault: Box<InterfaceAccount<'info, TokenAccount>>,
    /// CHECK: `create_run` creates it and checks its address.
    #[account(mut)]
    pub run: UncheckedAccount<'info>,
    /// CHECK: `create_run` checks it.
    #[account(mut, signer)]
    pub run_state: UncheckedAccount<'info>,
    /// CHECK: `create_run` creates it and checks its address.
    #[account(mut)]
    pub spec: UncheckedAccount<'info>,
    pub coordinator_program: Program<'info, Coordinator>,
    pub token_program: Interface<'info, TokenInterface>,
    pub associated_token_program: Program<'info, AssociatedToken>,
    pub system_program: Program<'info, System>,
}

pub(crate) fn handler(ctx: Context<CreatePool>, mut args: CreateRunArgs) -> Result<()> {
    let accounts = ctx.accounts;
    check_mint(&accounts.mint.to_account_info())?;
    let pool = accounts.pool.key();
    args.authority = pool;
    accounts.pool.set_inner(Pool {
        run_state: accounts.run_state.key(),
        run: accounts.run.key(),
        authority: accounts.authority.key(),
        mint: accounts.mint.key(),
        vault: accounts.vault.key(),
        paid: 0,
        withdrawn: 0,
        created_slot: Clock::get()?.slot,
        total_earned: 0,
        bump: ctx.bumps.pool,
    });
    emit!(PoolCreated {
        pool,
        run: accounts.run.key(),
        authority: accounts.authority.key(),
        mint: accounts.mint.key(),
    });
    let create_run = coordinator::cpi::accounts::CreateRun {
        payer: accounts.payer.to_account_info(),
        creator: accounts.authority.to_account_info(),
        run: accounts.run.to_account_info(),
        run_state: accounts.run_state.to_account_info(),
        spec: accounts.spec.to_account_info(),
        system_program: accounts.system_program.to_account_info(),
    };
    coordinator::cpi::create_run(
        CpiContext::new(accounts.coordinator_program.key(), create_run),
        args,
    )
}
