"""A run state's address is used again: nothing that was earned in the first life counts in the second."""

import pytest
from solders.account import Account

from tests.programs.chain_harness import COORDINATOR, Run, config

RATE = 1000


def play(run: Run, members) -> None:
    """From creation to the end."""
    run.write_spec()
    run.act("seal_spec")
    run.act("configure", config=config())
    run.act("set_round_rate", rate=RATE)
    run.act("set_paused", paused=False)
    for m in members:
        run.join(m)
    run.play_epoch(members)
    run.agree(members)
    for m in members:
        run.settle(m)


def again(run: Run) -> None:
    """The same run at the same addresses, in a later slot."""
    run.chain.pass_time(1)
    run.create()


def close_membership(run: Run, member):
    ix = COORDINATOR.instruction("close_membership", run.member_accounts(member))
    return run.chain.send(ix, member.wallet)


@pytest.fixture
def issuer(chain):
    return chain.keypair()


def test_members_must_end_their_first_life_first(chain, refused):
    run = Run(chain)
    run.create()
    members = [run.member(tier) for tier in (0, 1, 1)]
    play(run, members)
    earned = [run.membership_of(m)["earned"] for m in members]
    assert sum(earned) == run.state.total_earned > 0
    first_life = run.state.created_slot
    run.act("close_run")
    again(run)
    assert run.state.created_slot > first_life
    run.write_spec()
    run.act("seal_spec")
    run.act("configure", config=config())
    run.act("set_paused", paused=False)
    with refused("MembershipOfEarlierRun"):
        run.join(members[0])
    for m, value in zip(members, earned, strict=True):
        assert run.settle(m).event("Settled")["moved"] == 0
        assert (
            run.membership_of(m)["earned"] == value
        )  # untouched: it may be owed by a pool of the first life
        close_membership(run, m)
        run.join(m)
        membership = run.membership_of(m)
        assert (membership["earned"], membership["created_slot"]) == (0, run.state.created_slot)


def test_who_earned_nothing_in_the_first_life_joins_the_second_at_once(chain, refused):
    run = Run(chain)
    run.start()
    member = run.member()
    run.join(member)
    run.duty("leave", member)
    run.settle(member)
    run.act("set_paused", paused=True)
    run.act("close_run")
    again(run)
    run.write_spec()
    run.act("seal_spec")
    run.act("configure", config=config())
    run.act("set_paused", paused=False)
    run.join(member)
    assert run.membership_of(member)["created_slot"] == run.state.created_slot
    with refused("MembershipInUse"):
        close_membership(run, member)


def test_second_pool_owes_nothing_to_the_first_life_and_forgets_its_claims(chain, issuer, refused):
    run = Run(chain, mint=chain.mint(issuer))
    run.create()
    chain.token_account(run.mint, run.creator.pubkey())
    members = [run.member(tier) for tier in (0, 1, 1)]
    play(run, members)
    earned = run.state.total_earned
    chain.mint_to(run.mint, issuer, run.vault, earned)
    for m in members:
        run.claim(m)
    run.act("close_pool")
    again(run)
    chain.mint_to(run.mint, issuer, run.vault, 10 * RATE)
    for m in members:
        with refused("WrongMembership"):
            run.claim(m)
        close_membership(run, m)
    before = [chain.tokens(run.member_accounts(m)["wallet_token"]) for m in members]
    play(run, members)
    paid = [run.claim(m).event("Claimed")["amount"] for m in members]
    assert sum(paid) == run.state.total_earned == earned
    after = [chain.tokens(run.member_accounts(m)["wallet_token"]) for m in members]
    assert [a - b for a, b in zip(after, before, strict=True)] == paid


def test_pool_of_a_closed_run_pays_though_the_address_lives_again(chain, issuer, refused):
    run = Run(chain, mint=chain.mint(issuer))
    run.create()
    chain.token_account(run.mint, run.creator.pubkey())
    members = [run.member(tier) for tier in (0, 1, 1)]
    play(run, members)
    earned = run.state.total_earned
    chain.mint_to(run.mint, issuer, run.vault, earned)
    run.act("close_pool")  # the run goes, the pool stays for the members
    bare = Run(chain, creator=run.creator, log=run.log)  # the same addresses, without a pool
    again(bare)
    with refused("MembershipOfEarlierRun"):
        rejoin(bare, members[0])
    assert sum(run.claim(m).event("Claimed")["amount"] for m in members) == earned
    lives = chain.lamports(run.log.pubkey())
    run.act("close_pool")
    assert chain.lamports(run.log.pubkey()) == lives > 0  # the second life is not the pool's


def rejoin(run: Run, member) -> None:
    run.write_spec()
    run.act("seal_spec")
    run.act("configure", config=config())
    run.act("set_paused", paused=False)
    run.join(member)


def test_nobody_blocks_pay_with_an_account_at_a_closed_runs_address(chain, issuer):
    """Whoever holds the run state's key can put an account of the coordinator there that is no log."""
    run = Run(chain, mint=chain.mint(issuer))
    run.create()
    chain.token_account(run.mint, run.creator.pubkey())
    members = [run.member(tier) for tier in (0, 1, 1)]
    play(run, members)
    chain.mint_to(run.mint, issuer, run.vault, 10 * RATE)
    run.act("close_pool")
    for size in (0, 600):
        account = Account(10**9, bytes(size), COORDINATOR.program, False, 0)
        chain.svm.set_account(run.log.pubkey(), account)
        for m in members:
            run.claim(m)
    for m in members:
        owed = run.membership_of(m)["earned"]
        assert chain.tokens(run.member_accounts(m)["wallet_token"]) == owed > 0
        close_membership(run, m)
    run.act("close_pool")
    assert chain.data(run.pool) is None
