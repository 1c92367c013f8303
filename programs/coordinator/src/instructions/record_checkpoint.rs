//! `record_checkpoint(slot, uri)`: the uploader says where the agreed weights can be fetched.

use anchor_lang::prelude::*;

use crate::bounded::Text;
use crate::machine;
use crate::Duty;

pub(crate) fn handler(ctx: Context<Duty>, slot: u16, uri: Text) -> Result<()> {
    ctx.accounts
        .act(|s, signer, sink| machine::record_checkpoint(s, slot, signer, uri.as_bytes(), sink))
}
