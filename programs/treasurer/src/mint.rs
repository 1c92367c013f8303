//! Which tokens can pay: those whose transfers always arrive in full and ask nobody.

use anchor_lang::prelude::*;
use anchor_spl::token_2022::spl_token_2022::extension::mint_close_authority::MintCloseAuthority;
use anchor_spl::token_2022::spl_token_2022::extension::{
    BaseStateWithExtensions, ExtensionType, StateWithExtensions,
};
use anchor_spl::token_2022::spl_token_2022::state::Mint;

use crate::TreasurerError;

/// Checks that a mint has no extension that could keep a member from its pay.
///
/// # Errors
/// `MintUnreadable`, or the error named after the extension.
pub fn check_mint(info: &AccountInfo) -> Result<()> {
    let data = info.try_borrow_data()?;
    let mint =
        StateWithExtensions::<Mint>::unpack(&data).map_err(|_| TreasurerError::MintUnreadable)?;
    let extensions = mint
        .get_extension_types()
        .map_err(|_| TreasurerError::MintUnreadable)?;
    let found = extensions.into_iter().find_map(|e| refusal(&mint, e));
    match found {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

/// Whether somebody can close the mint while there is none of the token: then no pool of it could be closed, and a
/// mint with any other extension could take its address.
fn can_be_closed(mint: &StateWithExtensions<Mint>) -> bool {
    mint.get_extension::<MintCloseAuthority>()
        .map_or(true, |e| e.close_authority != Default::default())
}

/// Why an extension is refused. Names, groups and ways of showing an amount are harmless, as is a close authority that
/// was given up. Whatever is new is refused until somebody has looked at it.
fn refusal(mint: &StateWithExtensions<Mint>, extension: ExtensionType) -> Option<TreasurerError> {
    match extension {
        ExtensionType::MintCloseAuthority => {
            can_be_closed(mint).then_some(TreasurerError::MintCloseAuthority)
        }
        ExtensionType::InterestBearingConfig
        | ExtensionType::ScaledUiAmount
        | ExtensionType::MetadataPointer
        | ExtensionType::TokenMetadata
        | ExtensionType::GroupPointer
        | ExtensionType::TokenGroup
        | ExtensionType::GroupMemberPointer
        | ExtensionType::TokenGroupMember => None,
        ExtensionType::TransferFeeConfig | ExtensionType::ConfidentialTransferFeeConfig => {
            Some(TreasurerError::MintTransferFee)
        }
        ExtensionType::TransferHook => Some(TreasurerError::MintTransferHook),
        ExtensionType::PermanentDelegate => Some(TreasurerError::MintPermanentDelegate),
        ExtensionType::NonTransferable => Some(TreasurerError::MintNonTransferable),
        ExtensionType::DefaultAccountState => Some(TreasurerError::MintDefaultState),
        ExtensionType::Pausable => Some(TreasurerError::MintPausable),
        _ => Some(TreasurerError::MintExtension),
    }
}
