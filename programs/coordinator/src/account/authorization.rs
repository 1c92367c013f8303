//! An authorizer's account, read where it lies: copying 64 delegates would cost `join` a tenth of its limit.

use anchor_lang::prelude::*;
use anchor_lang::Discriminator;
use authorizer::Authorization;

/// What admission asks of an [`Authorization`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuthorizationView<'a> {
    pub grantor: &'a [u8; 32],
    pub grantee: &'a [u8; 32],
    pub active: bool,
    pub max_weight: u16,
    pub min_tier: u8,
    pub scope: &'a [u8],
    pub delegates: &'a [[u8; 32]],
}

impl<'a> AuthorizationView<'a> {
    /// Reads an account's data; the caller has checked its owner, and keeps the data borrowed.
    ///
    /// # Errors
    /// Anchor's `AccountDiscriminatorMismatch`, `AccountDidNotDeserialize`.
    pub fn read(data: &'a [u8]) -> Result<Self> {
        let fields = data
            .strip_prefix(Authorization::DISCRIMINATOR)
            .ok_or(ErrorCode::AccountDiscriminatorMismatch)?;
        Self::fields(fields).ok_or(ErrorCode::AccountDidNotDeserialize.into())
    }

    /// Borsh, field by field.
    fn fields(data: &'a [u8]) -> Option<Self> {
        let (grantor, data) = data.split_first_chunk::<32>()?;
        let (grantee, data) = data.split_first_chunk::<32>()?;
        let ([active, low, high, min_tier, _bump], data) = data.split_first_chunk::<5>()?;
        let (_created_at, data) = data.split_first_chunk::<8>()?;
        let (scope, data) = counted(data, 1)?;
        let (delegates, _) = counted(data, 32)?;
        Some(Self {
            grantor,
            grantee,
            active: *active == 1,
            max_weight: u16::from_le_bytes([*low, *high]),
            min_tier: *min_tier,
            scope,
            delegates: delegates.as_chunks().0,
        })
    }

    /// Whether `key` may act on this authorization: the grantee itself or a delegate.
    pub fn covers(&self, key: &Pubkey) -> bool {
        let key = key.as_array();
        // most differ in the first byte, and comparing 32 is a system call
        let same = |other: &[u8; 32]| other.first() == key.first() && other == key;
        same(self.grantee) || self.delegates.iter().any(same)
    }
}

/// Lets `f` look at an authorization.
///
/// # Errors
/// Anchor's for an account that is none of the authorizer's; what `f` returns.
pub fn with_authorization<T>(
    info: &AccountInfo,
    f: impl FnOnce(&AuthorizationView) -> Result<T>,
) -> Result<T> {
    let closed = info.owner == &System::id() && info.lamports() == 0;
    require!(!closed, ErrorCode::AccountNotInitialized);
    require_keys_eq!(
        *info.owner,
        authorizer::ID,
        ErrorCode::AccountOwnedByWrongProgram
    );
    f(&AuthorizationView::read(&info.try_borrow_data()?)?)
}

/// A vector of items of so many bytes, and what follows it.
fn counted(data: &[u8], size: usize) -> Option<(&[u8], &[u8])> {
    let (count, data) = data.split_first_chunk::<4>()?;
    let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
    data.split_at_checked(count.checked_mul(size)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(num_delegates: usize) -> (Authorization, Vec<u8>) {
        let authorization = Authorization {
            grantor: Pubkey::new_unique(),
            grantee: Pubkey::new_unique(),
            active: num_delegates > 0,
            max_weight: 0x0102,
            min_tier: 2,
            bump: 254,
            created_at: -1,
            scope: b"scope".to_vec(),
            delegates: (0..num_delegates).map(|_| Pubkey::new_unique()).collect(),
        };
        let mut data = Vec::new();
        authorization
            .try_serialize(&mut data)
            .expect("writes to memory");
        (authorization, data)
    }

    #[test]
    fn view_is_what_the_authorizer_wrote() {
        for num_delegates in [0, 1, 64] {
            let (a, mut data) = written(num_delegates);
            data.extend([7; 40]); // what a longer account holds besides
            let view = AuthorizationView::read(&data).expect("reads");
            assert_eq!(
                (Pubkey::from(*view.grantor), Pubkey::from(*view.grantee)),
                (a.grantor, a.grantee)
            );
            assert_eq!(
                (view.active, view.max_weight, view.min_tier),
                (a.active, a.max_weight, a.min_tier)
            );
            assert_eq!(view.scope, a.scope);
            let delegates: Vec<_> = view.delegates.iter().map(|d| Pubkey::from(*d)).collect();
            assert_eq!(delegates, a.delegates);
            for key in [a.grantor, a.grantee, Pubkey::new_unique()] {
                assert_eq!(view.covers(&key), a.covers(&key));
            }
            assert!(a.delegates.iter().all(|d| view.covers(d)));
        }
    }

    #[test]
    fn data_cut_off_anywhere_is_refused() {
        let (_, data) = written(3);
        for len in 0..data.len() {
            assert!(AuthorizationView::read(&data[..len]).is_err(), "{len}");
        }
        assert!(AuthorizationView::read(&data).is_ok());
    }

    #[test]
    fn another_account_is_refused() {
        let (_, mut data) = written(0);
        data[0] ^= 1;
        let mismatch: anchor_lang::error::Error = ErrorCode::AccountDiscriminatorMismatch.into();
        assert_eq!(AuthorizationView::read(&data), Err(mismatch));
    }
}
