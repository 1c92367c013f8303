"""One way to provoke each error of the authorizer and of the treasurer."""

from collections.abc import Callable
from typing import Any

from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.token.associated import get_associated_token_address

from tests.programs import stages
from tests.programs.chain_harness import TREASURER, Chain, Grant, Run
from tests.programs.crafted import U64_MAX, header_offset, overwrite
from tests.programs.errors_machine import Provocation
from tests.programs.mints import CRAFTED, EXTENSIONS, crafted_run, extended_run


def on_grant(act: Callable[[Grant], object]) -> Provocation:
    """The error of an act on a new authorization."""

    def provoke(chain: Chain) -> None:
        grant = Grant(chain, chain.keypair(), chain.keypair())
        grant.create()
        act(grant)

    return provoke


def scope_length(chain: Chain) -> None:
    Grant(chain, chain.keypair(), chain.keypair(), b"x" * 33).create()


def keys(count: int) -> list[Pubkey]:
    return [Keypair().pubkey() for _ in range(count)]


def delegate(grant: Grant, *add: Pubkey) -> None:
    grant.act("set_delegates", grant.grantee, add=list(add), clear=False)


def too_many_delegates(grant: Grant) -> None:
    for count in (20, 20, 24):
        delegate(grant, *keys(count))
    delegate(grant, *keys(1))


def duplicate_delegate(grant: Grant) -> None:
    (key,) = keys(1)
    delegate(grant, key)
    delegate(grant, key)


def still_active(grant: Grant) -> None:
    grant.set_active(True)
    grant.act("close", grant.grantor)


def still_delegated(grant: Grant) -> None:
    delegate(grant, *keys(1))
    grant.act("close", grant.grantor)


AUTHORIZER_TABLE: dict[str, Provocation] = {
    "ScopeLength": scope_length,
    "ZeroWeight": on_grant(lambda g: g.act("set_limits", g.grantor, max_weight=0, min_tier=0)),
    "WrongGrantor": on_grant(lambda g: g.act("set_active", g.grantee, active=True)),
    "WrongGrantee": on_grant(lambda g: g.act("set_delegates", g.grantor, add=[], clear=True)),
    "TooManyDelegates": on_grant(too_many_delegates),
    "DuplicateDelegate": on_grant(duplicate_delegate),
    "StillActive": on_grant(still_active),
    "StillDelegated": on_grant(still_delegated),
}


def claim_with(run: Run, member: stages.Member, /, **wrong: Pubkey) -> None:
    run.chain.send(TREASURER.instruction("claim", run.member_accounts(member) | wrong))


def finished(chain: Chain) -> stages.Team:
    """A finished run whose pool holds ten times the rate."""
    issuer = chain.keypair()
    run, members = stages.pool_finished(chain, issuer)
    assert run.mint is not None
    chain.mint_to(run.mint, issuer, run.vault, 10 * stages.RATE)
    return run, members


def update_with(run: Run, /, **wrong: Pubkey) -> None:
    action = ("SetRoundRate", {"rate": 5})
    run.chain.send(TREASURER.instruction("update_pool", run.accounts | wrong, action=action), run.creator)


def wrong_authority(chain: Chain) -> None:
    stages.pooled(chain, chain.keypair()).act("set_round_rate", chain.keypair(), rate=5)


def wrong_run(chain: Chain) -> None:
    issuer = chain.keypair()
    run, other = stages.pooled(chain, issuer), stages.pooled(chain, issuer)
    update_with(run, run=other.key)


def wrong_run_state(chain: Chain) -> None:
    issuer = chain.keypair()
    run, other = stages.pooled(chain, issuer), stages.pooled(chain, issuer)
    update_with(run, run_state=other.log.pubkey())


def wrong_mint(chain: Chain) -> None:
    run, members = finished(chain)
    mint, wallet = chain.mint(chain.keypair()), members[0].wallet.pubkey()
    claim_with(run, members[0], mint=mint, wallet_token=get_associated_token_address(wallet, mint))


def wrong_vault(chain: Chain) -> None:
    run, members = finished(chain)
    assert run.mint is not None
    claim_with(run, members[0], vault=chain.token_account(run.mint, Keypair().pubkey()))


def wrong_membership(chain: Chain) -> None:
    run, (first, second, _) = finished(chain)
    claim_with(run, first, membership=run.membership(second.wallet.pubkey()))


def pool_lives(chain: Chain) -> None:
    run, (first, *_) = finished(chain)
    run.claim(first)
    run.close_claim(first)


def wrong_claim(chain: Chain) -> None:
    run, (first, second, _) = finished(chain)
    run.claim(first)
    accounts = run.member_accounts(first) | {"wallet": second.wallet.pubkey()}
    chain.send(TREASURER.instruction("close_claim", accounts), second.wallet)


def authority_missing(chain: Chain) -> None:
    stages.pooled(chain, chain.keypair()).act("set_authority", authority=Pubkey.default())


def overflow(chain: Chain) -> None:
    run, members = finished(chain)
    overwrite(chain, run.pool, 8 + 5 * 32, U64_MAX)  # `paid`
    claim_with(run, members[0])


def run_not_halted(chain: Chain) -> None:
    run, _ = stages.pool_in_warmup(chain, chain.keypair())
    run.act("close_pool")


def run_not_settled(chain: Chain) -> None:
    finished(chain)[0].act("close_pool")


def run_state_unreadable(chain: Chain) -> None:
    run = stages.pooled(chain, chain.keypair())
    overwrite(chain, run.log.pubkey(), header_offset("version"), U64_MAX)
    run.act("close_pool")


def mint_with(make: Callable[..., Run], extension: Any) -> Provocation:
    """The error of a pool for a mint with this extension."""

    def provoke(chain: Chain) -> None:
        make(chain, chain.keypair(), extension).create()

    return provoke


TREASURER_TABLE: dict[str, Provocation] = {
    "WrongAuthority": wrong_authority,
    "WrongRun": wrong_run,
    "WrongRunState": wrong_run_state,
    "WrongMint": wrong_mint,
    "WrongVault": wrong_vault,
    "WrongMembership": wrong_membership,
    "MintTransferFee": mint_with(extended_run, EXTENSIONS["TransferFeeConfig"]),
    "MintTransferHook": mint_with(extended_run, EXTENSIONS["TransferHook"]),
    "MintPermanentDelegate": mint_with(extended_run, EXTENSIONS["PermanentDelegate"]),
    "MintNonTransferable": mint_with(extended_run, EXTENSIONS["NonTransferable"]),
    "MintDefaultState": mint_with(extended_run, EXTENSIONS["DefaultAccountState"]),
    "MintCloseAuthority": mint_with(extended_run, EXTENSIONS["MintCloseAuthority"]),
    "MintPausable": mint_with(crafted_run, CRAFTED["Pausable"]),
    "MintExtension": mint_with(crafted_run, CRAFTED["ConfidentialTransferMint"]),
    "MintUnreadable": mint_with(crafted_run, CRAFTED["cut off"]),
    "AuthorityMissing": authority_missing,
    "Overflow": overflow,
    "RunNotHalted": run_not_halted,
    "RunNotSettled": run_not_settled,
    "RunStateUnreadable": run_state_unreadable,
    "PoolLives": pool_lives,
    "WrongClaim": wrong_claim,
}
