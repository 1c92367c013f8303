//! `create_run(args)`: a creator registers a run and the empty log that the same transaction created.
//!
//! The log's account signs too: otherwise somebody else could register an account that was created one transaction
//! earlier.

use anchor_lang::prelude::*;

use crate::account::{check_run_id, check_texts, run_id_seed, RUN_STATE_DISCRIMINATOR};
use crate::account::{Run, Spec, MAX_SPEC, RUN_VERSION, SEED_RUN, SEED_SPEC};
use crate::events::RunCreated;
use crate::state::State;
use crate::CoordinatorError;

/// What a run is created with.
#[derive(AnchorSerialize, AnchorDeserialize, Clone, Debug)]
pub struct CreateRunArgs {
    /// 1 to 32 bytes of `[a-z0-9-]`, unique among the creator's runs.
    pub run_id: String,
    pub name: String,
    pub description: String,
    pub authority: Pubkey,
    /// The zero key lets anybody join.
    pub join_authority: Pubkey,
    pub min_client_version: String,
    pub spec_len: u32,
    pub spec_sha256: [u8; 32],
}

#[derive(Accounts)]
#[instruction(args: CreateRunArgs)]
pub struct CreateRun<'info> {
    #[account(mut)]
    pub payer: Signer<'info>,
    /// Part of the run's seeds: nobody can take another's id.
    pub creator: Signer<'info>,
    #[account(
        init,
        payer = payer,
        space = 8 + Run::INIT_SPACE,
        seeds = [SEED_RUN, creator.key().as_ref(), run_id_seed(&args.run_id)],
        bump
    )]
    pub run: Box<Account<'info, Run>>,
    /// CHECK: this program's, zeroed, of a size that some capacity has: all checked in the handler.
    #[account(mut, signer, owner = crate::ID @ CoordinatorError::WrongRunState)]
    pub run_state: UncheckedAccount<'info>,
    #[account(init, payer = payer, space = Spec::HEAD, seeds = [SEED_SPEC, run.key().as_ref()], bump)]
    pub spec: Box<Account<'info, Spec>>,
    pub system_program: Program<'info, System>,
}

pub(crate) fn handler(ctx: Context<CreateRun>, args: CreateRunArgs) -> Result<()> {
    check_run_id(&args.run_id)?;
    check_texts(&args.name, &args.description, &args.min_client_version)?;
    check_spec_len(args.spec_len)?;
    require_keys_neq!(
        args.authority,
        Pubkey::default(),
        CoordinatorError::AuthorityMissing
    );
    let run_key = ctx.accounts.run.key();
    start_log(&ctx.accounts.run_state, &run_key)?;
    let (creator, run_state) = (ctx.accounts.creator.key(), ctx.accounts.run_state.key());
    emit!(RunCreated {
        run: run_key,
        run_state,
        creator,
        authority: args.authority,
        run_id: args.run_id.clone()
    });
    ctx.accounts.spec.set_inner(Spec {
        run: run_key,
        sealed: false,
        bump: ctx.bumps.spec,
        len: 0,
    });
    ctx.accounts.run.set_inner(Run {
        version: RUN_VERSION,
        bump: ctx.bumps.run,
        spec_bump: ctx.bumps.spec,
        creator,
        authority: args.authority,
        join_authority: args.join_authority,
        run_state,
        spec_len: args.spec_len,
        spec_sha256: args.spec_sha256,
        run_id: args.run_id,
        name: args.name,
        description: args.description,
        min_client_version: args.min_client_version,
    });
    Ok(())
}

/// Checks the length that a specification is announced with.
///
/// # Errors
/// `SpecLength`.
pub(crate) fn check_spec_len(spec_len: u32) -> Result<()> {
    require!(
        (1..=MAX_SPEC).contains(&spec_len),
        CoordinatorError::SpecLength
    );
    Ok(())
}

/// Turns a zeroed account of the right size into an empty log.
fn start_log(info: &AccountInfo, run: &Pubkey) -> Result<()> {
    let mut data = info.try_borrow_mut_data()?;
    require!(is_zeroed(&data), CoordinatorError::RunStateNotEmpty);
    let (discriminator, body) = data
        .split_first_chunk_mut::<8>()
        .ok_or(CoordinatorError::WrongRunState)?;
    State::init(body, run.as_array(), Clock::get()?.slot).map_err(CoordinatorError::from)?;
    *discriminator = RUN_STATE_DISCRIMINATOR;
    Ok(())
}

/// Whether every byte is zero: the first one is, and each of the others equals the one before it. (One memory
/// comparison costs a fraction of a loop.)
fn is_zeroed(data: &[u8]) -> bool {
    match (data.split_first(), data.split_last()) {
        (Some((first, tail)), Some((_, head))) => *first == 0 && head == tail,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_zeroed_finds_a_single_byte_anywhere() {
        assert!(is_zeroed(&[]) && is_zeroed(&[0]) && is_zeroed(&[0; 100]));
        for i in 0..100 {
            let mut data = [0; 100];
            data[i] = 1;
            assert!(!is_zeroed(&data), "byte {i}");
        }
        assert!(!is_zeroed(&[1; 100]));
    }
}
