//! `Spec`: the training specification, bytes that this program does not read.

use anchor_lang::prelude::*;

/// First seed of a specification's address; then the run.
#[constant]
pub const SEED_SPEC: &[u8] = b"spec";
/// Longest specification, in bytes.
#[constant]
pub const MAX_SPEC: u32 = 10_000;

/// The head of a specification's account; `len` raw bytes follow it.
#[account]
#[derive(InitSpace, Debug)]
pub struct Spec {
    pub run: Pubkey,
    pub sealed: bool,
    pub bump: u8,
    /// Bytes written so far; all of the specification once sealed.
    pub len: u32,
}

impl Spec {
    /// Bytes before the specification itself, discriminator included.
    pub const HEAD: usize = 8 + Spec::INIT_SPACE;
}
