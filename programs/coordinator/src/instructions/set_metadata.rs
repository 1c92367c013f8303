//! `set_metadata(name, description, min_client_version, join_authority)`: the authority describes the run anew.

use anchor_lang::prelude::*;

use crate::account::{check_texts, Run};
use crate::events::MetadataSet;
use crate::CoordinatorError;

#[derive(Accounts)]
pub struct SetMetadata<'info> {
    pub authority: Signer<'info>,
    #[account(mut, has_one = authority @ CoordinatorError::WrongAuthority)]
    pub run: Box<Account<'info, Run>>,
}

pub(crate) fn handler(
    ctx: Context<SetMetadata>,
    name: String,
    description: String,
    min_client_version: String,
    join_authority: Pubkey,
) -> Result<()> {
    check_texts(&name, &description, &min_client_version)?;
    let run = &mut ctx.accounts.run;
    emit!(MetadataSet {
        run: run.key(),
        name: name.clone(),
        join_authority
    });
    run.name = name;
    run.description = description;
    run.min_client_version = min_client_version;
    run.join_authority = join_authority;
    Ok(())
}
