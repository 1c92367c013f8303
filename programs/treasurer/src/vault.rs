//! What a vault holds.

use anchor_lang::prelude::*;
use anchor_spl::token_interface::{sync_native, SyncNative, TokenAccount, TokenInterface};

/// Counts the lamports that came into a vault of wrapped SOL by a plain transfer: the token program shows them only
/// when it is told to look. Other tokens are always counted.
pub fn count<'info>(
    vault: &mut InterfaceAccount<'info, TokenAccount>,
    token_program: &Interface<'info, TokenInterface>,
) -> Result<()> {
    if vault.is_native() {
        let account = vault.to_account_info();
        sync_native(CpiContext::new(token_program.key(), SyncNative { account }))?;
        vault.reload()?;
    }
    Ok(())
}
