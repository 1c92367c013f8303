//! `commit(slot, round, hash)`: a member records its blob's hash before anybody can fetch the blob.

use anchor_lang::prelude::*;

use crate::machine;
use crate::Duty;

pub(crate) fn handler(ctx: Context<Duty>, slot: u16, round: u64, hash: [u8; 32]) -> Result<()> {
    ctx.accounts
        .act(|s, signer, _sink| machine::commit(s, slot, signer, round, &hash))
}
