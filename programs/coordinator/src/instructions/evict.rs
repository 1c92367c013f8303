//! `evict()`: anybody ends the presence of a member that could not join any more as it did.

use anchor_lang::prelude::*;

use crate::account::{
    with_authorization, with_state, Membership, Run, INSTRUCTIONS_ID, SLOT_HASHES_ID,
};
use crate::admission::check_admission;
use crate::clock::{env, tick_if_last};
use crate::events::Emitter;
use crate::machine;
use crate::CoordinatorError;

#[derive(Accounts)]
pub struct Evict<'info> {
    #[account(has_one = run_state @ CoordinatorError::WrongRunState)]
    pub run: Box<Account<'info, Run>>,
    /// CHECK: named by the run; `with_state` checks owner, discriminator, version and size.
    #[account(mut)]
    pub run_state: UncheckedAccount<'info>,
    #[account(mut, has_one = run_state @ CoordinatorError::WrongRunState)]
    pub membership: Box<Account<'info, Membership>>,
    /// CHECK: the one that admitted the member, by its address (the zero key if the run was open then). It may be
    /// closed, so it is read only if it still is the authorizer's.
    #[account(address = membership.authorization @ CoordinatorError::WrongAuthorization)]
    pub authorization: UncheckedAccount<'info>,
    /// CHECK: the sysvar, by its address.
    #[account(address = SLOT_HASHES_ID @ CoordinatorError::WrongSlotHashes)]
    pub slot_hashes: UncheckedAccount<'info>,
    /// CHECK: the sysvar, by its address.
    #[account(address = INSTRUCTIONS_ID @ CoordinatorError::WrongInstructions)]
    pub instructions: UncheckedAccount<'info>,
}

pub(crate) fn handler(ctx: Context<Evict>) -> Result<()> {
    let membership = &ctx.accounts.membership;
    require!(
        !still_admitted(&ctx.accounts.run, membership, &ctx.accounts.authorization),
        CoordinatorError::StillAuthorized
    );
    let env = env(&ctx.accounts.slot_hashes)?;
    with_state(&ctx.accounts.run_state, |s| {
        let mut sink = Emitter::new(s.header);
        machine::evict(s, membership.slot, &membership.wallet.to_bytes(), &mut sink)
            .map_err(CoordinatorError::from)?;
        tick_if_last(s, &env, &ctx.accounts.instructions, &mut sink)
    })
}

/// Whether the member could join today with the authorization that admitted it. An open run keeps everybody.
fn still_admitted(run: &Run, membership: &Membership, authorization: &AccountInfo) -> bool {
    if run.is_open() {
        return true;
    }
    with_authorization(authorization, |a| {
        check_admission(
            run,
            Some(a),
            &membership.wallet,
            membership.weight,
            membership.tier,
        )
    })
    .is_ok() // one that is closed admits nobody
}
