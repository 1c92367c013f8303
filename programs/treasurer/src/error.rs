//! What the treasurer refuses, and what to do about it. Codes are append-only.

use anchor_lang::prelude::*;

#[error_code]
pub enum TreasurerError {
    #[msg("Only the pool's authority may do that: sign with its key")]
    WrongAuthority,
    #[msg("This is not the run of this pool: pass the account that the pool names")]
    WrongRun,
    #[msg("This is not the run state of this pool: pass the account that the pool names")]
    WrongRunState,
    #[msg("This is not the token of this pool: pass the mint that the pool names")]
    WrongMint,
    #[msg("This is not the vault of this pool: pass the account that the pool names")]
    WrongVault,
    #[msg("This membership is not the wallet's in this run: pass the address derived from run state and wallet")]
    WrongMembership,
    #[msg("The token charges a fee on transfers, so members would get less than they earned: use another mint")]
    MintTransferFee,
    #[msg(
        "The token calls another program on transfers, which could refuse to pay: use another mint"
    )]
    MintTransferHook,
    #[msg("The token has a permanent delegate, who could empty the vault: use another mint")]
    MintPermanentDelegate,
    #[msg("The token cannot be transferred, so it cannot pay anybody: use another mint")]
    MintNonTransferable,
    #[msg("The token sets a state for new accounts, which can be frozen: use another mint")]
    MintDefaultState,
    #[msg("The token can be paused, which would stop claims: use another mint")]
    MintPausable,
    #[msg("The token has an extension that this program does not know: use another mint")]
    MintExtension,
    #[msg("The mint cannot be read: pass an initialised mint of the token program that is given")]
    MintUnreadable,
    #[msg("The authority must not be the zero key: nobody could sign for it")]
    AuthorityMissing,
    #[msg("A number left its range: report this with the accounts' data, nothing was changed")]
    Overflow,
    #[msg("The run is live: pause it and wait until it is Paused, or Finished")]
    RunNotHalted,
    #[msg("Members have pay that is not settled: call settle for every slot first")]
    RunNotSettled,
    #[msg("The run state cannot be read: use the treasurer and coordinator that belong together")]
    RunStateUnreadable,
    #[msg("The pool may still pay: claim from it, and close the claim once the pool is closed")]
    PoolLives,
    #[msg("This is not the wallet's claim on this pool: pass the address derived from pool and wallet")]
    WrongClaim,
    #[msg("The mint can be closed, and another token made at its address: use a mint without a close authority")]
    MintCloseAuthority,
}
