//! Calls another program, once for each call in the instruction's data.
//!
//! Accounts: the program to call, then those that every call gets, with the rights that the transaction gave them.
//! Data: for each call its length (u16, little-endian), then its bytes. After the calls a last byte, if there is one,
//! fails the transaction: so a caller can look at what a call did and undo it.

use solana_account_info::AccountInfo;
use solana_cpi::invoke;
use solana_instruction::{AccountMeta, Instruction};
use solana_program_entrypoint::{entrypoint, ProgramResult};
use solana_program_error::ProgramError;
use solana_pubkey::Pubkey;

/// The error of a caller that undoes what it called.
const UNDONE: u32 = 77;

entrypoint!(process);

fn process(_id: &Pubkey, accounts: &[AccountInfo], data: &[u8]) -> ProgramResult {
    let (program, passed) = accounts
        .split_first()
        .ok_or(ProgramError::NotEnoughAccountKeys)?;
    let metas: Vec<AccountMeta> = passed
        .iter()
        .map(|account| AccountMeta {
            pubkey: *account.key,
            is_signer: account.is_signer,
            is_writable: account.is_writable,
        })
        .collect();
    let mut rest = data;
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*length));
        let (call, after) = after
            .split_at_checked(length)
            .ok_or(ProgramError::InvalidInstructionData)?;
        let instruction = Instruction {
            program_id: *program.key,
            accounts: metas.clone(),
            data: call.to_vec(),
        };
        invoke(&instruction, accounts)?;
        rest = after;
    }
    if rest.is_empty() {
        Ok(())
    } else {
        Err(ProgramError::Custom(UNDONE))
    }
}
