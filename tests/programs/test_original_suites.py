"""The on-chain suites of the original (its `memnet_*` tests), on an audited bank: no lamport, no token gets lost.

Its mining pool and distributor have no counterpart here. `memnet_coordinator_data_layout` is in
`test_account_fixtures.py`.
"""

import pytest

from tests.programs import stages
from tests.programs.bank import FEE, Bank
from tests.programs.chain_harness import COORDINATOR, TREASURER, Grant, Run, bitmap, config
from tests.programs.stages import RATE


@pytest.fixture(scope="module")
def shared():
    return Bank()


@pytest.fixture
def bank(shared):
    """One bank for all: each test makes runs of its own, and the whole bank is counted after each."""
    yield shared
    shared.audit()


def test_memnet_authorizer_full_cycle(bank, refused):
    """create, activate, delegate, use, revoke, close: and every lamport of rent is back."""
    run, authority = stages.guarded(bank)
    manager, worker = run.member(), run.member()
    grant = Grant(bank, authority, manager.wallet)
    before = bank.lamports(authority.pubkey())
    grant.create()
    worker.authorization = grant.key
    with refused("WrongAuthorization"):
        run.join(worker)  # no delegate yet
    grant.act("set_delegates", manager.wallet, add=[worker.wallet.pubkey()], clear=False)
    with refused("AuthorizationInactive"):
        run.join(worker)
    grant.set_active(True)
    run.join(worker)
    assert run.membership_of(worker)["authorization"] == grant.key
    evict = COORDINATOR.instruction("evict", run.member_accounts(worker))
    with refused("StillAuthorized"):
        bank.send(evict)
    grant.act("set_delegates", manager.wallet, add=[], clear=True)
    assert bank.send(evict).event("Left")["reason"] == "Evicted"
    with refused("StillActive"):
        grant.act("close", authority)
    grant.set_active(False)
    rent = bank.lamports(grant.key)
    grant.act("close", authority)
    assert bank.data(grant.key) is None
    assert bank.lamports(authority.pubkey()) == before + rent  # the rich one paid the fees
    with refused("AuthorizationMissing"):
        worker.authorization = None
        run.join(worker)


def test_memnet_coordinator_full_round(bank, refused):
    """Nothing ticks before its time; wrong authorization; joining again; a round by the right users only."""
    authority, stranger = bank.keypair(), bank.keypair()
    run = Run(bank, join_authority=authority.pubkey())
    run.create()
    with refused("NothingDue"):
        run.tick()  # uninitialised
    run.write_spec()
    run.act("seal_spec")
    run.act("configure", config=config(init_min_clients=2, warmup_time=60))
    with refused("NothingDue"):
        run.tick()  # paused
    run.act("set_paused", paused=False)
    first, second = run.member(0), run.member(1)
    first_grant = stages.admit(run, stranger, first)
    with refused("WrongAuthorization"):
        run.join(first)
    assert first_grant.key == first.authorization
    for member in (first, second):
        stages.admit(run, authority, member)
    with refused("NothingDue"):
        run.tick()
    run.join(first)
    before = run.state
    with refused("AlreadyJoined"):
        run.join(first)
    assert run.state == before  # joining again is harmless
    run.join(second)
    assert run.state.phase == "Warmup"
    for member in (first, second):
        run.duty("ready", member)
    state = run.state
    assert (state.phase, state.open.number, state.step, state.open.assigned) == ("RoundTrain", 1, 1, {0, 1})
    for member in (first, second):
        run.duty("commit", member, round=1, hash=b"\1" * 32)
    assert run.state.open.number == 2
    for signer in (stranger, second.wallet, second.hot_key):
        with refused("WrongSigner"):
            run.duty("witness", first, signer, round=1, bitmap=bitmap({0, 1}))
    run.duty("witness", first, round=1, bitmap=bitmap({0, 1}))
    run.duty("witness", second, second.wallet, round=1, bitmap=bitmap({0, 1}))
    for member in (first, second):
        run.duty("commit", member, round=2, hash=b"\2" * 32)
    closed = next(r for r in run.state.rounds if r.number == 1)
    assert (closed.accepted, closed.status) == ({0, 1}, 3)


def test_memnet_coordinator_init_free(bank):
    """create, close: every lamport of rent returns, and the id is free again."""
    run = Run(bank)
    before = bank.lamports(run.creator.pubkey()), bank.lamports(bank.rich.pubkey())
    run.create()
    rent = before[1] - bank.lamports(bank.rich.pubkey()) - 3 * FEE
    accounts = (run.key, run.log.pubkey(), run.spec_key)
    assert sum(bank.lamports(key) for key in accounts) == rent
    run.act("close_run")
    assert all(bank.data(key) is None for key in accounts)
    assert bank.lamports(run.creator.pubkey()) == before[0] + rent
    Run(bank, creator=run.creator).create()


@pytest.mark.parametrize("rate", [1, 2, 100, 1_000_003, 2**62])
def test_memnet_coordinator_rewards(bank, rate):
    """Every round's rate is shared to the last unit: equal parts, the remainder carried to the next round."""
    run, members = stages.paying(bank, rate)
    run.play_epoch(members)
    rounds = 4 if 4 * rate < 2**64 else 3  # the last round of the highest rate would not fit: it pays nothing
    earned, carry = 0, 0
    for _ in range(rounds):
        part, carry = divmod(rate + carry, 3)
        earned += part
    state = run.state
    assert state.step == 4
    assert [slot.earned for slot in state.slots[:3]] == [earned] * 3
    assert (state.total_earned, state.pay_carry) == (3 * earned, carry)
    assert state.total_earned + state.pay_carry == rounds * rate
    run.agree(members)
    moved = [run.settle(m).event("Settled")["moved"] for m in members]
    assert sum(moved) == state.total_earned
    assert [run.membership_of(m)["earned"] for m in members] == moved


def test_memnet_treasurer_create_update(bank, refused):
    """A pool owns its run; only its authority steers the run through it."""
    issuer = bank.keypair()
    run = stages.pooled(bank, issuer)
    assert run.account("Run", run.key)["authority"] == run.pool
    run.write_spec()
    run.act("seal_spec")
    run.act("configure", config=config())
    run.act("set_round_rate", rate=RATE)
    with refused("WrongAuthority"):
        run.act("set_paused", bank.keypair(), paused=False)
    run.act("set_paused", paused=False)
    assert (run.state.phase, run.state.next_round_rate) == ("WaitingForMembers", RATE)
    pool = run.account("Pool", run.pool, TREASURER)
    assert (pool["authority"], pool["run"], pool["paid"]) == (run.creator.pubkey(), run.key, 0)


def test_memnet_treasurer_full_epoch(bank, refused):
    """Delegates join; nothing is earned before a round closes; an unfunded claim pays nothing and says what is
    owed; after a top-up the claim is exact; closing gives back the rest.

    The original let an unfunded claim fail; here it pays what there is."""
    issuer, authority = bank.keypair(), bank.keypair()
    run = Run(bank, mint=bank.mint(issuer), join_authority=authority.pubkey())
    run.create()
    bank.token_account(run.mint, run.creator.pubkey())
    run.write_spec()
    run.act("seal_spec")
    run.act("configure", config=config())
    run.act("set_round_rate", rate=RATE)
    run.act("set_paused", paused=False)
    manager, members = run.member(), [run.member(tier) for tier in (0, 1, 1)]
    grant = stages.admit(run, authority, manager)
    grant.act("set_delegates", manager.wallet, add=[m.wallet.pubkey() for m in members], clear=False)
    for m in members:
        m.authorization = grant.key
        run.join(m)
    for m in members:
        run.duty("ready", m)
    assert [run.claim(m).event("Claimed")["amount"] for m in members] == [0, 0, 0]
    while run.state.phase == "RoundTrain":
        run.play_round(members)
    run.agree(members)
    for m in members:
        event = run.claim(m).event("Claimed")
        assert (event["amount"], event["still_owed"]) == (0, run.membership_of(m)["earned"])
    owed = [run.membership_of(m)["earned"] for m in members]
    assert sum(owed) == 4 * RATE - run.state.pay_carry
    bank.mint_to(run.mint, issuer, run.vault, sum(owed) + 11)
    for m, earned in zip(members, owed, strict=True):
        run.claim(m)
        assert bank.tokens(run.member_accounts(m)["wallet_token"]) == earned
    assert bank.tokens(run.vault) == 11
    event = run.act("close_pool").event("Withdrawn")
    assert (event["amount"], event["still_owed"]) == (11, 0)
    assert bank.data(run.pool) is None
    with refused("AccountNotInitialized"):
        run.act("close_pool")
