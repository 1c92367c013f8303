//! `set_round_rate(rate)`: what a closed round shares among its members, from the next epoch on.

use anchor_lang::prelude::*;

use crate::account::with_state;
use crate::events::RoundRateSet;
use crate::machine;
use crate::{Administer, CoordinatorError};

pub(crate) fn handler(ctx: Context<Administer>, rate: u64) -> Result<()> {
    with_state(&ctx.accounts.run_state, |s| {
        machine::set_round_rate(s, rate).map_err(CoordinatorError::from)?;
        emit!(RoundRateSet {
            run: ctx.accounts.run.key(),
            rate
        });
        Ok(())
    })
}
