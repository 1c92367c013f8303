//! `join(args)`: a wallet becomes a member, or returns to its slot.

use anchor_lang::prelude::*;

use crate::account::{
    check_contact, with_authorization, with_state, Membership, Run, INSTRUCTIONS_ID, SEED_MEMBER,
    SLOT_HASHES_ID,
};
use crate::admission::check_admission;
use crate::clock::{env, tick_if_last};
use crate::events::Emitter;
use crate::machine::{self, JoinRequest};
use crate::CoordinatorError;

/// What a member declares on joining.
#[derive(AnchorSerialize, AnchorDeserialize, Clone, Debug)]
pub struct JoinArgs {
    pub hot_key: Pubkey,
    pub p2p_key: [u8; 32],
    /// 0 holds the whole model; each tier above half of the FFN of the one before.
    pub tier: u8,
    pub weight: u16,
    /// Comma-separated multiaddrs, at most 128 bytes.
    pub contact: String,
}

#[derive(Accounts)]
pub struct Join<'info> {
    #[account(mut)]
    pub payer: Signer<'info>,
    pub wallet: Signer<'info>,
    #[account(has_one = run_state @ CoordinatorError::WrongRunState)]
    pub run: Box<Account<'info, Run>>,
    /// CHECK: named by the run; `with_state` checks owner, discriminator, version and size.
    #[account(mut)]
    pub run_state: UncheckedAccount<'info>,
    #[account(
        init_if_needed,
        payer = payer,
        space = 8 + Membership::INIT_SPACE,
        seeds = [SEED_MEMBER, run_state.key().as_ref(), wallet.key().as_ref()],
        bump
    )]
    pub membership: Box<Account<'info, Membership>>,
    /// CHECK: `with_authorization` checks owner and discriminator, `check_admission` the rest.
    pub authorization: Option<UncheckedAccount<'info>>,
    /// CHECK: the sysvar, by its address.
    #[account(address = SLOT_HASHES_ID @ CoordinatorError::WrongSlotHashes)]
    pub slot_hashes: UncheckedAccount<'info>,
    /// CHECK: the sysvar, by its address.
    #[account(address = INSTRUCTIONS_ID @ CoordinatorError::WrongInstructions)]
    pub instructions: UncheckedAccount<'info>,
    pub system_program: Program<'info, System>,
}

pub(crate) fn handler(ctx: Context<Join>, args: JoinArgs) -> Result<()> {
    check_contact(&args.contact)?;
    let wallet = ctx.accounts.wallet.key();
    let authorization = ctx.accounts.authorization.as_ref();
    let run = &ctx.accounts.run;
    match authorization {
        None => check_admission(run, None, &wallet, args.weight, args.tier)?,
        Some(info) => with_authorization(info, |a| {
            check_admission(run, Some(a), &wallet, args.weight, args.tier)
        })?,
    }
    let authorization = if run.is_open() {
        None
    } else {
        authorization.map(|a| a.key())
    };
    let request = JoinRequest {
        wallet: wallet.to_bytes(),
        hot_key: args.hot_key.to_bytes(),
        p2p_key: args.p2p_key,
        tier: args.tier,
        weight: args.weight,
    };
    let env = env(&ctx.accounts.slot_hashes)?;
    let earlier = &ctx.accounts.membership;
    let (slot, epoch, created_slot) = with_state(&ctx.accounts.run_state, |s| {
        require!(
            earlier.earned == 0 || earlier.created_slot == s.header.created_slot,
            CoordinatorError::MembershipOfEarlierRun
        );
        let mut sink = Emitter::new(s.header);
        let slot = machine::join(s, &env, &request, &mut sink).map_err(CoordinatorError::from)?;
        tick_if_last(s, &env, &ctx.accounts.instructions, &mut sink)?;
        Ok((slot, s.header.epoch, s.header.created_slot))
    })?;
    let membership = &mut ctx.accounts.membership;
    membership.run_state = ctx.accounts.run_state.key();
    membership.wallet = wallet;
    membership.hot_key = args.hot_key;
    membership.p2p_key = args.p2p_key;
    membership.tier = args.tier;
    membership.weight = args.weight;
    membership.slot = slot;
    membership.bump = ctx.bumps.membership;
    membership.last_epoch = epoch;
    membership.created_slot = created_slot;
    membership.contact = args.contact;
    membership.authorization = authorization.unwrap_or_default();
    Ok(()) // `earned` stays: zero in a new account, and in one of an earlier run
}
