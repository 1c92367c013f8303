//! The coordinator: the log of a training run on chain.

pub mod machine;
pub mod state;
