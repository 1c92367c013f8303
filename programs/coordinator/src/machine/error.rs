//! What the state machine refuses, and what to do about it.

/// Calls `$callback! { Name => "message", ... }` with every error in order, so that the program's
/// error codes are the same list.
#[macro_export]
macro_rules! for_each_machine_error {
    ($callback:ident) => {
        $callback! {
            WrongSize => "The run state account has no valid size: create it with 8 + State::size(capacity) bytes, capacity 1 to 256",
            WrongVersion => "The run state has another version: use the client and program that belong together",
            Misaligned => "The run state is not aligned to 8 bytes in memory: pass the whole account",
            NotZeroed => "The run state is already in use: create a fresh, zeroed account",
            Overflow => "A number left its range: report this with the account's data, nothing was changed",
            NothingDue => "Nothing is due yet: wait for the phase to end",
            NotConfigured => "The run is not ready: the authority must configure it and seal its specification first",
            RunFinished => "The run is finished: nothing more to do, claim what was earned",
            NotHalted => "The run is live: pause it and wait until it is Paused",
            NoSuchSlot => "The run has no slot of this number: read the slot from the membership account again",
            WrongSigner => "The signer is neither the wallet nor the hot key of this slot: sign with the member's key, or read the slot again",
            NotPresent => "The slot's member has left: join again",
            NotActive => "The member takes no part in this epoch: wait for the next warmup, or join again after leaving",
            AlreadyJoined => "This wallet is already a member: leave first to change tier, weight or keys",
            TableFull => "Every slot is taken: settle departed members to free their slots, or wait for one to leave",
            ZeroWallet => "The wallet or the p2p key is all zero: give real keys",
            DuplicatePeer => "Another member uses this p2p key: derive a key of your own",
            TierTooHigh => "The tier is above the run's max_tier: join with a lower tier number",
            ZeroWeight => "The weight is 0: join with a weight of at least 1",
            ReadyNotNow => "ready counts in Warmup, RoundTrain and RoundWitness only: wait for the next warmup",
            AlreadyReady => "The member is ready already: nothing to do",
            NotTraining => "No commits are taken in this phase: wait for the next round",
            WrongRound => "The round is not the one that is asked for now: read the state again",
            NotAssigned => "The slot is not assigned in this round: say ready and wait for the next round",
            AlreadyCommitted => "The slot has committed in this round already: a commitment cannot be changed",
            NotWitnessing => "No attestations are taken in this phase: wait for the next round",
            NotWitness => "The slot is not a witness of this round: nothing to do",
            AlreadyAttested => "The slot has attested already: nothing to do",
            BitmapNotCommitted => "The bitmap names slots that did not commit: attest only committed blobs",
            NotCooldown => "Checkpoints are agreed on in Cooldown only: wait for the end of the epoch",
            WrongStep => "The step is not that of the pending checkpoint: fold up to the end of the log first",
            WrongDigestCount => "A member of tier t gives max_tier - t + 1 digests, smallest slice first",
            WeightsNotAgreed => "The weights are not agreed on yet: wait until more than half attested every part",
            UriRecorded => "The checkpoint's uri is recorded already: nothing to do",
            NotUploader => "Only the drawn uploader records the uri; any active tier 0 member may if it dropped out",
            BadUri => "The uri must be 1 to 128 printable ASCII characters without spaces",
            AlreadyPaused => "The run is paused, or a pause is asked for already: nothing to do",
            NotPaused => "The run is not paused: nothing to do",
            RateTooHigh => "The round rate is above 2^62: choose a lower rate",
            SpecSealed => "The specification is sealed: reset it first",
            NotSettled => "Members have pay that is not settled: call settle for every slot first",
            BadWarmupTime => "warmup_time must be 1 to 315360000 seconds",
            BadCooldownTime => "cooldown_time must be 1 to 315360000 seconds",
            BadRoundTrainTime => "max_round_train_time must be 1 to 315360000 seconds",
            BadRoundWitnessTime => "round_witness_time must be 1 to 315360000 seconds",
            BadEpochTime => "epoch_time must be 1 to 315360000 seconds",
            BadExtraTime => "waiting_for_members_extra_time must be 0 to 315360000 seconds",
            BadTotalSteps => "total_steps must be at least 1",
            BadBatchStart => "global_batch_size_start must be 1 to 16777216 samples",
            BadBatchEnd => "global_batch_size_end must be global_batch_size_start to 16777216 samples",
            BadMaxSeqLen => "max_seq_len must be at least 1 token",
            BadPayPerTier => "every pay_per_tier must be at most 1000000",
            BadInitMinClients => "init_min_clients must be 1 to the run's capacity",
            BadMinClients => "min_clients must be 1 to init_min_clients",
            BadMinFullMembers => "min_full_members must be 1 to init_min_clients",
            BadWitnessNodes => "witness_nodes must be 0 (everyone) to 32",
            BadMaxMissed => "max_missed must be at least 1",
            BadMaxFailedWarmups => "max_failed_warmups must be at least 1",
            BadMaxTier => "max_tier must be 0, 1 or 2",
            KeptForFull => "The last free slots are kept for members of tier 0, without whom no epoch starts: join with tier 0, or when one has joined",
        }
    };
}

macro_rules! define {
    ($($name:ident => $message:literal,)*) => {
        /// Why the machine refused. Append only: the order is the program's error numbers.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum MachineError { $(#[doc = $message] $name,)* }

        impl MachineError {
            /// Every error, in order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            pub fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// What happened and what to do.
            pub fn message(self) -> &'static str {
                match self { $(Self::$name => $message,)* }
            }
        }
    };
}

for_each_machine_error!(define);

impl core::fmt::Display for MachineError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.message())
    }
}

pub(crate) fn ensure(condition: bool, error: MachineError) -> Result<(), MachineError> {
    if condition {
        Ok(())
    } else {
        Err(error)
    }
}
