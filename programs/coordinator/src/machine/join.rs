use super::{Env, MachineError, Sink};
use crate::state::State;
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinRequest { pub wallet: [u8; 32], pub hot_key: [u8; 32], pub p2p_key: [u8; 32], pub tier: u8, pub weight: u16 }
/// What `settle` did: points to add to the membership account, and whether the slot is free now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settled { pub moved: u64, pub freed: bool }
pub fn join(s: &mut State, env: &Env, request: &JoinRequest, sink: &mut dyn Sink) -> Result<u16, MachineError> { todo!() }
pub fn leave(s: &mut State, slot: u16, signer: &[u8; 32], sink: &mut dyn Sink) -> Result<(), MachineError> { todo!() }
/// `wallet` is the membership account's.
pub fn evict(s: &mut State, slot: u16, wallet: &[u8; 32], sink: &mut dyn Sink) -> Result<(), MachineError> { todo!() }
/// `wallet` is the membership account's; a slot that is not (or no longer) its own moves nothing and is Ok.
pub fn settle(s: &mut State, slot: u16, wallet: &[u8; 32]) -> Result<Settled, MachineError> { todo!() }
