use super::MachineError;
use crate::state::{Bits, State};
pub fn ready(s: &mut State, slot: u16, signer: &[u8; 32]) -> Result<(), MachineError> { todo!() }
pub fn commit(s: &mut State, slot: u16, signer: &[u8; 32], round: u64, hash: &[u8; 32]) -> Result<(), MachineError> { todo!() }
pub fn witness(s: &mut State, slot: u16, signer: &[u8; 32], round: u64, bitmap: &Bits) -> Result<(), MachineError> { todo!() }
