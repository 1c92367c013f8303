//! The Borsh accounts of this program; the zero-copy one is in `state`.

mod authorization;
mod membership;
mod run;
mod run_state;
mod spec;

pub use authorization::*;
pub use membership::*;
pub use run::*;
pub use run_state::*;
pub use spec::*;
