"""A pool that pays in wrapped SOL, whose vault anybody may also send SOL to."""

import pytest
from solders.pubkey import Pubkey
from solders.system_program import TransferParams, transfer
from solders.token import ID as TOKEN

from tests.programs import stages
from tests.programs.chain_harness import Chain, Run
from tests.programs.crafted import place

NATIVE = Pubkey.from_string("So11111111111111111111111111111111111111112")
MINT = bytes(36) + bytes(8) + b"\x09\x01" + bytes(36)
"""The account of wrapped SOL: no authority, no supply, 9 decimals, initialised."""


@pytest.fixture
def ended():
    """A finished run whose three members earned wrapped SOL; nothing funded, nothing settled."""
    chain = Chain()
    place(chain, NATIVE, MINT, TOKEN)

    def make(chain: Chain, _issuer: object) -> Run:
        run = Run(chain, mint=NATIVE)
        run.create()
        chain.token_account(NATIVE, run.creator.pubkey())
        return run

    run, members = stages.pool_in_warmup(chain, chain.keypair(), make)
    run.play_epoch(members)
    run.agree(members)
    return run, members


def pay_sol(run: Run, lamports: int) -> None:
    """A plain transfer of SOL, of which the token program is told nothing."""
    payer = run.chain.rich.pubkey()
    run.chain.send(transfer(TransferParams(from_pubkey=payer, to_pubkey=run.vault, lamports=lamports)))


def test_claim_counts_sol_that_came_as_a_plain_transfer(ended):
    run, members = ended
    earned = run.state.total_earned
    pay_sol(run, earned)
    paid = [run.claim(m).event("Claimed") for m in members]
    assert [event["still_owed"] for event in paid] == [0, 0, 0]
    assert sum(event["amount"] for event in paid) == earned


def test_closing_keeps_sol_that_came_as_a_plain_transfer_for_the_members(ended):
    """Closing a vault of wrapped SOL takes every lamport along, counted or not."""
    run, members = ended
    earned = run.state.total_earned
    pay_sol(run, earned + 7)
    for m in members:
        run.settle(m)
    assert run.act("close_pool").event("Withdrawn") == {
        "pool": run.pool,
        "amount": 7,
        "still_owed": earned,
    }
    assert sum(run.claim(m).event("Claimed")["amount"] for m in members) == earned
    run.act("close_pool")
    assert run.chain.data(run.vault) is None
