//! What the coordinator refuses, and what to do about it. Codes are append-only.
//!
//! The machine's errors come first, in its order and under its names; the program's own start at 200.

use anchor_lang::prelude::*;

use crate::for_each_machine_error;
use crate::machine::MachineError;

macro_rules! define {
    ($($name:ident => $message:literal,)*) => {
        #[error_code]
        pub enum CoordinatorError {
            $(#[msg($message)] $name,)*
            #[msg("This is not the run state of this run: pass the account that the run names")]
            WrongRunState = 200,
            #[msg("Only the run's authority may do that: sign with its key, or use the pool that owns the run")]
            WrongAuthority,
            #[msg("This is not the specification of this run: pass the address derived from the run")]
            WrongSpec,
            #[msg("This is not the SlotHashes sysvar: pass SysvarS1otHashes111111111111111111111111111")]
            WrongSlotHashes,
            #[msg("This is not your membership: sign with its wallet or hot key")]
            WrongMember,
            #[msg("The run id must be 1 to 32 characters of a-z, 0-9 and '-'")]
            RunIdInvalid,
            #[msg("The name is longer than 64 bytes: shorten it")]
            NameTooLong,
            #[msg("The description is longer than 280 bytes: shorten it")]
            DescriptionTooLong,
            #[msg("The minimum client version is longer than 32 bytes: shorten it")]
            ClientVersionTooLong,
            #[msg("The contact is longer than 128 bytes: give fewer addresses")]
            ContactTooLong,
            #[msg("A specification has 1 to 10000 bytes: shorten it")]
            SpecLength,
            #[msg("The piece ends beyond the announced length of the specification: check the offset or reset the specification")]
            SpecTooLong,
            #[msg("The piece leaves a gap behind what is written: write the pieces in order")]
            SpecGap,
            #[msg("The specification is not complete: write the missing pieces first")]
            SpecIncomplete,
            #[msg("The specification does not hash to what was announced: write it again or reset it")]
            SpecHashDiffers,
            #[msg("The authority must not be the zero key: nobody could sign for it")]
            AuthorityMissing,
            #[msg("The run state is already in use: create a fresh account in the same transaction")]
            RunStateNotEmpty,
            #[msg("The recipient is an account that closes here: choose another")]
            RecipientCloses,
            #[msg("In an open run every weight is 1: join with weight 1")]
            OpenRunWeight,
            #[msg("This run admits by authorization: pass the one that the join authority gave you")]
            AuthorizationMissing,
            #[msg("This authorization is not the join authority's for this wallet: ask for one, or become a delegate")]
            WrongAuthorization,
            #[msg("The authorization is not active: ask the join authority to activate it")]
            AuthorizationInactive,
            #[msg("The weight is above what the authorization allows: join with a lower one")]
            WeightNotAllowed,
            #[msg("The tier number is below what the authorization allows: join with a higher one")]
            TierNotAllowed,
            #[msg("The member is still authorized: nothing to evict")]
            StillAuthorized,
            #[msg("The membership has a slot in the run: leave and settle first")]
            MembershipInUse,
            #[msg("The membership has earned and the run lives: close it when the run is closed")]
            MembershipEarned,
            #[msg("Another program may not tick: send it as an instruction of the transaction")]
            TickFromProgram,
            #[msg("Nothing may follow a tick in its transaction: make it the last instruction")]
            TickNotLast,
            #[msg("This is not the Instructions sysvar: pass Sysvar1nstructions1111111111111111111111111")]
            WrongInstructions,
            #[msg("The membership earned in an earlier run at this address: claim that, then close the membership")]
            MembershipOfEarlierRun,
            #[msg("A run that has paid cannot close in the slot of its creation: close it a second later")]
            ClosedTooSoon,
        }

        impl From<MachineError> for CoordinatorError {
            fn from(e: MachineError) -> Self {
                match e { $(MachineError::$name => Self::$name,)* }
            }
        }
    };
}

for_each_machine_error!(define);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_errors_keep_number_and_name() {
        for (i, e) in MachineError::ALL.iter().enumerate() {
            let mapped = CoordinatorError::from(*e);
            assert_eq!(mapped.name(), e.name());
            assert_eq!(u32::from(mapped) as usize, 6000 + i);
        }
        assert!(MachineError::ALL.len() <= 200);
        assert_eq!(u32::from(CoordinatorError::WrongRunState), 6200);
    }
}
