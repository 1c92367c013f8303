"""One way to provoke each error of the coordinator's state machine, through the program.

Each function must be refused with the error that it is listed under.
"""

import hashlib
from collections.abc import Callable
from typing import Any

from tests.programs import calls, stages
from tests.programs.chain_harness import COORDINATOR, Chain, bitmap, config
from tests.programs.crafted import U64_MAX, header_offset, overwrite

Provocation = Callable[[Chain], None]
DIGESTS = [hashlib.sha256(bytes([p])).digest() for p in range(2)]
UNREACHABLE = {
    "Misaligned": "the runtime maps every account's data at a multiple of 8, and a log starts 8 bytes later",
    "NotZeroed": "create_run refuses an account with a byte that is not zero before (RunStateNotEmpty)",
}
"""Errors that no account and no instruction can bring about, with the reason."""


def wrong_size(chain: Chain) -> None:
    stages.Run(chain).create(size=9)


def wrong_version(chain: Chain) -> None:
    run, members = stages.warmup(chain)
    overwrite(chain, run.log.pubkey(), header_offset("version"), (2**63).to_bytes(8, "little"))
    run.duty("ready", members[0])


def overflow(chain: Chain) -> None:
    run = stages.waiting(chain, init_min_clients=1)
    overwrite(chain, run.log.pubkey(), header_offset("epoch"), U64_MAX)
    run.join(run.member())


def nothing_due(chain: Chain) -> None:
    stages.warmup(chain)[0].tick()


def not_configured(chain: Chain) -> None:
    run = stages.created(chain)
    run.join(run.member())


def run_finished(chain: Chain) -> None:
    run, _ = stages.finished(chain)
    run.join(run.member())


def not_halted(chain: Chain) -> None:
    stages.waiting(chain).act("configure", config=config())


def no_such_slot(chain: Chain) -> None:
    run, members = stages.warmup(chain)
    run.duty("ready", members[0], slot=16)


def wrong_signer(chain: Chain) -> None:
    run, members = stages.warmup(chain)
    run.duty("ready", members[0], members[1].hot_key)


def not_present(chain: Chain) -> None:
    run, members = stages.warmup(chain)
    run.duty("leave", members[0])
    run.duty("leave", members[0])


def not_active(chain: Chain) -> None:
    run, _ = stages.warmup(chain)
    late = run.member()
    run.join(late)
    run.duty("ready", late)


def already_joined(chain: Chain) -> None:
    run, members = stages.warmup(chain)
    run.join(members[0])


def table_full(chain: Chain) -> None:
    run = stages.Run(chain, capacity=1)
    run.start(init_min_clients=1)
    run.join(run.member())
    run.join(run.member())


def kept_for_full(chain: Chain) -> None:
    run = stages.Run(chain, capacity=1)
    run.start(init_min_clients=1)
    run.join(run.member(tier=1))


def zero_wallet(chain: Chain) -> None:
    run = stages.waiting(chain)
    run.join(run.member(), p2p_key=bytes(32))


def duplicate_peer(chain: Chain) -> None:
    run, members = stages.warmup(chain)
    run.join(run.member(), p2p_key=members[0].p2p_key)


def tier_too_high(chain: Chain) -> None:
    run = stages.waiting(chain)
    run.join(run.member(), tier=2)


def zero_weight(chain: Chain) -> None:
    run, authority = stages.guarded(chain)
    member = run.member()
    stages.admit(run, authority, member)
    run.join(member, weight=0)


def ready_not_now(chain: Chain) -> None:
    run = stages.waiting(chain)
    member = run.member()
    run.join(member)
    run.duty("ready", member)


def already_ready(chain: Chain) -> None:
    run, members = stages.warmup(chain)
    run.duty("ready", members[0])
    run.duty("ready", members[0])


def not_training(chain: Chain) -> None:
    run, members = stages.warmup(chain)
    run.duty("commit", members[0], round=1, hash=bytes(32))


def wrong_round(chain: Chain) -> None:
    run, members = stages.training(chain)
    run.duty("commit", members[0], round=2, hash=bytes(32))


def not_assigned(chain: Chain) -> None:
    run, members = stages.warmup(chain)
    for m in members[:2]:
        run.duty("ready", m)
    run.duty("leave", members[2])  # nobody is waited for now: the round opens without it
    run.join(members[2])
    run.duty("ready", members[2])
    run.duty("commit", members[2], round=1, hash=bytes(32))


def already_committed(chain: Chain) -> None:
    run, members = stages.training(chain)
    run.duty("commit", members[0], round=1, hash=b"\1" * 32)
    run.duty("commit", members[0], round=1, hash=b"\2" * 32)


def not_witnessing(chain: Chain) -> None:
    run, members = stages.training(chain)
    run.duty("witness", members[0], round=1, bitmap=bytes(32))


def not_witness(chain: Chain) -> None:
    run, members = stages.training(chain, witness_nodes=1)
    run.play_round(members)
    (drawn,) = next(r for r in run.state.rounds if r.number == 1).witnesses
    other = next(m for m in members if m.slot != drawn)
    run.duty("witness", other, round=1, bitmap=bytes(32))


def already_attested(chain: Chain) -> None:
    run, members = stages.training(chain)
    run.play_round(members)
    run.duty("witness", members[0], round=1, bitmap=bitmap({0, 1, 2}))
    run.duty("witness", members[0], round=1, bitmap=bitmap({0, 1}))


def bitmap_not_committed(chain: Chain) -> None:
    run, members = stages.training(chain)
    run.play_round(members)
    run.duty("witness", members[0], round=1, bitmap=bitmap({0, 3}))


def not_cooldown(chain: Chain) -> None:
    run, members = stages.training(chain)
    run.duty("attest_checkpoint", members[1], step=0, digests=DIGESTS[:1])


def wrong_step(chain: Chain) -> None:
    run, members = stages.cooldown(chain)
    run.duty("attest_checkpoint", members[1], step=run.state.step - 1, digests=DIGESTS[:1])


def wrong_digest_count(chain: Chain) -> None:
    run, members = stages.cooldown(chain)
    run.duty("attest_checkpoint", members[1], step=run.state.step, digests=DIGESTS)


def weights_not_agreed(chain: Chain) -> None:
    run, members = stages.cooldown(chain)
    run.duty("record_checkpoint", members[run.state.uploader], uri="hub://x/y")


def uri_recorded(chain: Chain) -> None:
    """Only where the phase cannot end at once: another program calls twice."""
    run, members = stages.cooldown(chain)
    run.attest(members)
    uploader = members[run.state.uploader]
    accounts = run.member_accounts(uploader)
    record = COORDINATOR.instruction("record_checkpoint", accounts, slot=uploader.slot, uri="hub://x/y")
    chain.send(calls.through_caller(record, record), uploader.hot_key)


def not_uploader(chain: Chain) -> None:
    run, members = stages.cooldown(chain)
    run.attest(members)
    other = next(m for m in members if m.slot != run.state.uploader)
    run.duty("record_checkpoint", other, uri="hub://x/y")


def bad_uri(chain: Chain) -> None:
    run, members = stages.cooldown(chain)
    run.attest(members)
    run.duty("record_checkpoint", members[run.state.uploader], uri="hub://x y")


def already_paused(chain: Chain) -> None:
    stages.paused(chain).act("set_paused", paused=True)


def not_paused(chain: Chain) -> None:
    stages.waiting(chain).act("set_paused", paused=False)


def rate_too_high(chain: Chain) -> None:
    run = stages.created(chain)
    run.act("set_round_rate", rate=2**62)
    run.act("set_round_rate", rate=2**62 + 1)


def spec_sealed(chain: Chain) -> None:
    stages.paused(chain).act("seal_spec")


def not_settled(chain: Chain) -> None:
    run, members = stages.paying(chain)
    run.play_epoch(members)
    run.agree(members)
    run.act("close_run")


def rule(**changes: Any) -> Provocation:
    """Configuration with one rule broken."""

    def provoke(chain: Chain) -> None:
        stages.created(chain).act("configure", config=config(**changes))

    return provoke


TOO_LONG = 315_360_001
RULES: dict[str, list[dict[str, Any]]] = {
    "BadWarmupTime": [{"warmup_time": 0}, {"warmup_time": TOO_LONG}, {"warmup_time": 2**64 - 1}],
    "BadCooldownTime": [{"cooldown_time": 0}, {"cooldown_time": TOO_LONG}, {"cooldown_time": 2**64 - 1}],
    "BadRoundTrainTime": [{"max_round_train_time": v} for v in (0, TOO_LONG, 2**64 - 1)],
    "BadRoundWitnessTime": [{"round_witness_time": v} for v in (0, TOO_LONG, 2**64 - 1)],
    "BadEpochTime": [{"epoch_time": v} for v in (0, TOO_LONG, 2**64 - 1)],
    "BadExtraTime": [{"waiting_for_members_extra_time": v} for v in (TOO_LONG, 2**64 - 1)],
    "BadTotalSteps": [{"total_steps": 0}],
    "BadBatchStart": [{"global_batch_size_start": v} for v in (0, 2**24 + 1, 2**32 - 1)],
    "BadBatchEnd": [{"global_batch_size_end": v} for v in (7, 2**24 + 1, 2**32 - 1)],
    "BadMaxSeqLen": [{"max_seq_len": 0}],
    "BadPayPerTier": [{"pay_per_tier": [1, 1, 1, v]} for v in (1_000_001, 2**32 - 1)],
    "BadInitMinClients": [{"init_min_clients": v} for v in (0, 17, 2**16 - 1)],
    "BadMinClients": [{"min_clients": v} for v in (0, 4, 2**16 - 1)],
    "BadMinFullMembers": [{"min_full_members": v} for v in (0, 4, 2**16 - 1)],
    "BadWitnessNodes": [{"witness_nodes": v} for v in (33, 2**16 - 1)],
    "BadMaxMissed": [{"max_missed": 0}],
    "BadMaxFailedWarmups": [{"max_failed_warmups": 0}],
    "BadMaxTier": [{"max_tier": v} for v in (3, 255)],
}
"""Every rule of a configuration, broken at each of its ends and by the largest number that fits."""

TABLE: dict[str, Provocation] = {
    "WrongSize": wrong_size,
    "WrongVersion": wrong_version,
    "Overflow": overflow,
    "NothingDue": nothing_due,
    "NotConfigured": not_configured,
    "RunFinished": run_finished,
    "NotHalted": not_halted,
    "NoSuchSlot": no_such_slot,
    "WrongSigner": wrong_signer,
    "NotPresent": not_present,
    "NotActive": not_active,
    "AlreadyJoined": already_joined,
    "TableFull": table_full,
    "KeptForFull": kept_for_full,
    "ZeroWallet": zero_wallet,
    "DuplicatePeer": duplicate_peer,
    "TierTooHigh": tier_too_high,
    "ZeroWeight": zero_weight,
    "ReadyNotNow": ready_not_now,
    "AlreadyReady": already_ready,
    "NotTraining": not_training,
    "WrongRound": wrong_round,
    "NotAssigned": not_assigned,
    "AlreadyCommitted": already_committed,
    "NotWitnessing": not_witnessing,
    "NotWitness": not_witness,
    "AlreadyAttested": already_attested,
    "BitmapNotCommitted": bitmap_not_committed,
    "NotCooldown": not_cooldown,
    "WrongStep": wrong_step,
    "WrongDigestCount": wrong_digest_count,
    "WeightsNotAgreed": weights_not_agreed,
    "UriRecorded": uri_recorded,
    "NotUploader": not_uploader,
    "BadUri": bad_uri,
    "AlreadyPaused": already_paused,
    "NotPaused": not_paused,
    "RateTooHigh": rate_too_high,
    "SpecSealed": spec_sealed,
    "NotSettled": not_settled,
} | {name: rule(**broken[0]) for name, broken in RULES.items()}
