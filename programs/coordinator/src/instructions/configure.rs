//! `configure(config)`: the authority sets the rules of a halted run; the machine checks every one.

use anchor_lang::prelude::*;

use crate::account::with_state;
use crate::events::Emitter;
use crate::machine;
use crate::state::Config;
use crate::{Administer, CoordinatorError};

/// `Config` as it travels in an instruction. Times in seconds.
#[derive(AnchorSerialize, AnchorDeserialize, Clone, Debug)]
pub struct ConfigArgs {
    pub warmup_time: u64,
    pub cooldown_time: u64,
    pub max_round_train_time: u64,
    pub round_witness_time: u64,
    pub epoch_time: u64,
    pub waiting_for_members_extra_time: u64,
    pub global_batch_size_warmup_tokens: u64,
    pub total_steps: u64,
    pub global_batch_size_start: u32,
    pub global_batch_size_end: u32,
    pub max_seq_len: u32,
    pub pay_per_tier: [u32; 4],
    pub init_min_clients: u16,
    pub min_clients: u16,
    pub min_full_members: u16,
    pub witness_nodes: u16,
    pub max_missed: u16,
    pub max_failed_warmups: u16,
    pub max_tier: u8,
}

impl From<&ConfigArgs> for Config {
    fn from(args: &ConfigArgs) -> Self {
        Self {
            warmup_time: args.warmup_time,
            cooldown_time: args.cooldown_time,
            max_round_train_time: args.max_round_train_time,
            round_witness_time: args.round_witness_time,
            epoch_time: args.epoch_time,
            waiting_for_members_extra_time: args.waiting_for_members_extra_time,
            global_batch_size_warmup_tokens: args.global_batch_size_warmup_tokens,
            total_steps: args.total_steps,
            global_batch_size_start: args.global_batch_size_start,
            global_batch_size_end: args.global_batch_size_end,
            max_seq_len: args.max_seq_len,
            pay_per_tier: args.pay_per_tier,
            init_min_clients: args.init_min_clients,
            min_clients: args.min_clients,
            min_full_members: args.min_full_members,
            witness_nodes: args.witness_nodes,
            max_missed: args.max_missed,
            max_failed_warmups: args.max_failed_warmups,
            max_tier: args.max_tier,
            ..bytemuck::Zeroable::zeroed()
        }
    }
}

pub(crate) fn handler(ctx: Context<Administer>, args: ConfigArgs) -> Result<()> {
    let env = crate::clock::env_without_hash()?;
    with_state(&ctx.accounts.run_state, |s| {
        let mut sink = Emitter::new(s.header);
        machine::configure(s, &env, &Config::from(&args), &mut sink)
            .map_err(CoordinatorError::from)?;
        Ok(())
    })
}
