//! `seal_spec()`: the bytes are complete and hash to what was announced; the log names the hash from now on.

use anchor_lang::prelude::*;
use solana_sha256_hasher::hash;

use crate::account::{with_state, Run, Spec};
use crate::events::Emitter;
use crate::machine;
use crate::CoordinatorError;

#[derive(Accounts)]
pub struct SealSpec<'info> {
    pub authority: Signer<'info>,
    #[account(
        has_one = authority @ CoordinatorError::WrongAuthority,
        has_one = run_state @ CoordinatorError::WrongRunState
    )]
    pub run: Box<Account<'info, Run>>,
    /// CHECK: named by the run; `with_state` checks owner, discriminator, version and size.
    #[account(mut)]
    pub run_state: UncheckedAccount<'info>,
    #[account(
        mut,
        has_one = run @ CoordinatorError::WrongSpec,
        constraint = !spec.sealed @ CoordinatorError::SpecSealed
    )]
    pub spec: Box<Account<'info, Spec>>,
}

pub(crate) fn handler(ctx: Context<SealSpec>) -> Result<()> {
    let run = &ctx.accounts.run;
    require!(
        ctx.accounts.spec.len == run.spec_len,
        CoordinatorError::SpecIncomplete
    );
    let digest = {
        let info = ctx.accounts.spec.to_account_info();
        let data = info.try_borrow_data()?;
        let end = Spec::HEAD.saturating_add(run.spec_len as usize);
        hash(
            data.get(Spec::HEAD..end)
                .ok_or(CoordinatorError::SpecIncomplete)?,
        )
        .to_bytes()
    };
    require!(digest == run.spec_sha256, CoordinatorError::SpecHashDiffers);
    let env = crate::clock::env_without_hash()?;
    with_state(&ctx.accounts.run_state, |s| {
        let mut sink = Emitter::new(s.header);
        machine::seal_spec(s, &env, &digest, &mut sink).map_err(CoordinatorError::from)?;
        Ok(())
    })?;
    ctx.accounts.spec.sealed = true;
    Ok(())
}
