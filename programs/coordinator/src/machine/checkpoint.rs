use super::{MachineError, Sink};
use crate::state::State;
pub fn attest_checkpoint(s: &mut State, slot: u16, signer: &[u8; 32], step: u64, digests: &[[u8; 32]], sink: &mut dyn Sink) -> Result<(), MachineError> { todo!() }
pub fn record_checkpoint(s: &mut State, slot: u16, signer: &[u8; 32], uri: &[u8], sink: &mut dyn Sink) -> Result<(), MachineError> { todo!() }
