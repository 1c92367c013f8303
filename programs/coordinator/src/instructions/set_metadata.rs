//! `set_metadata(name, description, min_client_version, join_authority)`: the authority describes the run anew.

use anchor_lang::prelude::*;

use crate::account::{check_texts, Run};
use crate::bounded::Text;
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
    name: Text,
    description: Text,
    min_client_version: Text,
    join_authority: Pubkey,
) -> Result<()> {
    check_texts(&name, &description, &min_client_version)?;
    let run = &mut ctx.accounts.run;
    emit!(MetadataSet {
        run: run.key(),
        name: name.to_string(),
        join_authority
    });
    run.name = name.into();
    run.description = description.into();
    run.min_client_version = min_client_version.into();
    run.join_authority = join_authority;
    Ok(())
}
