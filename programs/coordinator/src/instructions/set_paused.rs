//! `set_paused(paused)`: the authority halts a run in good order, or resumes it.

use anchor_lang::prelude::*;

use crate::account::with_state;
use crate::events::Emitter;
use crate::machine;
use crate::{Administer, CoordinatorError};

pub(crate) fn handler(ctx: Context<Administer>, paused: bool) -> Result<()> {
    let env = crate::clock::env_without_hash()?;
    with_state(&ctx.accounts.run_state, |s| {
        let mut sink = Emitter::new(s.header);
        machine::set_paused(s, &env, paused, &mut sink).map_err(CoordinatorError::from)?;
        Ok(())
    })
}
