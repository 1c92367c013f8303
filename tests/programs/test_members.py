"""Members: joining, authorizations, duties by the right key, leaving, settling, eviction."""

import pytest
from chain_harness import COORDINATOR, Grant, Run, bitmap, config
from solders.keypair import Keypair
from solders.pubkey import Pubkey


@pytest.fixture
def closed(chain):
    """A run that admits by authorization, waiting for members."""
    authority = chain.keypair()
    run = Run(chain, join_authority=authority.pubkey())
    run.start()
    return run, authority


def admit(run: Run, authority: Keypair, member, **limits) -> Grant:
    grant = Grant(run.chain, authority, member.wallet)
    grant.create(**limits)
    grant.set_active(True)
    member.authorization = grant.key
    return grant


def test_join_fills_membership_and_slot(live):
    run, members = live
    for i, m in enumerate(members):
        stored = run.membership_of(m)
        assert (stored["wallet"], stored["run_state"]) == (m.wallet.pubkey(), run.log.pubkey())
        assert (stored["slot"], stored["tier"], stored["weight"], stored["earned"]) == (i, m.tier, 1, 0)
        assert stored["p2p_key"] == m.p2p_key
        assert stored["contact"] == "/ip4/127.0.0.1/tcp/4001"
        assert stored["authorization"] == Pubkey.default()
        slot = run.state.slots[i]
        assert slot.wallet == bytes(m.wallet.pubkey())
        assert slot.hot_key == bytes(m.hot_key.pubkey())
    assert run.state.phase == "Warmup"  # the third join made it due
    assert run.membership_of(members[2])["last_epoch"] == 1


def test_membership_offsets_are_frozen(chain, live):
    run, members = live
    data = chain.data(run.membership(members[0].wallet.pubkey()))
    assert data is not None
    assert data[8:40] == bytes(run.log.pubkey())
    assert data[40:72] == bytes(members[0].wallet.pubkey())


def test_open_run_wants_weight_one(live, refused):
    run, _ = live
    for weight in (0, 2):
        with refused("OpenRunWeight"):
            run.join(run.member(), weight=weight)
    run.join(run.member())


def test_join_with_a_long_contact_is_refused(live, refused):
    run, _ = live
    member = run.member()
    with refused("ContactTooLong"):
        run.join(member, contact="x" * 129)
    run.join(member, contact="x" * 128)


def test_join_twice_is_refused(live, refused):
    run, members = live
    with refused("AlreadyJoined"):
        run.join(members[0])


def test_join_with_anothers_p2p_key_is_refused(live, refused):
    run, members = live
    with refused("DuplicatePeer"):
        run.join(run.member(), p2p_key=members[0].p2p_key)


def test_join_without_authorization_is_refused(closed, refused):
    run, authority = closed
    member = run.member()
    with refused("AuthorizationMissing"):
        run.join(member)
    admit(run, authority, member)
    run.join(member)
    assert run.membership_of(member)["authorization"] == member.authorization


def test_join_within_limits_only(closed, refused):
    run, authority = closed
    member = run.member(tier=1, weight=5)
    admit(run, authority, member, max_weight=5, min_tier=1)
    with refused("WeightNotAllowed"):
        run.join(member, weight=6)
    with refused("TierNotAllowed"):
        run.join(member, tier=0)
    run.join(member)
    assert run.membership_of(member)["weight"] == 5


def test_join_with_a_wrong_authorization_is_refused(chain, closed, refused):
    run, authority = closed
    member, friend = run.member(), run.member()
    stranger = chain.keypair()
    admit(run, stranger, member)  # not the join authority's
    with refused("WrongAuthorization"):
        run.join(member)
    other_scope = Grant(chain, authority, member.wallet, b"SomethingElse")
    other_scope.create()
    other_scope.set_active(True)
    member.authorization = other_scope.key
    with refused("WrongAuthorization"):
        run.join(member)
    admit(run, authority, friend)
    member.authorization = friend.authorization  # somebody else's
    with refused("WrongAuthorization"):
        run.join(member)
    grant = admit(run, authority, member)
    grant.set_active(False)
    with refused("AuthorizationInactive"):
        run.join(member)
    grant.set_active(True)
    run.join(member)


def test_join_with_a_forged_authorization_is_refused(chain, closed, refused):
    run, authority = closed
    member = run.member()
    admit(run, authority, member)
    real = chain.svm.get_account(member.authorization)
    member.authorization = Keypair().pubkey()
    forged = type(real)(real.lamports, real.data, Keypair().pubkey(), False, 0)
    chain.svm.set_account(member.authorization, forged)
    with refused("AccountOwnedByWrongProgram"):
        run.join(member)


def test_delegate_joins(closed):
    run, authority = closed
    manager, member = run.member(), run.member()
    grant = admit(run, authority, manager)
    grant.act("set_delegates", manager.wallet, add=[member.wallet.pubkey()], clear=False)
    member.authorization = grant.key
    run.join(member)


def test_evict_only_who_could_not_join_any_more(closed, refused):
    run, authority = closed
    member = run.member(tier=1, weight=3)
    grant = admit(run, authority, member)
    run.join(member)
    evict = COORDINATOR.instruction("evict", run.member_accounts(member))
    with refused("StillAuthorized"):
        run.chain.send(evict)
    elsewhere = run.member_accounts(member) | {"authorization": Keypair().pubkey()}
    with refused("WrongAuthorization"):
        run.chain.send(COORDINATOR.instruction("evict", elsewhere))
    grant.act("set_limits", authority, max_weight=2, min_tier=0)
    left = run.chain.send(evict).event("Left")
    assert (left["slot"], left["reason"]) == (member.slot, "Evicted")
    with refused("NotPresent"):
        run.chain.send(evict)


def test_evict_after_the_authorization_is_closed(closed, refused):
    run, authority = closed
    member = run.member()
    grant = admit(run, authority, member)
    run.join(member)
    grant.set_active(False)
    grant.act("close", authority)
    run.chain.send(COORDINATOR.instruction("evict", run.member_accounts(member)))
    assert run.state.slots[member.slot].status == 3


def test_evict_from_an_open_run_is_refused(live, refused):
    run, members = live
    members[0].authorization = Pubkey.default()
    with refused("StillAuthorized"):
        run.chain.send(COORDINATOR.instruction("evict", run.member_accounts(members[0])))


def test_duties_take_wallet_or_hot_key_only(chain, live, refused):
    run, members = live
    first, second, _ = members
    for signer in (chain.keypair(), second.hot_key, second.wallet):
        with refused("WrongSigner"):
            run.duty("ready", first, signer)
        with refused("WrongSigner"):
            run.duty("leave", first, signer)
    run.duty("ready", first, first.wallet)
    run.duty("ready", second, second.hot_key)
    with refused("NoSuchSlot"):
        run.duty("ready", first, slot=16)
    with refused("NoSuchSlot"):
        run.duty("ready", first, slot=65_535)
    with refused("WrongSigner"):
        run.duty("ready", first, slot=7)  # a free slot


def test_duties_want_the_real_slot_hashes(live, refused):
    run, members = live
    with refused("WrongSlotHashes"):
        accounts = run.member_accounts(members[0]) | {"slot_hashes": Keypair().pubkey()}
        run.chain.send(COORDINATOR.instruction("ready", accounts, slot=0), members[0].hot_key)


def test_commit_and_witness_refusals(live, refused):
    run, members = live
    with refused("NotTraining"):
        run.duty("commit", members[0], round=1, hash=bytes(32))
    for m in members:
        run.duty("ready", m)
    with refused("WrongRound"):
        run.duty("commit", members[0], round=2, hash=bytes(32))
    run.duty("commit", members[0], round=1, hash=b"\1" * 32)
    with refused("AlreadyCommitted"):
        run.duty("commit", members[0], round=1, hash=b"\2" * 32)
    with refused("NotWitnessing"):
        run.duty("witness", members[0], round=1, bitmap=bytes(32))
    run.duty("commit", members[1], round=1, hash=b"\1" * 32)
    run.duty("commit", members[2], round=1, hash=b"\1" * 32)
    assert run.state.open.number == 2
    with refused("BitmapNotCommitted"):
        run.duty("witness", members[0], round=1, bitmap=bitmap({0, 9}))
    with refused("WrongRound"):
        run.duty("witness", members[0], round=2, bitmap=bitmap({0}))
    run.duty("witness", members[0], round=1, bitmap=bitmap({0, 1, 2}))
    with refused("AlreadyAttested"):
        run.duty("witness", members[0], round=1, bitmap=bitmap({0, 1, 2}))
    with refused("NotCooldown"):
        run.duty("attest_checkpoint", members[0], step=2, digests=[bytes(32)] * 2)
    with refused("NotCooldown"):
        run.duty("record_checkpoint", members[0], uri="x")


def test_leave_settle_and_return(live, refused):
    run, members = live
    first = members[0]
    run.act("set_paused", paused=True)
    left = run.duty("leave", first).event("Left")
    assert (left["slot"], left["reason"]) == (0, "Left")
    with refused("NotPresent"):
        run.duty("leave", first)
    assert run.settle(first).event("Settled")["freed"]
    assert run.state.slots[0].status == 0
    assert not run.settle(first).event("Settled")["freed"]  # again: nothing happens
    newcomer = run.member()
    run.join(newcomer)
    assert newcomer.slot == 0
    run.join(first)
    assert first.slot == 3
    assert run.membership_of(first)["slot"] == 3


def test_contact_is_updated_by_its_member_only(chain, live, refused):
    run, members = live
    first, second, _ = members

    def update(signer: Keypair, contact: str) -> None:
        accounts = run.member_accounts(first) | {"signer": signer.pubkey()}
        chain.send(COORDINATOR.instruction("update_contact", accounts, contact=contact), signer)

    update(first.hot_key, "/ip4/1.2.3.4/tcp/1")
    update(first.wallet, "/ip4/1.2.3.4/tcp/2")
    assert run.membership_of(first)["contact"] == "/ip4/1.2.3.4/tcp/2"
    with refused("WrongMember"):
        update(second.hot_key, "x")
    with refused("ContactTooLong"):
        update(first.hot_key, "x" * 129)


def test_close_membership_waits_for_the_slot(chain, live, refused):
    run, members = live
    first, second, _ = members
    close = COORDINATOR.instruction("close_membership", run.member_accounts(first))
    with refused("MembershipInUse"):
        chain.send(close, first.wallet)
    run.act("set_paused", paused=True)
    run.duty("leave", first)
    with refused("MembershipInUse"):
        chain.send(close, first.wallet)
    run.settle(first)
    with refused("WrongMember"):
        accounts = run.member_accounts(first) | {"wallet": second.wallet.pubkey()}
        chain.send(COORDINATOR.instruction("close_membership", accounts), second.wallet)
    before = chain.lamports(first.wallet.pubkey())
    chain.send(close, first.wallet)
    assert chain.lamports(first.wallet.pubkey()) > before
    assert chain.data(run.membership(first.wallet.pubkey())) is None


def test_full_table_takes_a_settled_place(chain, refused):
    run = Run(chain, capacity=3)
    run.start(init_min_clients=3)
    members = [run.member() for _ in range(3)]
    for m in members:
        run.join(m)
    late = run.member()
    with refused("TableFull"):
        run.join(late)
    run.act("set_paused", paused=True)
    run.duty("leave", members[1])
    run.join(late)  # nothing was earned, so no settling is needed
    assert late.slot == 1


def test_tick_with_nothing_due_is_refused(live, refused):
    run, _ = live
    with refused("NothingDue"):
        run.tick()
    run.chain.pass_time(60)
    # nobody was ready: back to waiting, and since everybody is still there, into the next warmup
    assert [e["to"] for name, e in run.tick().events if name == "PhaseChanged"] == [1, 2]
    assert run.state.epoch == 2


def test_pause_waits_for_the_epoch_and_keeps_pay(live, refused):
    run, members = live
    run.act("set_round_rate", rate=99)  # from the next epoch
    with refused("AlreadyPaused"):
        run.act("set_paused", paused=True)
        run.act("set_paused", paused=True)
    run.act("set_paused", paused=False)
    run.chain.send(COORDINATOR.instruction("tick", run.accounts))
    for m in members:
        run.duty("ready", m)
    run.play_round(members)
    assert run.act("set_paused", paused=True).event("PauseRequested")["requested"]
    while run.state.phase == "RoundTrain":
        run.play_round(members)
    run.agree(members)
    state = run.state
    assert state.phase == "Paused"
    assert state.step == 2
    assert state.total_earned == 198
    assert config()["total_steps"] > state.step
