//! What the world contributes to a tick: the time, the newest slot's hash, who is calling, and what follows.

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

/// Whether the running instruction is the last of its transaction, by the Instructions sysvar: what comes after a
/// tick could fail when it dislikes the new seed, and so undo it.
pub fn is_last(instructions: &AccountInfo) -> Result<bool> {
    Ok(ends_with_current(&instructions.try_borrow_data()?))
}

/// The sysvar begins with the number of instructions and ends with the index of the running one, both u16.
fn ends_with_current(data: &[u8]) -> bool {
    let number = data.first_chunk::<2>().map(|b| u16::from_le_bytes(*b));
    let current = data.last_chunk::<2>().map(|b| u16::from_le_bytes(*b));
    match (number, current) {
        (Some(number), Some(current)) => current.checked_add(1) == Some(number),
        _ => false,
    }
}

/// Makes the transitions that are due, if this instruction may tick: no program calls it and nothing follows it in its
/// transaction. Otherwise they wait for the next one that may.
///
/// # Errors
/// What the machine's tick refuses.
pub fn tick_if_last(
    s: &mut State,
    env: &Env,
    instructions: &AccountInfo,
    sink: &mut dyn Sink,
) -> Result<()> {
    if !called_by_program() && is_last(instructions)? {
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

    #[test]
    fn last_is_the_index_before_the_number() {
        let sysvar = |number: u16, current: u16| {
            let mut data = number.to_le_bytes().to_vec();
            data.extend([9; 40]);
            data.extend(current.to_le_bytes());
            data
        };
        assert!(ends_with_current(&sysvar(1, 0)) && ends_with_current(&sysvar(700, 699)));
        for (number, current) in [(2, 0), (3, 1), (0, 0), (1, 1), (0, u16::MAX)] {
            assert!(!ends_with_current(&sysvar(number, current)));
        }
        assert!(!ends_with_current(&[]) && !ends_with_current(&[1]));
    }
}
