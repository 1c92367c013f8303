"""Runs that live twice at the same addresses, and pools that outlive their run, on an audited bank.

A creator may close a run and create it again with the same `RunState` key: then memberships, pool and claims have
the same addresses too, and `created_slot` tells the lives apart. More of it in `test_second_life.py`.
"""

import pytest
from solders.pubkey import Pubkey
from solders.system_program import ID as SYSTEM
from solders.system_program import CreateAccountParams, create_account

from tests.programs import stages
from tests.programs.bank import Bank
from tests.programs.chain_harness import COORDINATOR, TREASURER, Refused, Run, config
from tests.programs.run_state_view import account_size
from tests.programs.stages import RATE


@pytest.fixture(scope="module")
def shared():
    return Bank()


@pytest.fixture
def bank(shared):
    """One bank for all: each test makes runs of its own, and the whole bank is counted after each."""
    yield shared
    shared.audit()


@pytest.fixture
def issuer(bank):
    return bank.keypair()


@pytest.fixture
def ended(bank, issuer):
    """A finished run with a pool, settled; nothing funded."""
    run, members = stages.pool_finished(bank, issuer)
    for m in members:
        run.settle(m)
    return run, members


def again(run: Run) -> Run:
    """The same run created once more, with the same log, in a later slot; in WaitingForMembers."""
    run.chain.pass_time(1)
    reborn = Run(run.chain, mint=run.mint, creator=run.creator, log=run.log)
    reborn.create()
    assert (reborn.key, reborn.pool) == (run.key, run.pool)
    reborn.write_spec()
    reborn.act("seal_spec")
    reborn.act("configure", config=config())
    reborn.act("set_round_rate", rate=10 * RATE)
    reborn.act("set_paused", paused=False)
    return reborn


def close_membership(run: Run, member) -> None:
    run.chain.send(COORDINATOR.instruction("close_membership", run.member_accounts(member)), member.wallet)


def balance(run: Run, member) -> int:
    return run.chain.tokens(run.member_accounts(member)["wallet_token"])


def test_unpaid_earnings_of_an_earlier_life_never_count(bank, issuer, ended, refused):
    run, members = ended
    run.act("close_pool")  # never funded
    reborn = again(run)
    bank.mint_to(run.mint, issuer, reborn.vault, 1000 * RATE)
    for m in members:
        with refused("WrongMembership"):
            reborn.claim(m)
        with refused("MembershipOfEarlierRun"):
            reborn.join(m)
        close_membership(reborn, m)
        reborn.join(m)
        assert reborn.membership_of(m)["earned"] == 0
        assert reborn.claim(m).event("Claimed")["amount"] == 0
    reborn.play_epoch(members)
    reborn.agree(members)
    for m in members:
        reborn.claim(m)
    assert sum(balance(reborn, m) for m in members) == reborn.state.total_earned <= 40 * RATE


def test_settle_and_evict_do_not_mix_lives(bank, ended, refused):
    """A membership of an earlier life names a slot that is another's now."""
    run, members = ended
    run.act("close_pool")
    reborn = again(run)
    newcomer = reborn.member()
    reborn.join(newcomer)
    assert newcomer.slot == members[0].slot
    old = run.membership_of(members[0])
    event = reborn.settle(members[0]).event("Settled")
    assert (event["moved"], event["freed"], event["earned"]) == (0, False, old["earned"])
    assert reborn.state.slots[0].wallet == bytes(newcomer.wallet.pubkey())


def test_pool_pays_after_its_run_is_closed(bank, issuer, ended):
    """The settled membership says what was earned; in pieces, to the last unit; then the pool ends."""
    run, members = ended
    earned = {m.slot: run.membership_of(m)["earned"] for m in members}
    bank.mint_to(run.mint, issuer, run.vault, 10)
    assert run.act("close_pool").event("Withdrawn")["amount"] == 0
    assert bank.data(run.log.pubkey()) is None
    assert run.claim(members[0]).event("Claimed")["amount"] == 10
    bank.mint_to(run.mint, issuer, run.vault, sum(earned.values()))  # 10 too much
    for m in members:
        assert run.claim(m).event("Claimed")["still_owed"] == 0
    assert {m.slot: balance(run, m) for m in members} == earned
    assert run.claim(members[0]).event("Claimed")["amount"] == 0
    assert run.act("close_pool").event("Withdrawn")["amount"] == 10
    assert bank.data(run.pool) is None


def test_two_lives_in_one_slot_are_told_apart(bank, issuer, refused):
    """A creator who trains, closes and creates again before the slot ends would make the earlier earnings count."""
    run, members = stages.pool_in_warmup(bank, issuer)
    run.play_epoch(members, seconds=0)
    run.agree(members)
    for m in members:
        run.settle(m)
    assert run.state.created_slot == bank.slot
    with refused("ClosedTooSoon"):
        run.act("close_pool")
    bank.pass_time(1)
    run.act("close_pool")
    reborn = again(run)
    bank.mint_to(run.mint, issuer, reborn.vault, 10 * RATE)
    for m in members:
        with refused("WrongMembership"):
            reborn.claim(m)


def test_pool_of_a_closed_run_takes_no_orders_but_a_new_authority(bank, issuer, ended):
    run, members = ended
    bank.mint_to(run.mint, issuer, run.vault, 10 * RATE)
    run.act("close_pool")
    for name, args in (("set_round_rate", {"rate": 5}), ("set_paused", {"paused": True}), ("seal_spec", {})):
        with pytest.raises(Refused):
            run.act(name, **args)
    heir = bank.keypair()
    run.act("set_authority", authority=heir.pubkey())
    assert run.account("Pool", run.pool, TREASURER)["authority"] == heir.pubkey()
    for m in members:
        run.claim(m)
    own = {"authority": heir.pubkey(), "authority_token": bank.token_account(run.mint, heir.pubkey())}
    bank.send(TREASURER.instruction("close_pool", run.accounts | own), heir)
    assert bank.data(run.pool) is None


def at_closed_log(bank: Bank, run: Run, size: int, owner: Pubkey) -> None:
    """The creator, who holds the log's key, makes an account of its own liking at the address of the closed log."""
    params = CreateAccountParams(
        from_pubkey=bank.rich.pubkey(),
        to_pubkey=run.log.pubkey(),
        lamports=bank.svm.minimum_balance_for_rent_exemption(size),
        space=size,
        owner=owner,
    )
    bank.send(create_account(params), run.log)


@pytest.mark.parametrize("size", [0, 8, account_size(1), account_size(16)])
@pytest.mark.parametrize("owner", [SYSTEM, COORDINATOR.program, TREASURER.program])
def test_nothing_at_the_closed_log_keeps_members_from_their_pay(bank, issuer, ended, size, owner):
    """Whatever the creator puts there, the members are paid and the pool ends."""
    run, members = ended
    earned = {m.slot: run.membership_of(m)["earned"] for m in members}
    bank.mint_to(run.mint, issuer, run.vault, sum(earned.values()))
    run.act("close_pool")
    at_closed_log(bank, run, size, owner)
    for m in members:
        run.claim(m)
    assert {m.slot: balance(run, m) for m in members} == earned
    run.act("close_pool")
    assert bank.data(run.pool) is None
