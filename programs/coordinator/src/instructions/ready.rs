//! `ready(slot)`: a member has the model and data at hand and may be assigned work.

use anchor_lang::prelude::*;

use crate::machine;
use crate::Duty;

pub(crate) fn handler(ctx: Context<Duty>, slot: u16) -> Result<()> {
    ctx.accounts
        .act(|s, signer, _sink| machine::ready(s, slot, signer))
}
