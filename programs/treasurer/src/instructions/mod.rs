//! One instruction a file: the accounts with where each is checked, then the handler.

pub mod claim;
pub mod close_claim;
pub mod close_pool;
pub mod create_pool;
pub mod update_pool;

pub use claim::*;
pub use close_claim::*;
pub use close_pool::*;
pub use create_pool::*;
pub use update_pool::*;
