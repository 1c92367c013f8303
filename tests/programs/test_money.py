"""Money, on an audited bank: every lamport and every token is somewhere, after every transaction."""

import pytest
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.token import ID as TOKEN

from tests.programs import stages
from tests.programs.bank import Bank
from tests.programs.chain_harness import COORDINATOR, TOKEN_2022, TREASURER, Chain, Run
from tests.programs.mints import CRAFTED, EXTENSIONS, crafted_run, extended_run
from tests.programs.stages import RATE


@pytest.fixture(scope="module")
def shared():
    return Bank()


@pytest.fixture
def bank(shared):
    """One bank for all: each test makes runs of its own, and the whole bank is counted after each."""
    yield shared
    shared.audit()


@pytest.fixture(scope="module")
def unaudited():
    """A chain on which accounts are made out of nothing."""
    return Chain()


@pytest.fixture
def issuer(bank):
    return bank.keypair()


@pytest.fixture
def ended(bank, issuer):
    """A finished run with a pool; nothing funded, nothing settled."""
    return stages.pool_finished(bank, issuer)


def pay_in(bank: Bank, run: Run, payer: Keypair, source: Pubkey, amount: int) -> None:
    """A plain transfer into the vault, as anybody's wallet makes it."""
    metas = [
        AccountMeta(source, False, True),
        AccountMeta(run.vault, False, True),
        AccountMeta(payer.pubkey(), True, False),
    ]
    bank.send(Instruction(TOKEN, b"\3" + amount.to_bytes(8, "little"), metas), payer)


def balance(run: Run, member) -> int:
    return run.chain.tokens(run.member_accounts(member)["wallet_token"])


def close_everything(run: Run, members) -> None:
    """Pool and run, then the memberships."""
    run.act("close_pool")
    for m in members:
        close = COORDINATOR.instruction("close_membership", run.member_accounts(m))
        run.chain.send(close, m.wallet)


def test_audit_notices_what_comes_and_goes():
    """The bank itself: it sees a lamport or a token out of nowhere."""
    bank = Bank()
    key = bank.keypair(1)
    mint = bank.mint(key)
    account = bank.token_account(mint, key.pubkey())
    bank.mint_to(mint, key, account, 5)
    bank.audit()
    assert bank.supplies_of(bank.known) == bank.tokens_of(bank.known) == {mint: 5}
    stored = bank.svm.get_account(account)
    for data, lamports, what in (
        (stored.data[:64] + (6).to_bytes(8, "little") + stored.data[72:], 0, "tokens"),
        (stored.data, 1, "lamports"),
    ):
        bank.svm.set_account(account, type(stored)(stored.lamports + lamports, data, stored.owner, False, 0))
        with pytest.raises(AssertionError, match=f"{what} came or went"):
            bank.audit()
    bank.svm.set_account(account, stored)
    bank.audit()


def test_settling_twice_pays_once(bank, ended):
    run, members = ended
    for m in members:
        first, second = (run.settle(m).event("Settled") for _ in range(2))
        assert first["moved"] == first["earned"] > 0
        assert (second["moved"], second["earned"]) == (0, first["earned"])
    assert sum(run.membership_of(m)["earned"] for m in members) == run.state.total_earned


@pytest.mark.parametrize("pieces", [[1, 1, 1], [RATE, 1, 10**6], [0, 3 * RATE, 7 * RATE]])
def test_claims_in_pieces_add_up(bank, issuer, ended, pieces):
    """The vault is filled little by little; whoever claims takes what is there, never more than it is owed."""
    run, members = ended
    for m in members:
        run.settle(m)
    owed = {m.slot: run.membership_of(m)["earned"] for m in members}
    for amount in [*pieces, sum(owed.values())]:
        bank.mint_to(run.mint, issuer, run.vault, amount)
        for m in members:
            had, there = balance(run, m), bank.tokens(run.vault)
            event = run.claim(m).event("Claimed")
            assert event["amount"] == min(owed[m.slot] - had, there) == balance(run, m) - had
            assert event["still_owed"] == owed[m.slot] - balance(run, m)
    assert {m.slot: balance(run, m) for m in members} == owed
    pool = run.account("Pool", run.pool, TREASURER)
    assert pool["paid"] == sum(owed.values()) == run.state.total_earned
    assert bank.tokens(run.vault) == sum(pieces)


def test_strangers_may_fund_and_authority_takes_the_rest(bank, issuer, ended):
    run, members = ended
    stranger = bank.keypair()
    purse = bank.token_account(run.mint, stranger.pubkey())
    bank.mint_to(run.mint, issuer, purse, 5 * RATE)
    pay_in(bank, run, stranger, purse, 3 * RATE)
    pay_in(bank, run, stranger, purse, 2 * RATE)
    for m in members:
        run.claim(m)
    earned = run.state.total_earned
    assert sum(balance(run, m) for m in members) == earned
    own = run.accounts["authority_token"]
    event = run.act("close_pool").event("Withdrawn")
    assert event["amount"] == 5 * RATE - earned == bank.tokens(own)


def test_everything_closed_leaves_nothing_behind(bank, issuer, ended):
    """Pool, vault, run, log, specification and memberships: each lamport of rent is back with who is meant."""
    run, members = ended
    bank.mint_to(run.mint, issuer, run.vault, 10 * RATE)
    for m in members:
        run.claim(m)
    held = [run.pool, run.vault, run.key, run.log.pubkey(), run.spec_key]
    rent = sum(bank.lamports(key) for key in held)
    memberships = [run.membership(m.wallet.pubkey()) for m in members]
    theirs = {m.slot: bank.lamports(k) for m, k in zip(members, memberships, strict=True)}
    before = bank.lamports(run.creator.pubkey())
    wallets = {m.slot: bank.lamports(m.wallet.pubkey()) for m in members}
    close_everything(run, members)
    assert all(bank.data(key) is None for key in held + memberships)
    assert bank.lamports(run.creator.pubkey()) == before + rent
    for m in members:
        assert bank.lamports(m.wallet.pubkey()) == wallets[m.slot] + theirs[m.slot]


def test_unfunded_pool_closes_and_pays_nobody(bank, ended, refused):
    run, members = ended
    for m in members:
        run.settle(m)
    assert run.act("close_pool").event("PoolClosed")["unpaid"] == 4 * RATE - 1
    with refused("AccountNotInitialized"):
        run.claim(members[0])


def live_again(bank, issuer, run: Run, log: Keypair | None) -> tuple[Run, list]:
    """The same id by the same creator, with a log of this key (or a fresh one), trained to its end."""

    def make(chain, _issuer):
        again = Run(chain, mint=run.mint, creator=run.creator, log=log)
        again.create()
        return again

    return stages.pool_in_warmup(bank, issuer, make)


def test_run_id_created_again_owes_nothing_from_before(bank, issuer, ended):
    run, members = ended
    for m in members:
        run.settle(m)
    run.act("close_pool")  # never funded: the old earnings are lost, and stay lost
    again, fresh = live_again(bank, issuer, run, None)
    assert again.key == run.key
    bank.mint_to(run.mint, issuer, again.vault, 100 * RATE)
    for m in members:
        accounts = again.member_accounts(m) | {"membership": run.membership(m.wallet.pubkey())}
        with pytest.raises(Exception, match="WrongMembership"):
            bank.send(TREASURER.instruction("claim", accounts))
    assert [again.claim(m).event("Claimed")["amount"] for m in fresh] == [0, 0, 0]


@pytest.mark.parametrize(
    "extension", ["MintCloseAuthority, given up", "InterestBearingConfig", "MetadataPointer"]
)
def test_accepted_mint_pays_to_the_last_unit(bank, issuer, extension):
    """A whole epoch in a token with an extension that does no harm."""
    run = extended_run(bank, issuer, EXTENSIONS[extension])
    _full_epoch_in(bank, issuer, run)


def test_plain_mint_of_the_new_program_pays_to_the_last_unit(bank, issuer):
    _full_epoch_in(bank, issuer, Run(bank, mint=bank.mint(issuer, TOKEN_2022), token_program=TOKEN_2022))


def _full_epoch_in(bank: Bank, issuer: Keypair, run: Run) -> None:
    def make(_chain, _issuer):
        run.create()
        bank.token_account(run.mint, run.creator.pubkey(), TOKEN_2022)
        return run

    run, members = stages.pool_in_warmup(bank, issuer, make)
    run.play_epoch(members)
    run.agree(members)
    earned = run.state.total_earned
    bank.mint_to(run.mint, issuer, run.vault, earned + 5, TOKEN_2022)
    for m in members:
        run.claim(m)
        assert balance(run, m) == run.membership_of(m)["earned"] > 0
    run.act("close_pool")
    assert bank.tokens(run.accounts["authority_token"]) == 5


ACCEPTED = {
    "MintCloseAuthority, given up",
    "InterestBearingConfig",
    "ScaledUiAmount",
    "MetadataPointer",
    "TokenMetadata",
    "GroupPointer",
    "TokenGroup",
    "GroupMemberPointer",
    "TokenGroupMember",
}
REFUSED = {
    "TransferFeeConfig": "MintTransferFee",
    "ConfidentialTransferFeeConfig": "MintTransferFee",
    "TransferHook": "MintTransferHook",
    "PermanentDelegate": "MintPermanentDelegate",
    "two, the second refused": "MintPermanentDelegate",
    "NonTransferable": "MintNonTransferable",
    "DefaultAccountState": "MintDefaultState",
    "Pausable": "MintPausable",
    "MintCloseAuthority": "MintCloseAuthority",
    "ConfidentialTransferMint": "MintExtension",
    "ConfidentialMintBurn": "MintExtension",
    "cut off": "MintUnreadable",
    "of no known type": "MintUnreadable",
}


def test_every_extension_is_tried():
    assert set(EXTENSIONS) | set(CRAFTED) == ACCEPTED | set(REFUSED)


@pytest.mark.parametrize("name", EXTENSIONS)
def test_mint_with_an_extension(bank, issuer, refused, name):
    run = extended_run(bank, issuer, EXTENSIONS[name])
    if name in ACCEPTED:
        run.create()
    else:
        with refused(REFUSED[name]):
            run.create()


@pytest.mark.parametrize("name", CRAFTED)
def test_mint_with_an_extension_of_its_account(unaudited, refused, name):
    run = crafted_run(unaudited, unaudited.keypair(), CRAFTED[name])
    if name in ACCEPTED:
        run.create()
    else:
        with refused(REFUSED[name]):
            run.create()
