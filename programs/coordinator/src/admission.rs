//! Who may be a member: one rule for `join`, which asks for it, and `evict`, which acts when it no longer holds.

use anchor_lang::prelude::*;

use crate::account::{AuthorizationView, Run};
use crate::CoordinatorError;

/// Scope of the authorizations that admit to runs.
#[constant]
pub const JOIN_SCOPE: &[u8] = b"CoordinatorJoinRun";

/// Checks that `wallet` may be a member of `run` with this weight and tier.
///
/// In an open run anybody may, with weight 1. Otherwise the run's join authority must have authorized the wallet, or
/// somebody who made it a delegate, and the declared weight and tier must be within the authorization's limits.
///
/// # Errors
/// `OpenRunWeight`, `AuthorizationMissing`, `WrongAuthorization`, `AuthorizationInactive`, `WeightNotAllowed`,
/// `TierNotAllowed`.
pub fn check_admission(
    run: &Run,
    authorization: Option<&AuthorizationView>,
    wallet: &Pubkey,
    weight: u16,
    tier: u8,
) -> Result<()> {
    if run.is_open() {
        require!(weight == 1, CoordinatorError::OpenRunWeight);
        return Ok(());
    }
    let a = authorization.ok_or(CoordinatorError::AuthorizationMissing)?;
    require!(
        a.grantor == run.join_authority.as_array() && a.scope == JOIN_SCOPE && a.covers(wallet),
        CoordinatorError::WrongAuthorization
    );
    require!(a.active, CoordinatorError::AuthorizationInactive);
    require!(weight <= a.max_weight, CoordinatorError::WeightNotAllowed);
    require!(tier >= a.min_tier, CoordinatorError::TierNotAllowed);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(join_authority: Pubkey) -> Run {
        Run {
            version: 1,
            bump: 0,
            spec_bump: 0,
            creator: Pubkey::new_unique(),
            authority: Pubkey::new_unique(),
            join_authority,
            run_state: Pubkey::new_unique(),
            spec_len: 1,
            spec_sha256: [0; 32],
            run_id: "run".into(),
            name: String::new(),
            description: String::new(),
            min_client_version: String::new(),
        }
    }

    fn authorization<'a>(
        grantor: &'a Pubkey,
        grantee: &'a Pubkey,
        delegates: &'a [[u8; 32]],
    ) -> AuthorizationView<'a> {
        AuthorizationView {
            grantor: grantor.as_array(),
            grantee: grantee.as_array(),
            active: true,
            max_weight: 3,
            min_tier: 1,
            scope: JOIN_SCOPE,
            delegates,
        }
    }

    #[test]
    fn open_run_admits_anybody_with_weight_one() {
        let (run, wallet) = (run(Pubkey::default()), Pubkey::new_unique());
        assert_eq!(check_admission(&run, None, &wallet, 1, 0), Ok(()));
        for weight in [0, 2] {
            assert_eq!(
                check_admission(&run, None, &wallet, weight, 0),
                Err(CoordinatorError::OpenRunWeight.into())
            );
        }
    }

    #[test]
    fn closed_run_admits_grantee_and_delegate_within_limits() {
        let (grantor, wallet) = (Pubkey::new_unique(), Pubkey::new_unique());
        let delegate = Pubkey::new_unique();
        let delegates = [delegate.to_bytes()];
        let (run, good) = (run(grantor), authorization(&grantor, &wallet, &delegates));
        let check = |a: &AuthorizationView, w: &Pubkey, weight, tier| {
            check_admission(&run, Some(a), w, weight, tier)
        };
        assert_eq!(check(&good, &wallet, 3, 1), Ok(()));
        assert_eq!(check(&good, &delegate, 1, 2), Ok(()));
        assert_eq!(
            check(&good, &wallet, 4, 1),
            Err(CoordinatorError::WeightNotAllowed.into())
        );
        assert_eq!(
            check(&good, &wallet, 3, 0),
            Err(CoordinatorError::TierNotAllowed.into())
        );
        let wrong = Err(CoordinatorError::WrongAuthorization.into());
        assert_eq!(check(&good, &Pubkey::new_unique(), 1, 1), wrong);
        assert_eq!(
            check(
                &authorization(&Pubkey::new_unique(), &wallet, &delegates),
                &wallet,
                1,
                1
            ),
            wrong
        );
        let other_scope = AuthorizationView {
            scope: b"Other",
            ..good
        };
        assert_eq!(check(&other_scope, &wallet, 1, 1), wrong);
        let revoked = AuthorizationView {
            active: false,
            ..good
        };
        assert_eq!(
            check(&revoked, &wallet, 1, 1),
            Err(CoordinatorError::AuthorizationInactive.into())
        );
        assert_eq!(
            check_admission(&run, None, &wallet, 1, 1),
            Err(CoordinatorError::AuthorizationMissing.into())
        );
    }
}
