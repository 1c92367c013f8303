//! `reset_spec(spec_len, spec_sha256)`: while the run is halted, announce another specification and write it anew.

use anchor_lang::prelude::*;

use crate::account::{with_state, Run, Spec};
use crate::create_run::check_spec_len;
use crate::events::{Emitter, SpecReset};
use crate::machine;
use crate::CoordinatorError;

#[derive(Accounts)]
pub struct ResetSpec<'info> {
    pub authority: Signer<'info>,
    #[account(
        mut,
        has_one = authority @ CoordinatorError::WrongAuthority,
        has_one = run_state @ CoordinatorError::WrongRunState
    )]
    pub run: Box<Account<'info, Run>>,
    /// CHECK: named by the run; `with_state` checks owner, discriminator, version and size.
    #[account(mut)]
    pub run_state: UncheckedAccount<'info>,
    #[account(mut, has_one = run @ CoordinatorError::WrongSpec)]
    pub spec: Box<Account<'info, Spec>>,
}

pub(crate) fn handler(ctx: Context<ResetSpec>, spec_len: u32, spec_sha256: [u8; 32]) -> Result<()> {
    check_spec_len(spec_len)?;
    let env = crate::clock::env_without_hash()?;
    with_state(&ctx.accounts.run_state, |s| {
        let mut sink = Emitter::new(s.header);
        machine::unseal_spec(s, &env, &mut sink).map_err(CoordinatorError::from)?;
        Ok(())
    })?;
    let run = &mut ctx.accounts.run;
    run.spec_len = spec_len;
    run.spec_sha256 = spec_sha256;
    let spec = &mut ctx.accounts.spec;
    spec.sealed = false;
    spec.len = 0;
    // The rent of what was there stays in the account: it pays for the pieces to come, or returns with `close_run`.
    spec.to_account_info().resize(Spec::HEAD)?;
    emit!(SpecReset {
        run: run.key(),
        spec_len,
        spec_sha256
    });
    Ok(())
}
