//! `update_contact(contact)`: a member says where it can be reached now.

use anchor_lang::prelude::*;

use crate::account::{check_contact, Membership};
use crate::bounded::Text;
use crate::events::ContactUpdated;
use crate::CoordinatorError;

#[derive(Accounts)]
pub struct UpdateContact<'info> {
    pub signer: Signer<'info>,
    #[account(
        mut,
        constraint = [membership.wallet, membership.hot_key].contains(signer.key) @ CoordinatorError::WrongMember
    )]
    pub membership: Box<Account<'info, Membership>>,
}

pub(crate) fn handler(ctx: Context<UpdateContact>, contact: Text) -> Result<()> {
    check_contact(&contact)?;
    let membership = &mut ctx.accounts.membership;
    membership.contact = contact.into();
    emit!(ContactUpdated {
        run_state: membership.run_state,
        wallet: membership.wallet
    });
    Ok(())
}
