//! `leave(slot)`: a member goes in good order: not assigned from the next round on, and still paid.

use anchor_lang::prelude::*;

use crate::machine;
use crate::Duty;

pub(crate) fn handler(ctx: Context<Duty>, slot: u16) -> Result<()> {
    ctx.accounts
        .act(|s, signer, sink| machine::leave(s, slot, signer, sink))
}
