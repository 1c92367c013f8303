//! One instruction a file: the accounts with where each is checked, then the handler.

pub mod close;
pub mod create;
pub mod set_active;
pub mod set_delegates;
pub mod set_limits;

pub use close::*;
pub use create::*;
pub use set_active::*;
pub use set_delegates::*;
pub use set_limits::*;
