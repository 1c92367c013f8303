//! What the world contributes to a tick: the time, the newest slot's hash, and who is calling.

use anchor_lang::prelude::*;
use anchor_lang::solana_program::instruction::{get_stack_height, TRANSACTION_LEVEL_STACK_HEIGHT};

use crate::machine::{self, Env, Sink};
use crate::state::State;
use crate::CoordinatorError;

/// Time and newest slot hash, from the clock and an account already known to be the SlotHashes sysvar.
///
/// # Errors
/// None but the runtime's own.
pub fn env(slot_hashes: &AccountInfo) -> Result<Env> {
    let slot_hash = newest_hash(&slot_hashes.try_borrow_data()?);
    Ok(Env {
        now: Clock::get()?.unix_timestamp,
        slot_hash,
    })
}

/// Time only, for instructions that draw nothing.
///
/// # Errors
/// None but the runtime's own.
pub fn env_without_hash() -> Result<Env> {
    Ok(Env {
        now: Clock::get()?.unix_timestamp,
        slot_hash: [0; 32],
    })
}

/// The first entry of the sysvar: count u64, then (slot u64, hash) newest first. Zeros if there is none.
pub fn newest_hash(data: &[u8]) -> [u8; 32] {
    let count = data
        .first_chunk::<8>()
        .map_or(0, |c| u64::from_le_bytes(*c));
    let hash = data.get(16..).and_then(|rest| rest.first_chunk::<32>());
    match hash {
        Some(hash) if count > 0 => *hash,
        _ => [0; 32],
    }
}

/// Whether another program called this one: then nothing ticks, so that no caller can look at a new seed and undo it.
pub fn called_by_program() -> bool {
    get_stack_height() > TRANSACTION_LEVEL_STACK_HEIGHT
}

/// Makes the transitions that are due, unless another program is calling: then they wait for the next instruction.
///
/// # Errors
/// What the machine's tick refuses.
pub fn tick_unless_called(s: &mut State, env: &Env, sink: &mut dyn Sink) -> Result<()> {
    if !called_by_program() {
        machine::tick(s, env, sink).map_err(CoordinatorError::from)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_hash_is_the_first_entry_or_zeros() {
        let mut data = vec![0; 8 + 40 * 2];
        data[16..48].fill(7);
        data[56..88].fill(9);
        assert_eq!(newest_hash(&data), [0; 32]); // count 0
        data[0] = 2;
        assert_eq!(newest_hash(&data), [7; 32]);
        assert_eq!(newest_hash(&data[..40]), [0; 32]); // cut off
        assert_eq!(newest_hash(&[]), [0; 32]);
    }
}
