//! The one account of this program.

use anchor_lang::prelude::*;

/// First seed of an authorization's address; then grantor, grantee, scope.
#[constant]
pub const SEED_AUTHORIZATION: &[u8] = b"authorization";
/// Longest scope, in bytes: a seed holds no more.
#[constant]
pub const MAX_SCOPE: u8 = 32;
/// Most delegates of one authorization.
#[constant]
pub const MAX_DELEGATES: u8 = 64;
/// Age at which an inactive authorization may be closed though it has delegates.
#[constant]
pub const CLOSE_AFTER_S: i64 = 30 * 24 * 60 * 60;

/// `grantor` lets `grantee`, or one of the grantee's delegates, act within `scope` while `active`.
#[account]
#[derive(Debug)]
pub struct Authorization {
    pub grantor: Pubkey,
    pub grantee: Pubkey,
    pub active: bool,
    /// Largest weight that a member may declare.
    pub max_weight: u16,
    /// Lowest tier number that a member may declare (0 is the whole model).
    pub min_tier: u8,
    pub bump: u8,
    pub created_at: i64,
    pub scope: Vec<u8>,
    pub delegates: Vec<Pubkey>,
}

impl Authorization {
    /// Bytes of an account with this scope and this many delegates, capped at what is ever accepted.
    pub fn space(scope: usize, delegates: usize) -> usize {
        const FIXED: usize = 8 + 32 + 32 + 1 + 2 + 1 + 1 + 8 + 4 + 4;
        FIXED
            .saturating_add(scope.min(usize::from(MAX_SCOPE)))
            .saturating_add(delegates.min(usize::from(MAX_DELEGATES)).saturating_mul(32))
    }

    /// Whether `key` may act on this authorization: the grantee itself or a delegate.
    pub fn covers(&self, key: &Pubkey) -> bool {
        self.grantee == *key || self.delegates.contains(key)
    }
}

/// The part of a scope that fits into a seed; a longer one is refused by `create`.
pub fn scope_seed(scope: &[u8]) -> &[u8] {
    scope.get(..usize::from(MAX_SCOPE)).unwrap_or(scope)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authorization(delegates: usize) -> Authorization {
        Authorization {
            grantor: Pubkey::new_unique(),
            grantee: Pubkey::new_unique(),
            active: true,
            max_weight: 1,
            min_tier: 0,
            bump: 255,
            created_at: 0,
            scope: b"scope".to_vec(),
            delegates: (0..delegates).map(|_| Pubkey::new_unique()).collect(),
        }
    }

    #[test]
    fn space_is_what_borsh_writes() {
        for delegates in [0, 1, 64] {
            let mut data = Vec::new();
            authorization(delegates)
                .try_serialize(&mut data)
                .expect("writes to memory");
            assert_eq!(data.len(), Authorization::space(5, delegates));
        }
    }

    #[test]
    fn covers_grantee_and_delegates_only() {
        let a = authorization(2);
        assert!(a.covers(&a.grantee) && a.delegates.iter().all(|d| a.covers(d)));
        assert!(!a.covers(&a.grantor) && !a.covers(&Pubkey::new_unique()));
    }

    #[test]
    fn scope_seed_never_exceeds_a_seed() {
        assert_eq!(scope_seed(b"abc"), b"abc");
        assert_eq!(scope_seed(&[7; 40]).len(), 32);
    }
}
