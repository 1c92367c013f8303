//! Which tokens can pay: those whose transfers always arrive in full and ask nobody.

use anchor_lang::prelude::*;
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
    match extensions.into_iter().find_map(refusal) {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

/// Why an extension is refused. Names, groups and ways of showing an amount are harmless, as is a close authority: a
/// mint closes only when no token is left. Whatever is new is refused until somebody has looked at it.
fn refusal(extension: ExtensionType) -> Option<TreasurerError> {
    match extension {
        ExtensionType::MintCloseAuthority
        | ExtensionType::InterestBearingConfig
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
