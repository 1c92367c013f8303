//! What the duties share: a member acts on its slot of a log, then whatever has become due happens, unless more
//! follows in the transaction.

use anchor_lang::prelude::*;

use crate::account::{with_state, INSTRUCTIONS_ID, SLOT_HASHES_ID};
use crate::clock::{env, tick_if_last};
use crate::events::Emitter;
use crate::machine::{MachineError, Sink};
use crate::state::State;
use crate::CoordinatorError;

#[derive(Accounts)]
pub struct Duty<'info> {
    /// Wallet or hot key of the slot that is named: the machine compares.
    pub signer: Signer<'info>,
    /// CHECK: `with_state` checks owner, discriminator, version and size.
    #[account(mut)]
    pub run_state: UncheckedAccount<'info>,
    /// CHECK: the sysvar, by its address.
    #[account(address = SLOT_HASHES_ID @ CoordinatorError::WrongSlotHashes)]
    pub slot_hashes: UncheckedAccount<'info>,
    /// CHECK: the sysvar, by its address.
    #[account(address = INSTRUCTIONS_ID @ CoordinatorError::WrongInstructions)]
    pub instructions: UncheckedAccount<'info>,
}

impl Duty<'_> {
    /// Lets `action` act with the signer's key, then ticks.
    ///
    /// # Errors
    /// What `with_state`, the action and the tick refuse.
    pub(crate) fn act(
        &self,
        action: impl FnOnce(
            &mut State,
            &[u8; 32],
            &mut dyn Sink,
        ) -> std::result::Result<(), MachineError>,
    ) -> Result<()> {
        let env = env(&self.slot_hashes)?;
        let signer = self.signer.key().to_bytes();
        with_state(&self.run_state, |s| {
            let mut sink = Emitter::new(s.header);
            action(s, &signer, &mut sink).map_err(CoordinatorError::from)?;
            tick_if_last(s, &env, &self.instructions, &mut sink)
        })
    }
}
