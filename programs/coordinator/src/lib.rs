//! The coordinator: the log of a training run on chain.
//!
//! A round is a short record of who was asked to train, the hash that each member committed, and which of those
//! hashes the witnesses found available. [`machine`] holds the rules and knows nothing of accounts; [`state`] is the
//! memory that it works on; the instructions check accounts and call it.

// Anchor's own macros expand to code that trips over these two.
#![allow(clippy::result_large_err, clippy::diverging_sub_expression)]
#![deny(clippy::arithmetic_side_effects, clippy::unwrap_used)]
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use anchor_lang::prelude::*;

pub mod account;
pub mod admission;
pub mod bounded;
pub mod clock;
pub mod error;
pub mod events;
pub mod instructions;
pub mod machine;
pub mod state;

pub use account::*;
use bounded::{Bytes, Digests, Text};
pub use error::CoordinatorError;
pub use instructions::*;

declare_id!("G7KidNxsM5kHQGzoYj4gRocyi1B7QGPieFyvKpmtHoNb");

include!("../../authorizer/src/security_txt.rs");

/// The coordinator program.
#[program]
pub mod coordinator {
    use super::*;

    /// Registers a run and the empty log that the same transaction created.
    pub fn create_run(ctx: Context<CreateRun>, args: CreateRunArgs) -> Result<()> {
        instructions::create_run::handler(ctx, args)
    }

    /// While the run is halted, announces another specification, to be written anew.
    pub fn reset_spec(ctx: Context<ResetSpec>, spec_len: u32, spec_sha256: [u8; 32]) -> Result<()> {
        instructions::reset_spec::handler(ctx, spec_len, spec_sha256)
    }

    /// Writes one piece of the specification.
    pub fn write_spec(ctx: Context<WriteSpec>, offset: u32, bytes: Bytes) -> Result<()> {
        instructions::write_spec::handler(ctx, offset, bytes)
    }

    /// Fixes the specification once its bytes hash to what was announced.
    pub fn seal_spec(ctx: Context<SealSpec>) -> Result<()> {
        instructions::seal_spec::handler(ctx)
    }

    /// Sets the rules of a halted run.
    pub fn configure(ctx: Context<Administer>, config: ConfigArgs) -> Result<()> {
        instructions::configure::handler(ctx, config)
    }

    /// Sets what a closed round shares among its members, from the next epoch on.
    pub fn set_round_rate(ctx: Context<Administer>, rate: u64) -> Result<()> {
        instructions::set_round_rate::handler(ctx, rate)
    }

    /// Halts the run in good order, or resumes it.
    pub fn set_paused(ctx: Context<Administer>, paused: bool) -> Result<()> {
        instructions::set_paused::handler(ctx, paused)
    }

    /// Hands the run over to another authority.
    pub fn set_authority(ctx: Context<SetAuthority>, authority: Pubkey) -> Result<()> {
        instructions::set_authority::handler(ctx, authority)
    }

    /// Describes the run anew and names the key whose authorizations admit members (the zero key: open).
    pub fn set_metadata(
        ctx: Context<SetMetadata>,
        name: Text,
        description: Text,
        min_client_version: Text,
        join_authority: Pubkey,
    ) -> Result<()> {
        instructions::set_metadata::handler(
            ctx,
            name,
            description,
            min_client_version,
            join_authority,
        )
    }

    /// Ends a halted run with nothing left to settle; every lamport goes to the recipient.
    pub fn close_run(ctx: Context<CloseRun>) -> Result<()> {
        instructions::close_run::handler(ctx)
    }

    /// Makes the wallet a member, or gives it its slot back.
    pub fn join(ctx: Context<Join>, args: JoinArgs) -> Result<()> {
        instructions::join::handler(ctx, args)
    }

    /// Says where the member can be reached now.
    pub fn update_contact(ctx: Context<UpdateContact>, contact: Text) -> Result<()> {
        instructions::update_contact::handler(ctx, contact)
    }

    /// The member has model and data at hand and may be assigned work.
    pub fn ready(ctx: Context<Duty>, slot: u16) -> Result<()> {
        instructions::ready::handler(ctx, slot)
    }

    /// Records the hash of the member's blob before anybody can fetch the blob.
    pub fn commit(ctx: Context<Duty>, slot: u16, round: u64, hash: [u8; 32]) -> Result<()> {
        instructions::commit::handler(ctx, slot, round, hash)
    }

    /// A drawn witness says whose blobs of a round it holds.
    pub fn witness(ctx: Context<Duty>, slot: u16, round: u64, bitmap: [u8; 32]) -> Result<()> {
        instructions::witness::handler(ctx, slot, round, bitmap)
    }

    /// A member vouches for the parts of the weights that it holds.
    pub fn attest_checkpoint(
        ctx: Context<Duty>,
        slot: u16,
        step: u64,
        digests: Digests,
    ) -> Result<()> {
        instructions::attest_checkpoint::handler(ctx, slot, step, digests)
    }

    /// The uploader says where the agreed weights can be fetched.
    pub fn record_checkpoint(ctx: Context<Duty>, slot: u16, uri: Text) -> Result<()> {
        instructions::record_checkpoint::handler(ctx, slot, uri)
    }

    /// The member goes in good order and keeps its pay.
    pub fn leave(ctx: Context<Duty>, slot: u16) -> Result<()> {
        instructions::leave::handler(ctx, slot)
    }

    /// Makes the transitions that are due, at most four.
    pub fn tick(ctx: Context<Tick>) -> Result<()> {
        instructions::tick::handler(ctx)
    }

    /// Moves a slot's pay into its member's account, and frees the slot if the member is gone.
    pub fn settle(ctx: Context<Settle>) -> Result<()> {
        instructions::settle::handler(ctx)
    }

    /// Ends the presence of a member whose authorization no longer covers it.
    pub fn evict(ctx: Context<Evict>) -> Result<()> {
        instructions::evict::handler(ctx)
    }

    /// Returns the rent of a membership to its wallet.
    pub fn close_membership(ctx: Context<CloseMembership>) -> Result<()> {
        instructions::close_membership::handler(ctx)
    }
}
