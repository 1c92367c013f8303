//! The two accounts of this program, and the sums that they keep.

use anchor_lang::prelude::*;

/// First seed of a pool's address; then the `RunState`.
#[constant]
pub const SEED_POOL: &[u8] = b"pool";
/// First seed of a claim's address; then pool and wallet.
#[constant]
pub const SEED_CLAIM: &[u8] = b"claim";

/// The authority of a run that pays. Keyed by the `RunState`, which is fresh for every run.
#[account]
#[derive(InitSpace, Debug)]
pub struct Pool {
    pub run_state: Pubkey,
    pub run: Pubkey,
    pub authority: Pubkey,
    pub mint: Pubkey,
    /// The pool's associated token account.
    pub vault: Pubkey,
    /// Paid to members so far.
    pub paid: u64,
    /// Taken out by the authority so far.
    pub withdrawn: u64,
    /// `created_slot` of the run state: tells this run from a later one at the same address.
    pub created_slot: u64,
    /// All that members earned, kept when the run closes; 0 before.
    pub total_earned: u64,
    pub bump: u8,
}

impl Pool {
    /// What members earned and were not paid, once `total_earned` is known.
    pub fn owed(&self) -> u64 {
        self.total_earned.saturating_sub(self.paid)
    }

    /// Whether the pool's run still exists. The pool closes it, and stays only while some of what was earned is unpaid;
    /// whatever lies at the run state's address afterwards is none of its business.
    pub fn run_lives(&self) -> bool {
        self.total_earned == 0
    }
}

/// What one wallet was paid by one pool.
#[account]
#[derive(InitSpace, Debug)]
pub struct Claim {
    pub pool: Pubkey,
    pub wallet: Pubkey,
    pub claimed: u64,
    /// The pool's: what an earlier pool at the same address paid does not count.
    pub created_slot: u64,
    pub bump: u8,
}

/// A payment: what is paid now and what stays owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payment {
    pub amount: u64,
    pub still_owed: u64,
}

/// What to pay somebody who earned `earned` in all and was paid `claimed` of it, out of a vault with `available`.
pub fn payment(earned: u64, claimed: u64, available: u64) -> Payment {
    let owed = earned.saturating_sub(claimed);
    let amount = owed.min(available);
    Payment {
        amount,
        still_owed: owed.saturating_sub(amount),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payment_is_the_rest_as_far_as_the_vault_reaches() {
        assert_eq!(
            payment(100, 30, 1000),
            Payment {
                amount: 70,
                still_owed: 0
            }
        );
        assert_eq!(
            payment(100, 30, 50),
            Payment {
                amount: 50,
                still_owed: 20
            }
        );
        assert_eq!(
            payment(100, 100, 50),
            Payment {
                amount: 0,
                still_owed: 0
            }
        );
        assert_eq!(
            payment(100, 30, 0),
            Payment {
                amount: 0,
                still_owed: 70
            }
        );
        assert_eq!(
            payment(u64::MAX, 0, u64::MAX),
            Payment {
                amount: u64::MAX,
                still_owed: 0
            }
        );
    }
}
