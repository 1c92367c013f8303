"""A run that is created, earns and is closed within one slot must not be revived by another at its address.

Runs are told apart by the slot of their creation. The fuzzer's clock often stands still for a while, but it rarely does
all this before a slot is over; so it is written out here.
"""

import pytest

from tests.programs.chain_harness import TREASURER, Run, bitmap, commitment, config

RULES = {"init_min_clients": 1, "total_steps": 1, "max_tier": 0}


@pytest.fixture
def paid_run(chain):
    """A finished run of one member, which earned 1000 units that nobody funded; nothing took any time."""
    issuer = chain.keypair()
    run = Run(chain, capacity=1, mint=chain.mint(issuer))
    chain.token_account(run.mint, run.creator.pubkey())
    run.create()
    run.write_spec()
    run.act("seal_spec")
    run.act("configure", config=config(**RULES))
    run.act("set_round_rate", rate=1000)
    run.act("set_paused", paused=False)
    member = run.member()
    run.join(member)
    run.duty("ready", member)
    run.duty("commit", member, round=1, hash=commitment(member, 1))
    run.duty("witness", member, round=1, bitmap=bitmap({0}))
    run.duty("attest_checkpoint", member, step=1, digests=[bytes(32)])
    run.duty("record_checkpoint", member, uri="hub://weights")
    run.settle(member)
    assert run.state.phase == "Finished"
    assert run.membership_of(member)["earned"] == 1000
    return run, member, issuer


def test_run_that_paid_outlives_the_slot_of_its_creation(chain, paid_run, refused):
    run, _member, _issuer = paid_run
    with refused("ClosedTooSoon"):
        chain.send(TREASURER.instruction("close_pool", run.accounts), run.creator)
    chain.pass_time(0)  # a new slot
    chain.send(TREASURER.instruction("close_pool", run.accounts), run.creator)
    assert chain.data(run.pool) is None


def test_earnings_of_an_earlier_run_are_not_paid_by_the_next(chain, paid_run, refused):
    run, member, issuer = paid_run
    chain.pass_time(0)  # a new slot
    chain.send(TREASURER.instruction("close_pool", run.accounts), run.creator)
    run.create()
    chain.mint_to(run.mint, issuer, run.vault, 500)
    with refused("WrongMembership"):
        run.claim(member)
    assert chain.tokens(run.vault) == 500
