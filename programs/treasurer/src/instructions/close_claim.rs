//! `close_claim()`: a wallet takes the rent of its claim back.
//!
//! Refused while the pool lives that the claim was paid by: what was claimed must be known as long as anything can be.

use anchor_lang::prelude::*;

use crate::events::ClaimClosed;
use crate::{Claim, Pool, TreasurerError};

#[derive(Accounts)]
pub struct CloseClaim<'info> {
    #[account(mut)]
    pub wallet: Signer<'info>,
    /// CHECK: named by the claim; read only if it still is this program's. Another pool may have taken its address.
    pub pool: UncheckedAccount<'info>,
    #[account(
        mut,
        has_one = wallet @ TreasurerError::WrongClaim,
        has_one = pool @ TreasurerError::WrongClaim,
        close = wallet
    )]
    pub claim: Account<'info, Claim>,
}

pub(crate) fn handler(ctx: Context<CloseClaim>) -> Result<()> {
    let (pool, claim) = (&ctx.accounts.pool, &ctx.accounts.claim);
    if *pool.owner == crate::ID {
        let pool = Pool::try_deserialize(&mut &pool.try_borrow_data()?[..])?;
        require!(
            pool.created_slot != claim.created_slot,
            TreasurerError::PoolLives
        );
    }
    emit!(ClaimClosed {
        pool: claim.pool,
        wallet: claim.wallet
    });
    Ok(())
}
