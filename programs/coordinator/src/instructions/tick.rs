//! `tick()`: anybody makes the transitions that are due, at most four.
//!
//! A transaction of which this is a part can still be failed by a later instruction of its own, at the price of
//! its fee; a program that calls this one cannot look at the seed first, because that call is refused.

use anchor_lang::prelude::*;

use crate::account::{with_state, SLOT_HASHES_ID};
use crate::clock::{called_by_program, env};
use crate::events::Emitter;
use crate::machine;
use crate::CoordinatorError;

#[derive(Accounts)]
pub struct Tick<'info> {
    /// CHECK: `with_state` checks owner, discriminator, version and size.
    #[account(mut)]
    pub run_state: UncheckedAccount<'info>,
    /// CHECK: the sysvar, by its address.
    #[account(address = SLOT_HASHES_ID @ CoordinatorError::WrongSlotHashes)]
    pub slot_hashes: UncheckedAccount<'info>,
}

pub(crate) fn handler(ctx: Context<Tick>) -> Result<()> {
    require!(!called_by_program(), CoordinatorError::TickFromProgram);
    let env = env(&ctx.accounts.slot_hashes)?;
    with_state(&ctx.accounts.run_state, |s| {
        let mut sink = Emitter::new(s.header);
        let transitions = machine::tick(s, &env, &mut sink).map_err(CoordinatorError::from)?;
        require!(transitions > 0, CoordinatorError::NothingDue);
        Ok(())
    })
}
