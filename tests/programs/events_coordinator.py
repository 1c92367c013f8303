"""One scenario for each event of the coordinator: what was told, and what the accounts say.

Each function returns the event's fields and the ones expected, read from accounts or known from what was done.
"""

import hashlib
from collections.abc import Callable
from typing import Any

from tests.programs import stages
from tests.programs.chain_harness import COORDINATOR, SPEC, Chain, Receipt, Run, bitmap, config
from tests.programs.run_state_view import PHASES

Fields = dict[str, Any]
Scenario = Callable[[Chain], tuple[Fields, Fields]]


def run_created(chain: Chain) -> tuple[Fields, Fields]:
    run = Run(chain)
    event = run.create().event("RunCreated")
    stored = run.account("Run", run.key)
    expected = {name: stored[name] for name in ("run_state", "creator", "authority", "run_id")}
    return event, expected | {"run": run.key}


def run_closed(chain: Chain) -> tuple[Fields, Fields]:
    run = stages.created(chain)
    event = run.act("close_run").event("RunClosed")
    assert chain.data(run.key) is None
    return event, {"run": run.key, "run_state": run.log.pubkey()}


def authority_set(chain: Chain) -> tuple[Fields, Fields]:
    run, heir = stages.created(chain), chain.keypair().pubkey()
    event = run.act("set_authority", authority=heir).event("AuthoritySet")
    assert event["authority"] == heir
    return event, {"run": run.key, "authority": run.account("Run", run.key)["authority"]}


def metadata_set(chain: Chain) -> tuple[Fields, Fields]:
    run = stages.created(chain)
    values = {
        "name": "n",
        "description": "d",
        "min_client_version": "1",
        "join_authority": chain.rich.pubkey(),
    }
    event = run.act("set_metadata", **values).event("MetadataSet")
    stored = run.account("Run", run.key)
    assert {k: stored[k] for k in values} == values
    return event, {"run": run.key, "name": stored["name"], "join_authority": stored["join_authority"]}


def spec_reset(chain: Chain) -> tuple[Fields, Fields]:
    run = stages.paused(chain)
    event = run.act("reset_spec", spec_len=77, spec_sha256=b"\5" * 32).event("SpecReset")
    stored = run.account("Run", run.key)
    assert (stored["spec_len"], stored["spec_sha256"]) == (77, b"\5" * 32)
    return event, {name: stored[name] for name in ("spec_len", "spec_sha256")} | {"run": run.key}


def spec_sealed(chain: Chain) -> tuple[Fields, Fields]:
    run = stages.created(chain)
    run.write_spec()
    event = run.act("seal_spec").event("SpecSealed")
    assert run.state.spec_hash == hashlib.sha256(SPEC).digest()
    return event, {"run": run.key, "spec_hash": run.state.spec_hash}


def configured(chain: Chain) -> tuple[Fields, Fields]:
    run = stages.created(chain)
    event = run.act("configure", config=config(total_steps=12345)).event("Configured")
    return event, {"run": run.key, "total_steps": 12345}


def round_rate_set(chain: Chain) -> tuple[Fields, Fields]:
    run = stages.created(chain)
    event = run.act("set_round_rate", rate=54321).event("RoundRateSet")
    assert run.state.next_round_rate == 54321
    return event, {"run": run.key, "rate": run.state.next_round_rate}


def pause_requested(chain: Chain) -> tuple[Fields, Fields]:
    run, _ = stages.training(chain)
    event = run.act("set_paused", paused=True).event("PauseRequested")
    assert run.state.flags & 1
    taken_back = run.act("set_paused", paused=False).event("PauseRequested")
    assert taken_back == {"run": run.key, "requested": False}
    assert not run.state.flags & 1
    return event, {"run": run.key, "requested": True}


def contact_updated(chain: Chain) -> tuple[Fields, Fields]:
    run, (first, *_) = stages.warmup(chain)
    update = COORDINATOR.instruction("update_contact", run.member_accounts(first), contact="/dns/a/tcp/1")
    event = chain.send(update, first.hot_key).event("ContactUpdated")
    stored = run.membership_of(first)
    assert stored["contact"] == "/dns/a/tcp/1"
    return event, {"run_state": stored["run_state"], "wallet": stored["wallet"]}


def joined(chain: Chain) -> tuple[Fields, Fields]:
    run, authority = stages.guarded(chain)
    member = run.member(tier=1, weight=4)
    stages.admit(run, authority, member)
    event = run.join(member).event("Joined")
    stored = run.membership_of(member)
    names = ("slot", "wallet", "tier", "weight")
    assert (stored["tier"], stored["weight"]) == (1, 4)
    return event, {name: stored[name] for name in names} | {"run": run.key, "active": False}


def left(chain: Chain) -> tuple[Fields, Fields]:
    run, members = stages.warmup(chain)
    member = members[1]
    event = run.duty("leave", member).event("Left")
    assert run.state.slots[member.slot].status == 3
    wallet = member.wallet.pubkey()
    return event, {"run": run.key, "slot": member.slot, "wallet": wallet, "reason": "Left"}


def settled(chain: Chain) -> tuple[Fields, Fields]:
    run, members = stages.paying(chain)
    run.play_epoch(members)
    member = members[0]
    earned = run.state.slots[member.slot].earned
    assert earned > 0
    event = run.settle(member).event("Settled")
    stored = run.membership_of(member)
    assert (stored["earned"], run.state.slots[member.slot].earned) == (earned, 0)
    expected = {name: stored[name] for name in ("wallet", "slot", "earned")}
    return event, expected | {"run": run.key, "moved": earned, "freed": False}


def membership_closed(chain: Chain) -> tuple[Fields, Fields]:
    run, members = stages.warmup(chain)
    member = members[0]
    run.act("set_paused", paused=True)
    run.duty("leave", member)
    run.settle(member)
    accounts = run.member_accounts(member)
    receipt = chain.send(COORDINATOR.instruction("close_membership", accounts), member.wallet)
    assert chain.data(run.membership(member.wallet.pubkey())) is None
    return receipt.event("MembershipClosed"), {
        "run_state": run.log.pubkey(),
        "wallet": member.wallet.pubkey(),
    }


def last_join(chain: Chain) -> tuple[Run, Receipt]:
    """The join that makes a warmup due."""
    run = stages.waiting(chain, init_min_clients=2)
    run.join(run.member(0))
    return run, run.join(run.member(1))


def phase_changed(chain: Chain) -> tuple[Fields, Fields]:
    run, receipt = last_join(chain)
    state = run.state
    phases = {"from": PHASES.index("WaitingForMembers"), "to": PHASES.index(state.phase)}
    position = {"epoch": state.epoch, "step": state.step, "round": state.next_round - 1}
    return receipt.event("PhaseChanged"), phases | position | {"run": run.key}


def epoch_started(chain: Chain) -> tuple[Fields, Fields]:
    run = stages.paused(chain, init_min_clients=2)
    run.act("set_round_rate", rate=7)
    run.act("set_paused", paused=False)
    run.join(run.member(0))
    receipt = run.join(run.member(1))
    state = run.state
    active = {i for i, slot in enumerate(state.slots) if slot.status == 2}
    assert (active, state.round_rate) == ({0, 1}, 7)
    expected = {"epoch": state.epoch, "members": bitmap(active), "round_rate": state.round_rate}
    return receipt.event("EpochStarted"), expected | {"run": run.key}


def round_opened(chain: Chain) -> tuple[Fields, Fields]:
    """The second round: with witnesses of the first."""
    run, members = stages.training(chain)
    for m in members[:-1]:
        run.duty("commit", m, round=1, hash=b"\1" * 32)
    event = run.duty("commit", members[-1], round=1, hash=b"\1" * 32).event("RoundOpened")
    state = run.state
    now, before = state.open, next(r for r in state.rounds if r.number == 1)
    assert before.witnesses == {0, 1, 2}
    names = ("step", "epoch", "seed", "data_index", "samples")
    expected = {name: getattr(now, name) for name in names}
    sets = {"assigned": bitmap(now.assigned), "witnesses": bitmap(before.witnesses)}
    return event, expected | sets | {"run": run.key, "round": 2, "trained": True}


def round_closed(chain: Chain) -> tuple[Fields, Fields]:
    """One of three did not commit: its samples return."""
    run, members = stages.paying(chain)
    for m in members:
        run.duty("ready", m)
    before = run.state
    for m in members[:2]:
        run.duty("commit", m, round=1, hash=b"\1" * 32)
    chain.pass_time(60)
    run.tick()
    for m in members[:2]:
        run.duty("witness", m, round=1, bitmap=bitmap({0, 1}))
    for m in members[:1]:
        run.duty("commit", m, round=2, hash=b"\2" * 32)
    event = run.duty("commit", members[1], round=2, hash=b"\2" * 32).event("RoundClosed")
    state = run.state
    closed = next(r for r in state.rounds if r.number == 1)
    assert (closed.accepted, closed.assigned) == ({0, 1}, {0, 1, 2})
    paid = sum(slot.earned for slot in state.slots)
    assert paid == state.total_earned == stages.RATE - state.pay_carry > 0
    assert before.open.samples == 8
    sets = {"assigned": bitmap(closed.assigned), "accepted": bitmap(closed.accepted)}
    numbers = {"round": 1, "step": closed.step, "epoch": closed.epoch, "trained": True}
    kept = 2 + 5 * 2 // 3  # one each, and two thirds of the five to spare, for the two that committed
    rest = {"paid": paid, "returned": 8 - kept, "lost": 0, "history": state.history}
    return event, sets | numbers | rest | {"run": run.key}


def dropped(chain: Chain) -> tuple[Fields, Fields]:
    """One misses more than it may."""
    run, members = stages.training(chain, max_missed=1)
    for m in members[:2]:
        run.duty("commit", m, round=1, hash=b"\1" * 32)
    chain.pass_time(60)
    run.tick()
    for m in members[:2]:
        run.duty("witness", m, round=1, bitmap=bitmap({0, 1}))
    run.duty("commit", members[0], round=2, hash=b"\2" * 32)
    event = run.duty("commit", members[1], round=2, hash=b"\2" * 32).event("Dropped")
    gone = {i for i, slot in enumerate(run.state.slots) if slot.status == 3}
    assert gone == {2}
    return event, {"run": run.key, "members": bitmap(gone), "reason": "MissedRounds"}


def agreement(chain: Chain) -> tuple[Run, Receipt, Receipt]:
    """The last vote on the weights, and the record of where they are."""
    run, members = stages.cooldown(chain)
    state = run.state
    digests = [hashlib.sha256(bytes([p])).digest() for p in range(2)]
    for m in members[1:]:
        run.duty("attest_checkpoint", m, step=state.step, digests=digests[:1])
    vote = run.duty("attest_checkpoint", members[0], step=state.step, digests=digests)
    record = run.duty("record_checkpoint", members[state.uploader], uri="hub://a/b")
    return run, vote, record


def checkpoint_agreed(chain: Chain) -> tuple[Fields, Fields]:
    run, vote, _ = agreement(chain)
    state = run.state
    expected = {"step": state.checkpoint_step, "epoch": state.epoch, "weights_hash": state.weights_hash}
    assert state.weights_hash != bytes(32)
    return vote.event("CheckpointAgreed"), expected | {"run": run.key}


def checkpoint_recorded(chain: Chain) -> tuple[Fields, Fields]:
    run, _, record = agreement(chain)
    state = run.state
    assert state.uri == b"hub://a/b"
    expected = {"step": state.checkpoint_step, "epoch": state.epoch, "uri_len": len(state.uri)}
    return record.event("CheckpointRecorded"), expected | {"run": run.key}


def rewound(chain: Chain) -> tuple[Fields, Fields]:
    """An epoch without an agreement, then a warmup in which nobody is ready."""
    run, _ = stages.cooldown(chain, total_steps=1000, epoch_time=1, max_failed_warmups=1)
    before = run.state
    assert before.step > 0
    chain.pass_time(60)
    run.tick()  # nothing was agreed; everybody is there: the next warmup
    chain.pass_time(60)
    event = run.tick().event("Rewound")
    state = run.state
    assert (state.step, state.history) == (0, bytes(32))
    expected = {"to_step": state.step, "data_index": state.data_index, "history": state.history}
    return event, expected | {"run": run.key, "from_step": before.step, "lost_samples": 0}


TABLE: dict[str, Scenario] = {
    "RunCreated": run_created,
    "RunClosed": run_closed,
    "AuthoritySet": authority_set,
    "MetadataSet": metadata_set,
    "SpecReset": spec_reset,
    "SpecSealed": spec_sealed,
    "Configured": configured,
    "RoundRateSet": round_rate_set,
    "PauseRequested": pause_requested,
    "ContactUpdated": contact_updated,
    "Joined": joined,
    "Left": left,
    "Settled": settled,
    "MembershipClosed": membership_closed,
    "PhaseChanged": phase_changed,
    "EpochStarted": epoch_started,
    "RoundOpened": round_opened,
    "RoundClosed": round_closed,
    "Dropped": dropped,
    "CheckpointAgreed": checkpoint_agreed,
    "CheckpointRecorded": checkpoint_recorded,
    "Rewound": rewound,
}
