"""Authorizations taken back, narrowed, delegated and closed while a run depends on them."""

import pytest
from solders.keypair import Keypair

from tests.programs import stages
from tests.programs.chain_harness import COORDINATOR, Chain, Grant, Run, bitmap, commitment, config
from tests.programs.stages import RATE

THIRTY_DAYS = 30 * 24 * 3600


@pytest.fixture
def at_work(chain):
    """A run that admits by authorization, three members of it in their first round, and their authorizations."""
    authority = chain.keypair()
    run = Run(chain, join_authority=authority.pubkey())
    run.create()
    run.write_spec()
    run.act("seal_spec")
    run.act("configure", config=config(total_steps=20))
    run.act("set_round_rate", rate=RATE)
    run.act("set_paused", paused=False)
    members = [run.member(tier, weight=2) for tier in (0, 1, 1)]
    grants = [stages.admit(run, authority, m) for m in members]
    for m in members:
        run.join(m)
    for m in members:
        run.duty("ready", m)
    return run, members, grants


def evict(run: Run, member):
    return run.chain.send(COORDINATOR.instruction("evict", run.member_accounts(member)))


def test_revoked_member_is_evicted_and_paid_for_what_it_did(at_work):
    run, members, grants = at_work
    gone, others = members[1], [members[0], members[2]]
    run.play_round(members)
    run.duty("commit", gone, round=2, hash=commitment(gone, 2))
    grants[1].set_active(False)
    left = evict(run, gone).event("Left")
    assert (left["reason"], left["slot"]) == ("Evicted", 1)
    run.play_round(others)
    assert run.state.open.assigned == {0, 2}
    for _ in range(2):
        run.play_round(others)
    second = next(r for r in run.state.rounds if r.number == 2)
    assert 1 in second.accepted
    assert run.settle(gone).event("Settled")["moved"] == 2 * RATE // 3


def test_revocation_alone_ends_no_presence_but_keeps_out(at_work, refused):
    """Whoever left after the revocation does not come back."""
    run, members, grants = at_work
    gone = members[1]
    grants[1].set_active(False)
    run.duty("commit", gone, round=1, hash=bytes(32))  # until somebody evicts it
    run.duty("leave", gone)
    with refused("AuthorizationInactive"):
        run.join(gone)
    grants[1].set_active(True)
    assert run.join(gone).event("Joined")["active"]


@pytest.mark.parametrize(
    "narrow",
    [{"max_weight": 1, "min_tier": 0}, {"max_weight": 5, "min_tier": 2}, {"max_weight": 1, "min_tier": 255}],
)
def test_narrowed_limits_evict(at_work, refused, narrow):
    run, members, grants = at_work
    grants[1].act("set_limits", grants[1].grantor, max_weight=2, min_tier=1)
    with refused("StillAuthorized"):
        evict(run, members[1])
    grants[1].act("set_limits", grants[1].grantor, **narrow)
    assert evict(run, members[1]).event("Left")["reason"] == "Evicted"


def test_cleared_delegate_is_evicted(chain, refused):
    run, authority = stages.guarded(chain, init_min_clients=1)
    manager, worker = run.member(), run.member()
    grant = stages.admit(run, authority, manager)
    grant.act("set_delegates", manager.wallet, add=[worker.wallet.pubkey()], clear=False)
    worker.authorization = grant.key
    run.join(worker)
    with refused("StillAuthorized"):
        evict(run, worker)
    grant.act("set_delegates", manager.wallet, add=[], clear=True)
    evict(run, worker)


def test_closed_authorization_evicts_and_one_made_again_keeps(at_work, refused):
    run, members, grants = at_work
    for grant in grants[1:]:
        grant.set_active(False)
        grant.act("close", grant.grantor)
    evict(run, members[1])
    grants[2].create()  # inactive
    grants[2].set_active(True)
    with refused("StillAuthorized"):
        evict(run, members[2])


def test_new_join_authority_evicts_those_of_the_old(chain, at_work):
    run, members, _ = at_work
    values = {"name": "n", "description": "d", "min_client_version": "1"}
    run.act("set_metadata", **values, join_authority=chain.keypair().pubkey())
    for m in members:
        assert evict(run, m).event("Left")["reason"] == "Evicted"


def test_64th_delegate_joins_and_a_65th_is_refused(chain, refused):
    run, authority = stages.guarded(chain)
    manager, last = run.member(), run.member()
    grant = stages.admit(run, authority, manager)
    keys = [Keypair().pubkey() for _ in range(63)] + [last.wallet.pubkey()]
    for at in range(0, 64, 16):
        grant.act("set_delegates", manager.wallet, add=keys[at : at + 16], clear=False)
    assert grant.read()["delegates"] == keys
    with refused("TooManyDelegates"):
        grant.act("set_delegates", manager.wallet, add=[Keypair().pubkey()], clear=False)
    last.authorization = grant.key
    run.join(last)


def test_rent_of_delegates_comes_and_goes_with_them(chain):
    """The authorization's account holds exactly the rent of its size, at every size."""
    grant = Grant(chain, chain.keypair(), chain.keypair())
    grant.create()
    empty = len(chain.data(grant.key))
    for count, clear in ((1, False), (16, False), (20, True), (0, True)):
        add = [Keypair().pubkey() for _ in range(count)]
        grant.act("set_delegates", grant.grantee, add=add, clear=clear)
        size = len(chain.data(grant.key))
        assert size == empty + 32 * len(grant.read()["delegates"])
        assert chain.lamports(grant.key) == chain.svm.minimum_balance_for_rent_exemption(size)
    assert len(chain.data(grant.key)) == empty


@pytest.mark.parametrize(
    ("active", "delegates", "age_s", "error"),
    [
        (True, 0, THIRTY_DAYS, "StillActive"),
        (True, 1, THIRTY_DAYS, "StillActive"),
        (False, 1, 0, "StillDelegated"),
        (False, 1, THIRTY_DAYS - 1, "StillDelegated"),
        (False, 1, THIRTY_DAYS, None),
        (False, 64, 10 * THIRTY_DAYS, None),
        (False, 0, 0, None),
    ],
)
def test_authorization_closes_inactive_and_without_delegates_or_old(refused, active, delegates, age_s, error):
    chain = Chain()  # the clock is moved by months
    grant = Grant(chain, chain.keypair(), chain.keypair())
    grant.create()
    grant.set_active(active)
    keys = [Keypair().pubkey() for _ in range(delegates)]
    for at in range(0, delegates, 16):
        grant.act("set_delegates", grant.grantee, add=keys[at : at + 16], clear=False)
    chain.pass_time(age_s)
    if error is None:
        grant.act("close", grant.grantor)
        assert chain.data(grant.key) is None
    else:
        with refused(error):
            grant.act("close", grant.grantor)


def test_attestation_of_an_evicted_witness_does_not_hold_up_the_round(at_work):
    """The last witness that is waited for is evicted: the phase ends with it."""
    run, members, grants = at_work
    run.play_round(members)
    for m in members:
        run.duty("commit", m, round=2, hash=commitment(m, 2))
    for m in members[:2]:
        run.duty("witness", m, round=1, bitmap=bitmap({0, 1, 2}))
    assert run.state.open.number == 2
    grants[2].set_active(False)
    evict(run, members[2])
    assert run.state.open.number == 3
