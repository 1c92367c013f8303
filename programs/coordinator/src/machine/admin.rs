use super::{Env, MachineError, Sink};
use crate::state::{Config, State};
pub fn is_halted(s: &State) -> bool { todo!() }
pub fn configure(s: &mut State, env: &Env, config: &Config, sink: &mut dyn Sink) -> Result<(), MachineError> { todo!() }
pub fn seal_spec(s: &mut State, env: &Env, spec_hash: &[u8; 32], sink: &mut dyn Sink) -> Result<(), MachineError> { todo!() }
pub fn unseal_spec(s: &mut State, env: &Env, sink: &mut dyn Sink) -> Result<(), MachineError> { todo!() }
pub fn set_round_rate(s: &mut State, rate: u64) -> Result<(), MachineError> { todo!() }
pub fn set_paused(s: &mut State, env: &Env, paused: bool, sink: &mut dyn Sink) -> Result<(), MachineError> { todo!() }
pub fn check_closable(s: &State) -> Result<(), MachineError> { todo!() }
