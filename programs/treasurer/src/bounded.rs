//! The arguments' texts and lists, under the names that Anchor's IDL generator follows: see `authorizer::bounded`.

pub use coordinator::bounded::{String, Vec};

/// The text of an argument.
pub type Text = String;
/// Bytes as an argument.
pub type Bytes = Vec<u8>;
