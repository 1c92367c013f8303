//! `tick()`: anybody makes the transitions that are due, at most four.
//!
//! It is refused when another program calls it and when another instruction follows it in the transaction: either
//! could look at the new seed and fail, which would undo it.

use anchor_lang::prelude::*;

use crate::account::{with_state, INSTRUCTIONS_ID, SLOT_HASHES_ID};
use crate::clock::{called_by_program, env, is_last};
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
    /// CHECK: the sysvar, by its address.
    #[account(address = INSTRUCTIONS_ID @ CoordinatorError::WrongInstructions)]
    pub instructions: UncheckedAccount<'info>,
}

pub(crate) fn handler(ctx: Context<Tick>) -> Result<()> {
    require!(!called_by_program(), CoordinatorError::TickFromProgram);
    require!(
        is_last(&ctx.accounts.instructions)?,
        CoordinatorError::TickNotLast
    );
    let env = env(&ctx.accounts.slot_hashes)?;
    with_state(&ctx.accounts.run_state, |s| {
        let mut sink = Emitter::new(s.header);
        let transitions = machine::tick(s, &env, &mut sink).map_err(CoordinatorError::from)?;
        require!(transitions > 0, CoordinatorError::NothingDue);
        Ok(())
    })
}
