//! `witness(slot, round, bitmap)`: a drawn witness says whose blobs of a round it holds, verified and decoded.

use anchor_lang::prelude::*;

use crate::machine;
use crate::state::bits::from_le_bytes;
use crate::Duty;

pub(crate) fn handler(ctx: Context<Duty>, slot: u16, round: u64, bitmap: [u8; 32]) -> Result<()> {
    ctx.accounts
        .act(|s, signer, _sink| machine::witness(s, slot, signer, round, &from_le_bytes(&bitmap)))
}
