//! `attest_checkpoint(slot, step, digests)`: a member vouches for the parts of the weights that it holds.

use anchor_lang::prelude::*;

use crate::bounded::Digests;
use crate::machine;
use crate::Duty;

pub(crate) fn handler(ctx: Context<Duty>, slot: u16, step: u64, digests: Digests) -> Result<()> {
    ctx.accounts
        .act(|s, signer, sink| machine::attest_checkpoint(s, slot, signer, step, &digests, sink))
}
