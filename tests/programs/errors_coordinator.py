"""One way to provoke each of the coordinator's own errors (those that are not the state machine's)."""

import hashlib
from collections.abc import Callable
from typing import Any

from solders.pubkey import Pubkey

from tests.programs import calls, stages
from tests.programs.chain_harness import COORDINATOR, Chain, Run
from tests.programs.errors_machine import Provocation

STRANGE = Pubkey(b"an address that nobody has known")


def on_created(act: Callable[[Run], object]) -> Provocation:
    """The error of an act on a run that was just created."""

    def provoke(chain: Chain) -> None:
        act(stages.created(chain))

    return provoke


def created_with(**fields: Any) -> Provocation:
    """The error of a creation."""

    def provoke(chain: Chain) -> None:
        Run(chain).create(**fields)

    return provoke


def sent(name: str, run: Run, wrong: dict[str, Pubkey | None], *signers: Any, **args: Any) -> None:
    """Send an instruction of the coordinator with some accounts replaced."""
    run.chain.send(COORDINATOR.instruction(name, run.accounts | wrong, **args), *signers)


def wrong_run_state(chain: Chain) -> None:
    run, other = stages.created(chain), stages.created(chain)
    sent("set_round_rate", run, {"run_state": other.log.pubkey()}, run.creator, rate=5)


def wrong_authority(chain: Chain) -> None:
    stages.created(chain).act("set_round_rate", chain.keypair(), rate=5)


def wrong_spec(chain: Chain) -> None:
    run, other = stages.created(chain), stages.created(chain)
    sent("seal_spec", run, {"spec": other.spec_key}, run.creator)


def wrong_slot_hashes(chain: Chain) -> None:
    sent("tick", stages.waiting(chain), {"slot_hashes": STRANGE})


def wrong_member(chain: Chain) -> None:
    run, (first, second, _) = stages.warmup(chain)
    accounts = run.member_accounts(first) | {"signer": second.hot_key.pubkey()}
    chain.send(COORDINATOR.instruction("update_contact", accounts, contact="x"), second.hot_key)


def run_id_invalid(chain: Chain) -> None:
    Run(chain, run_id="Llama").create()


def contact_too_long(chain: Chain) -> None:
    run = stages.waiting(chain)
    run.join(run.member(), contact="x" * 129)


def spec_too_long(chain: Chain) -> None:
    stages.created(chain).act("write_spec", offset=2**32 - 1, bytes=b"xx")


def spec_gap(chain: Chain) -> None:
    stages.created(chain).act("write_spec", offset=1, bytes=b"x")


def spec_hash_differs(chain: Chain) -> None:
    run = Run(chain)
    run.create(spec_sha256=hashlib.sha256(b"something else").digest())
    run.write_spec()
    run.act("seal_spec")


def run_state_not_empty(chain: Chain) -> None:
    first = stages.created(chain)
    second = Run(chain, run_id="another", creator=first.creator, log=first.log)
    chain.send(second.create_instruction(), second.creator, second.log)


def recipient_closes(chain: Chain) -> None:
    run = stages.created(chain)
    sent("close_run", run, {"recipient": run.log.pubkey()}, run.creator)


def open_run_weight(chain: Chain) -> None:
    run = stages.waiting(chain)
    run.join(run.member(), weight=2)


def authorization_missing(chain: Chain) -> None:
    run, _ = stages.guarded(chain)
    run.join(run.member())


def wrong_authorization(chain: Chain) -> None:
    run, _ = stages.guarded(chain)
    member = run.member()
    stages.admit(run, chain.keypair(), member)
    run.join(member)


def authorization_inactive(chain: Chain) -> None:
    run, authority = stages.guarded(chain)
    member = run.member()
    stages.admit(run, authority, member).set_active(False)
    run.join(member)


def weight_not_allowed(chain: Chain) -> None:
    run, authority = stages.guarded(chain)
    member = run.member(weight=6)
    stages.admit(run, authority, member, max_weight=5)
    run.join(member)


def tier_not_allowed(chain: Chain) -> None:
    run, authority = stages.guarded(chain)
    member = run.member(tier=0)
    stages.admit(run, authority, member, min_tier=1)
    run.join(member)


def still_authorized(chain: Chain) -> None:
    run, authority = stages.guarded(chain)
    member = run.member()
    stages.admit(run, authority, member)
    run.join(member)
    chain.send(COORDINATOR.instruction("evict", run.member_accounts(member)))


def close_membership(run: Run, member: stages.Member) -> None:
    run.chain.send(COORDINATOR.instruction("close_membership", run.member_accounts(member)), member.wallet)


def membership_in_use(chain: Chain) -> None:
    run, members = stages.warmup(chain)
    close_membership(run, members[0])


def membership_earned(chain: Chain) -> None:
    run, members = stages.paying(chain)
    run.play_epoch(members)
    run.settle(members[0])
    close_membership(run, members[0])


def tick_not_last(chain: Chain) -> None:
    run, _ = stages.warmup(chain)
    chain.pass_time(60)  # due
    tick = COORDINATOR.instruction("tick", run.accounts)
    chain.send([tick, tick])


def wrong_instructions(chain: Chain) -> None:
    sent("tick", stages.waiting(chain), {"instructions": STRANGE})


def membership_of_earlier_run(chain: Chain) -> None:
    """The same log once more: what was earned in its first life is neither lost nor mixed in."""
    run, members = stages.paying(chain)
    run.play_epoch(members)
    run.agree(members)
    for m in members:
        run.settle(m)
    run.act("close_run")
    chain.pass_time(1)
    run.start()
    run.join(members[0])


def closed_too_soon(chain: Chain) -> None:
    run, members = stages.paying(chain)
    run.play_epoch(members, seconds=0)
    run.agree(members)
    for m in members:
        run.settle(m)
    run.act("close_run")


def tick_from_program(chain: Chain) -> None:
    run, _ = stages.warmup(chain)
    chain.pass_time(60)  # due
    tick = COORDINATOR.instruction("tick", run.accounts)
    chain.send(calls.through_caller(tick))


TABLE: dict[str, Provocation] = {
    "WrongRunState": wrong_run_state,
    "WrongAuthority": wrong_authority,
    "WrongSpec": wrong_spec,
    "WrongSlotHashes": wrong_slot_hashes,
    "WrongMember": wrong_member,
    "RunIdInvalid": run_id_invalid,
    "NameTooLong": created_with(name="x" * 65),
    "DescriptionTooLong": created_with(description="x" * 281),
    "ClientVersionTooLong": created_with(min_client_version="x" * 33),
    "ContactTooLong": contact_too_long,
    "SpecLength": created_with(spec_len=10_001),
    "SpecTooLong": spec_too_long,
    "SpecGap": spec_gap,
    "SpecIncomplete": on_created(lambda run: run.act("seal_spec")),
    "SpecHashDiffers": spec_hash_differs,
    "AuthorityMissing": created_with(authority=Pubkey.default()),
    "RunStateNotEmpty": run_state_not_empty,
    "RecipientCloses": recipient_closes,
    "OpenRunWeight": open_run_weight,
    "AuthorizationMissing": authorization_missing,
    "WrongAuthorization": wrong_authorization,
    "AuthorizationInactive": authorization_inactive,
    "WeightNotAllowed": weight_not_allowed,
    "TierNotAllowed": tier_not_allowed,
    "StillAuthorized": still_authorized,
    "MembershipInUse": membership_in_use,
    "MembershipEarned": membership_earned,
    "TickFromProgram": tick_from_program,
    "TickNotLast": tick_not_last,
    "WrongInstructions": wrong_instructions,
    "MembershipOfEarlierRun": membership_of_earlier_run,
    "ClosedTooSoon": closed_too_soon,
}
