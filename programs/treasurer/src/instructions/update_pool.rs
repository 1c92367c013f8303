//! `update_pool(action)`: the pool's authority does one of the run's authority's instructions in the pool's name.

use anchor_lang::prelude::*;
use coordinator::cpi::{self, accounts as on};
use coordinator::program::Coordinator;
use coordinator::ConfigArgs;

use crate::bounded::{Bytes, Text};
use crate::events::PoolAuthoritySet;
use crate::{Pool, TreasurerError, SEED_POOL};

/// What the authority may do to the run, or to the pool itself.
#[derive(AnchorSerialize, AnchorDeserialize, Clone, Debug)]
pub enum PoolAction {
    Configure {
        config: ConfigArgs,
    },
    SetRoundRate {
        rate: u64,
    },
    SetPaused {
        paused: bool,
    },
    ResetSpec {
        spec_len: u32,
        spec_sha256: [u8; 32],
    },
    WriteSpec {
        offset: u32,
        bytes: Bytes,
    },
    SealSpec,
    SetMetadata {
        name: Text,
        description: Text,
        min_client_version: Text,
        join_authority: Pubkey,
    },
    /// Hands the pool over; the run stays the pool's.
    SetAuthority {
        authority: Pubkey,
    },
}

#[derive(Accounts)]
pub struct UpdatePool<'info> {
    /// Pays for a specification that grows.
    #[account(mut)]
    pub payer: Signer<'info>,
    pub authority: Signer<'info>,
    #[account(
        mut,
        seeds = [SEED_POOL, pool.run_state.as_ref()],
        bump = pool.bump,
        has_one = run_state @ TreasurerError::WrongRunState,
        has_one = authority @ TreasurerError::WrongAuthority,
        has_one = run @ TreasurerError::WrongRun
    )]
    pub pool: Box<Account<'info, Pool>>,
    /// CHECK: named by the pool; the coordinator checks the rest.
    #[account(mut)]
    pub run: UncheckedAccount<'info>,
    /// CHECK: named by the pool; the coordinator checks the rest.
    #[account(mut)]
    pub run_state: UncheckedAccount<'info>,
    /// CHECK: the coordinator checks that it is the run's.
    #[account(mut)]
    pub spec: UncheckedAccount<'info>,
    pub coordinator_program: Program<'info, Coordinator>,
    pub system_program: Program<'info, System>,
}

pub(crate) fn handler(ctx: Context<UpdatePool>, action: PoolAction) -> Result<()> {
    let a = ctx.accounts;
    if let PoolAction::SetAuthority { authority } = action {
        require_keys_neq!(
            authority,
            Pubkey::default(),
            TreasurerError::AuthorityMissing
        );
        a.pool.authority = authority;
        emit!(PoolAuthoritySet {
            pool: a.pool.key(),
            authority
        });
        return Ok(());
    }
    let run_state = a.run_state.key();
    let seeds: &[&[&[u8]]] = &[&[SEED_POOL, run_state.as_ref(), &[a.pool.bump]]];
    let program = a.coordinator_program.key();
    match action {
        PoolAction::Configure { config } => cpi::configure(
            CpiContext::new_with_signer(program, a.administer(), seeds),
            config,
        ),
        PoolAction::SetRoundRate { rate } => cpi::set_round_rate(
            CpiContext::new_with_signer(program, a.administer(), seeds),
            rate,
        ),
        PoolAction::SetPaused { paused } => cpi::set_paused(
            CpiContext::new_with_signer(program, a.administer(), seeds),
            paused,
        ),
        PoolAction::ResetSpec {
            spec_len,
            spec_sha256,
        } => {
            let accounts = on::ResetSpec {
                authority: a.pool.to_account_info(),
                run: a.run.to_account_info(),
                run_state: a.run_state.to_account_info(),
                spec: a.spec.to_account_info(),
            };
            cpi::reset_spec(
                CpiContext::new_with_signer(program, accounts, seeds),
                spec_len,
                spec_sha256,
            )
        }
        PoolAction::WriteSpec { offset, bytes } => {
            let accounts = on::WriteSpec {
                payer: a.payer.to_account_info(),
                authority: a.pool.to_account_info(),
                run: a.run.to_account_info(),
                run_state: a.run_state.to_account_info(),
                spec: a.spec.to_account_info(),
                system_program: a.system_program.to_account_info(),
            };
            cpi::write_spec(
                CpiContext::new_with_signer(program, accounts, seeds),
                offset,
                bytes,
            )
        }
        PoolAction::SealSpec => {
            let accounts = on::SealSpec {
                authority: a.pool.to_account_info(),
                run: a.run.to_account_info(),
                run_state: a.run_state.to_account_info(),
                spec: a.spec.to_account_info(),
            };
            cpi::seal_spec(CpiContext::new_with_signer(program, accounts, seeds))
        }
        PoolAction::SetMetadata {
            name,
            description,
            min_client_version,
            join_authority,
        } => {
            let accounts = on::SetMetadata {
                authority: a.pool.to_account_info(),
                run: a.run.to_account_info(),
            };
            let context = CpiContext::new_with_signer(program, accounts, seeds);
            cpi::set_metadata(
                context,
                name,
                description,
                min_client_version,
                join_authority,
            )
        }
        PoolAction::SetAuthority { .. } => Ok(()), // done above
    }
}

impl<'info> UpdatePool<'info> {
    fn administer(&self) -> on::Administer<'info> {
        on::Administer {
            authority: self.pool.to_account_info(),
            run: self.run.to_account_info(),
            run_state: self.run_state.to_account_info(),
        }
    }
}
