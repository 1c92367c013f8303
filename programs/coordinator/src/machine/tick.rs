use super::{Env, MachineError, Sink};
use crate::state::State;
pub const MAX_TRANSITIONS: u8 = 4;
pub fn tick(s: &mut State, env: &Env, sink: &mut dyn Sink) -> Result<u8, MachineError> { todo!() }
