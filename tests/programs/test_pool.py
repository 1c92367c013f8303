"""Pools: a run that pays, from funding to the last unit, and who may take what."""

import pytest
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.token.associated import get_associated_token_address

from tests.programs.chain_harness import (
    COORDINATOR,
    TOKEN,
    TOKEN_2022,
    TREASURER,
    Refused,
    Run,
    config,
)

RATE = 1000


@pytest.fixture
def issuer(chain):
    return chain.keypair()


@pytest.fixture
def pool(chain, issuer):
    """A pool and its run, created and nothing else; the creator has an account of the token."""
    run = Run(chain, mint=chain.mint(issuer))
    run.create()
    chain.token_account(run.mint, run.creator.pubkey())
    return run


@pytest.fixture
def trained(pool, chain):
    """A finished run: three members earned 4 x 1000 in all; nothing funded, nothing settled."""
    pool.write_spec()
    pool.act("seal_spec")
    pool.act("configure", config=config())
    pool.act("set_round_rate", rate=RATE)
    pool.act("set_paused", paused=False)
    members = [pool.member(tier) for tier in (0, 1, 1)]
    for m in members:
        pool.join(m)
    pool.play_epoch(members)
    pool.agree(members)
    assert pool.state.phase == "Finished"
    return pool, members


def balance(run: Run, member) -> int:
    return run.chain.tokens(run.member_accounts(member)["wallet_token"])


def stored(run: Run) -> dict:
    return run.account("Pool", run.pool, TREASURER)


def test_create_pool_makes_the_pool_the_authority(pool):
    assert pool.account("Run", pool.key)["authority"] == pool.pool
    assert pool.account("Run", pool.key)["creator"] == pool.creator.pubkey()
    fields = stored(pool)
    assert (fields["run"], fields["run_state"]) == (pool.key, pool.log.pubkey())
    assert (fields["authority"], fields["mint"], fields["vault"]) == (
        pool.creator.pubkey(),
        pool.mint,
        pool.vault,
    )
    assert (fields["paid"], fields["withdrawn"]) == (0, 0)


def test_create_pool_takes_a_vault_that_somebody_created_before(chain, issuer):
    run = Run(chain, mint=chain.mint(issuer))
    chain.token_account(run.mint, run.pool)
    run.create()


def test_members_are_paid_to_the_last_unit(chain, issuer, trained):
    run, members = trained
    earned = run.state.total_earned
    assert earned + run.state.pay_carry == 4 * RATE
    chain.mint_to(run.mint, issuer, run.vault, earned)
    paid = []
    for m in members:
        claimed = run.claim(m).event("Claimed")
        assert (claimed["wallet"], claimed["still_owed"]) == (m.wallet.pubkey(), 0)
        assert balance(run, m) == claimed["amount"] == run.membership_of(m)["earned"]
        paid.append(claimed["amount"])
    assert sum(paid) == earned == stored(run)["paid"]
    assert chain.tokens(run.vault) == 0
    assert run.claim(members[0]).event("Claimed")["amount"] == 0  # again: nothing is left to pay
    run.act("close_pool")


def test_claim_pays_what_is_there_and_says_what_is_owed(chain, issuer, trained):
    run, members = trained
    first = members[0]
    run.settle(first)
    earned = run.membership_of(first)["earned"]
    empty = run.claim(first).event("Claimed")
    assert (empty["amount"], empty["still_owed"]) == (0, earned)
    chain.mint_to(run.mint, issuer, run.vault, earned - 7)
    part = run.claim(first).event("Claimed")
    assert (part["amount"], part["still_owed"]) == (earned - 7, 7)
    chain.mint_to(run.mint, issuer, run.vault, 100)
    rest = run.claim(first).event("Claimed")
    assert (rest["amount"], rest["still_owed"]) == (7, 0)
    assert balance(run, first) == earned


def test_claim_during_the_run_pays_what_was_earned_so_far(chain, issuer, pool):
    pool.write_spec()
    pool.act("seal_spec")
    pool.act("configure", config=config(total_steps=6))
    pool.act("set_round_rate", rate=RATE)
    pool.act("set_paused", paused=False)
    members = [pool.member() for _ in range(3)]
    for m in members:
        pool.join(m)
    for m in members:
        pool.duty("ready", m)
    for _ in range(3):
        pool.play_round(members)
    assert pool.state.phase == "RoundTrain"
    chain.mint_to(pool.mint, issuer, pool.vault, 10 * RATE)
    early = pool.claim(members[0]).event("Claimed")["amount"]
    assert early > 0
    while pool.state.phase == "RoundTrain":
        pool.play_round(members)
    late = pool.claim(members[0]).event("Claimed")["amount"]
    assert early + late == pool.membership_of(members[0])["earned"] == balance(pool, members[0])


def claim_with(run: Run, member, /, **accounts: Pubkey):
    return run.chain.send(TREASURER.instruction("claim", run.member_accounts(member) | accounts))


def test_claim_goes_to_the_member_whoever_asks(chain, issuer, trained):
    """Nobody can turn a member's pay to itself: every account in between is tied to the wallet."""
    run, (first, second, _) = trained
    chain.mint_to(run.mint, issuer, run.vault, 10 * RATE)
    mallory = chain.keypair()
    own = chain.token_account(run.mint, mallory.pubkey())
    with pytest.raises(Refused, match="ConstraintTokenOwner"):
        claim_with(run, first, wallet_token=own)
    for changes, error in (
        ({"membership": run.membership(second.wallet.pubkey())}, "WrongMembership"),
        ({"claim": run.member_accounts(second)["claim"]}, "ConstraintSeeds"),
        ({"wallet": mallory.pubkey()}, "WrongMembership|ConstraintSeeds"),
    ):
        with pytest.raises(Refused, match=error):
            claim_with(run, first, **changes)
    claim_with(run, first)
    assert chain.tokens(own) == 0
    assert balance(run, first) > 0


def test_claim_ties_pool_run_log_and_vault(chain, issuer, trained):
    run, (first, *_) = trained
    other = Run(chain, mint=run.mint)
    other.create()
    chain.mint_to(run.mint, issuer, run.vault, 10 * RATE)
    chain.mint_to(run.mint, issuer, other.vault, 10 * RATE)
    foreign = other.member_accounts(first)
    mint, wallet = chain.mint(issuer), first.wallet.pubkey()
    for changes, error in (
        ({"pool": other.pool}, "ConstraintSeeds"),
        ({k: foreign[k] for k in ("pool", "run_state", "claim")}, "WrongRun"),
        ({k: foreign[k] for k in ("pool", "run_state", "run", "claim")}, "WrongVault"),
        (
            {k: foreign[k] for k in ("pool", "run_state", "run", "vault", "claim")},
            "WrongMembership",
        ),
        ({"vault": other.vault}, "WrongVault"),
        ({"run": other.key}, "WrongRun"),
        ({"mint": mint, "wallet_token": get_associated_token_address(wallet, mint)}, "WrongMint"),
        ({"coordinator_program": TREASURER.program}, "InvalidProgramId"),
    ):
        with pytest.raises(Refused, match=error):
            claim_with(run, first, **changes)
    claim_with(run, first)


def test_old_earnings_do_not_meet_a_new_vault(chain, issuer, trained):
    run, members = trained
    for m in members:
        run.settle(m)
    run.act("close_pool")  # nothing was ever funded
    again = Run(chain, mint=run.mint, creator=run.creator)
    again.create()
    assert again.key == run.key
    chain.mint_to(run.mint, issuer, again.vault, 10 * RATE)
    old = run.membership(members[0].wallet.pubkey())
    with pytest.raises(Refused, match="WrongMembership"):
        claim_with(again, members[0], membership=old)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("set_round_rate", {"rate": 5}),
        ("set_paused", {"paused": True}),
        ("write_spec", {"offset": 0, "bytes": b"x"}),
        ("set_authority", {"authority": Keypair().pubkey()}),
        ("close_pool", {}),
    ],
)
def test_pool_instructions_by_another_are_refused(chain, pool, refused, name, args):
    mallory = chain.keypair()
    with refused("WrongAuthority"):
        pool.act(name, mallory, **args)


def test_pools_run_does_not_obey_its_creator(chain, pool, refused):
    with refused("WrongAuthority"):
        chain.send(COORDINATOR.instruction("set_round_rate", pool.accounts, rate=5), pool.creator)
    pool.act("set_round_rate", rate=5)


def test_update_pool_reaches_its_own_run_only(chain, pool, refused):
    other = Run(chain, mint=pool.mint)
    other.create()
    action = ("SetRoundRate", {"rate": 5})
    with refused("WrongRun"):
        wrong = pool.accounts | {"run": other.key}
        chain.send(TREASURER.instruction("update_pool", wrong, action=action), pool.creator)
    with refused("ConstraintSeeds"):
        wrong = pool.accounts | {"run_state": other.log.pubkey()}
        chain.send(TREASURER.instruction("update_pool", wrong, action=action), pool.creator)


def test_every_action_of_the_authority_works_through_the_pool(chain, pool, refused):
    pool.write_spec()
    pool.act("seal_spec")
    pool.act("configure", config=config())
    pool.act("set_round_rate", rate=7)
    assert pool.state.next_round_rate == 7
    new = {"name": "n", "description": "d", "min_client_version": "9", "join_authority": Pubkey.new_unique()}
    pool.act("set_metadata", **new)
    assert pool.account("Run", pool.key)["min_client_version"] == "9"
    pool.act("set_paused", paused=False)
    assert pool.state.phase == "WaitingForMembers"
    pool.act("set_paused", paused=True)
    pool.act("reset_spec", spec_len=3, spec_sha256=bytes(32))
    assert pool.account("Run", pool.key)["spec_len"] == 3
    heir = chain.keypair()
    with refused("AuthorityMissing"):
        pool.act("set_authority", authority=Pubkey.default())
    pool.act("set_authority", authority=heir.pubkey())
    with refused("WrongAuthority"):
        pool.act("set_round_rate", rate=8)
    pool.act("set_round_rate", heir, rate=8)


def test_close_pool_waits_for_halt_and_settling(chain, trained, refused):
    run, members = trained
    with refused("RunNotSettled"):
        run.act("close_pool")
    for m in members:
        run.settle(m)
    run.act("close_pool")


def test_close_pool_of_a_live_run_is_refused(pool, refused):
    pool.write_spec()
    pool.act("seal_spec")
    pool.act("configure", config=config())
    pool.act("set_paused", paused=False)
    with refused("RunNotHalted"):
        pool.act("close_pool")


def test_close_pool_leaves_what_members_are_owed(chain, issuer, trained):
    """The run goes at once with all its rent; the pool stays until the members are paid."""
    run, members = trained
    chain.mint_to(run.mint, issuer, run.vault, 10 * RATE)
    for m in members:
        run.settle(m)
    earned = run.state.total_earned
    own = run.accounts["authority_token"]
    of_run, of_pool = [run.key, run.log.pubkey(), run.spec_key], [run.pool, run.vault]
    rent, before = sum(chain.lamports(key) for key in of_run), chain.lamports(run.creator.pubkey())
    first = run.act("close_pool")
    assert first.event("Withdrawn")["still_owed"] == earned
    assert chain.tokens(own) == 10 * RATE - earned == stored(run)["withdrawn"]
    assert chain.tokens(run.vault) == earned == stored(run)["total_earned"]
    assert all(chain.data(key) is None for key in of_run)
    assert chain.lamports(run.creator.pubkey()) == before + rent
    assert run.act("close_pool").event("Withdrawn")["amount"] == 0  # again: the members' part stays
    for m in members:
        run.claim(m)
    rent, before = sum(chain.lamports(key) for key in of_pool), chain.lamports(run.creator.pubkey())
    closed = run.act("close_pool").event("PoolClosed")
    assert closed["unpaid"] == 0
    assert all(chain.data(key) is None for key in of_pool)
    assert chain.lamports(run.creator.pubkey()) == before + rent


def test_a_member_that_cannot_be_paid_does_not_hold_the_run(chain, issuer, trained):
    """Its own token account refuses the pay; only its own part stays behind."""
    run, (odd, *others) = trained
    earned = run.state.total_earned
    chain.mint_to(run.mint, issuer, run.vault, earned)
    own = chain.token_account(run.mint, odd.wallet.pubkey())
    to_nobody = bytes([6, 2, 1]) + bytes(Keypair().pubkey())  # SetAuthority(AccountOwner)
    metas = [AccountMeta(own, False, True), AccountMeta(odd.wallet.pubkey(), True, False)]
    chain.send(Instruction(TOKEN, to_nobody, metas), odd.wallet)
    for m in others:
        run.claim(m)
    with pytest.raises(Refused, match="ConstraintTokenOwner"):
        run.claim(odd)
    run.settle(odd)
    stuck = run.membership_of(odd)["earned"]
    assert run.act("close_pool").event("Withdrawn")["still_owed"] == stuck
    assert chain.data(run.log.pubkey()) is None
    assert chain.tokens(run.vault) == stuck


def test_close_pool_with_an_empty_vault_says_what_was_never_funded(trained):
    run, members = trained
    for m in members:
        run.settle(m)
    earned = run.state.total_earned
    assert run.act("close_pool").event("PoolClosed")["unpaid"] == earned


def test_close_pool_into_the_vault_is_refused(chain, trained, refused):
    run, _ = trained
    with refused("ConstraintDuplicateMutableAccount"):
        wrong = run.accounts | {"authority_token": run.vault}
        chain.send(TREASURER.instruction("close_pool", wrong), run.creator)


def test_mint_of_the_other_token_program_is_refused(chain, issuer, refused):
    with pytest.raises(Refused, match="IncorrectProgramId"):
        Run(chain, mint=chain.mint(issuer), token_program=TOKEN_2022).create()
