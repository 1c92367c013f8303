//! What the authorizer refuses, and what to do about it. Codes are append-only.

use anchor_lang::prelude::*;

#[error_code]
pub enum AuthorizerError {
    #[msg("The scope must have 1 to 32 bytes")]
    ScopeLength,
    #[msg("The largest weight must be at least 1; revoke with set_active(false) instead")]
    ZeroWeight,
    #[msg("Only the grantor of this authorization may do that: sign with the grantor's key")]
    WrongGrantor,
    #[msg("Only the grantee of this authorization may do that: sign with the grantee's key")]
    WrongGrantee,
    #[msg("An authorization holds at most 64 delegates: add fewer, or clear the present ones")]
    TooManyDelegates,
    #[msg("One of these delegates is already there or named twice: name each once")]
    DuplicateDelegate,
    #[msg("The authorization is still active: call set_active(false) first")]
    StillActive,
    #[msg("Delegates still depend on this authorization: the grantee clears them, or wait until it is 30 days old")]
    StillDelegated,
}
