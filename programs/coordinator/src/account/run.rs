//! `Run`: who a run belongs to and where its parts are.

use anchor_lang::prelude::*;

use crate::CoordinatorError;

/// First seed of a run's address; then creator and run id.
#[constant]
pub const SEED_RUN: &[u8] = b"run";
/// Version of the `Run` account that this program writes.
pub const RUN_VERSION: u8 = 1;
/// Longest run id, in bytes.
#[constant]
pub const MAX_RUN_ID: u8 = 32;
/// Longest name of a run, in bytes.
#[constant]
pub const MAX_NAME: u16 = 64;
/// Longest description of a run, in bytes.
#[constant]
pub const MAX_DESCRIPTION: u16 = 280;
/// Longest client version, in bytes.
#[constant]
pub const MAX_CLIENT_VERSION: u16 = 32;

/// One training run. The creator is in the seeds, so nobody can take an id away from anybody else.
#[account]
#[derive(InitSpace, Debug)]
pub struct Run {
    pub version: u8,
    pub bump: u8,
    pub spec_bump: u8,
    pub creator: Pubkey,
    pub authority: Pubkey,
    /// Whose authorizations admit members; the zero key means that anybody may join.
    pub join_authority: Pubkey,
    pub run_state: Pubkey,
    pub spec_len: u32,
    pub spec_sha256: [u8; 32],
    #[max_len(32)]
    pub run_id: String,
    #[max_len(64)]
    pub name: String,
    #[max_len(280)]
    pub description: String,
    #[max_len(32)]
    pub min_client_version: String,
}

impl Run {
    /// Whether anybody may join.
    pub fn is_open(&self) -> bool {
        self.join_authority == Pubkey::default()
    }
}

/// Checks the texts of a run that may change.
///
/// # Errors
/// `NameTooLong`, `DescriptionTooLong`, `ClientVersionTooLong`.
pub fn check_texts(name: &str, description: &str, min_client_version: &str) -> Result<()> {
    require!(
        name.len() <= usize::from(MAX_NAME),
        CoordinatorError::NameTooLong
    );
    require!(
        description.len() <= usize::from(MAX_DESCRIPTION),
        CoordinatorError::DescriptionTooLong
    );
    require!(
        min_client_version.len() <= usize::from(MAX_CLIENT_VERSION),
        CoordinatorError::ClientVersionTooLong
    );
    Ok(())
}

/// Checks a run id: 1 to 32 bytes of `[a-z0-9-]`.
///
/// # Errors
/// `RunIdInvalid`.
pub fn check_run_id(run_id: &str) -> Result<()> {
    let valid = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    require!(
        !run_id.is_empty() && run_id.len() <= usize::from(MAX_RUN_ID) && run_id.bytes().all(valid),
        CoordinatorError::RunIdInvalid
    );
    Ok(())
}

/// The part of a run id that fits into a seed; a longer id is refused by `create_run`.
pub fn run_id_seed(run_id: &str) -> &[u8] {
    let bytes = run_id.as_bytes();
    bytes.get(..usize::from(MAX_RUN_ID)).unwrap_or(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_ids_are_short_and_plain() {
        for good in ["a", "llama-20m-2", "0", &"x".repeat(32)] {
            assert!(check_run_id(good).is_ok(), "{good}");
        }
        for bad in ["", "A", "a b", "a_b", "ü", "a/b", &"x".repeat(33)] {
            assert!(check_run_id(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn run_id_seed_never_exceeds_a_seed() {
        assert_eq!(run_id_seed("abc"), b"abc");
        assert_eq!(run_id_seed(&"x".repeat(40)).len(), 32);
    }

    #[test]
    fn texts_are_checked_each_against_its_own_limit() {
        let (n, d, v) = ("x".repeat(65), "x".repeat(281), "x".repeat(33));
        assert!(check_texts(&n[1..], &d[1..], &v[1..]).is_ok());
        assert_eq!(
            check_texts(&n, &d[1..], &v[1..]),
            Err(CoordinatorError::NameTooLong.into())
        );
        assert_eq!(
            check_texts(&n[1..], &d, &v[1..]),
            Err(CoordinatorError::DescriptionTooLong.into())
        );
        assert_eq!(
            check_texts(&n[1..], &d[1..], &v),
            Err(CoordinatorError::ClientVersionTooLong.into())
        );
    }
}
