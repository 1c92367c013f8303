"""One scenario for each event of the authorizer and of the treasurer; as in `events_coordinator`."""

from tests.programs import stages
from tests.programs.chain_harness import TREASURER, Chain, Grant, Receipt, Run
from tests.programs.events_coordinator import Fields, Scenario


def new_grant(chain: Chain) -> Grant:
    return Grant(chain, chain.keypair(), chain.keypair())


def granted(chain: Chain) -> Grant:
    grant = new_grant(chain)
    grant.create()
    return grant


def created(chain: Chain) -> tuple[Fields, Fields]:
    grant = new_grant(chain)
    event = grant.create().event("Created")
    stored = grant.read()
    expected = {name: stored[name] for name in ("grantor", "grantee", "scope")}
    return event, expected | {"authorization": grant.key}


def active_set(chain: Chain) -> tuple[Fields, Fields]:
    grant = granted(chain)
    event = grant.set_active(True).event("ActiveSet")
    assert grant.read()["active"]
    assert grant.set_active(False).event("ActiveSet") == {"authorization": grant.key, "active": False}
    assert not grant.read()["active"]
    return event, {"authorization": grant.key, "active": True}


def limits_set(chain: Chain) -> tuple[Fields, Fields]:
    grant = granted(chain)
    event = grant.act("set_limits", grant.grantor, max_weight=77, min_tier=2).event("LimitsSet")
    stored = grant.read()
    assert (stored["max_weight"], stored["min_tier"]) == (77, 2)
    return event, {"authorization": grant.key, "max_weight": 77, "min_tier": 2}


def delegates_set(chain: Chain) -> tuple[Fields, Fields]:
    grant = granted(chain)
    add = [chain.fresh_key().pubkey() for _ in range(3)]
    event = grant.act("set_delegates", grant.grantee, add=add, clear=False).event("DelegatesSet")
    assert grant.read()["delegates"] == add
    return event, {"authorization": grant.key, "num_delegates": 3}


def closed(chain: Chain) -> tuple[Fields, Fields]:
    grant = granted(chain)
    event = grant.act("close", grant.grantor).event("Closed")
    assert chain.data(grant.key) is None
    return event, {"authorization": grant.key}


AUTHORIZER_TABLE: dict[str, Scenario] = {
    "Created": created,
    "ActiveSet": active_set,
    "LimitsSet": limits_set,
    "DelegatesSet": delegates_set,
    "Closed": closed,
}


def stored_pool(run: Run) -> Fields:
    return run.account("Pool", run.pool, TREASURER)


def pool_created(chain: Chain) -> tuple[Fields, Fields]:
    run = Run(chain, mint=chain.mint(chain.keypair()))
    event = run.create().event("PoolCreated")
    stored = stored_pool(run)
    return event, {name: stored[name] for name in ("run", "authority", "mint")} | {"pool": run.pool}


def pool_authority_set(chain: Chain) -> tuple[Fields, Fields]:
    run, heir = stages.pooled(chain, chain.keypair()), chain.keypair().pubkey()
    event = run.act("set_authority", authority=heir).event("PoolAuthoritySet")
    assert event["authority"] == heir
    return event, {"pool": run.pool, "authority": stored_pool(run)["authority"]}


def claimed(chain: Chain) -> tuple[Fields, Fields]:
    """A vault that cannot pay all: the event tells what stays owed."""
    issuer = chain.keypair()
    run, (first, *_) = stages.pool_finished(chain, issuer)
    assert run.mint is not None
    chain.mint_to(run.mint, issuer, run.vault, 500)
    event = run.claim(first).event("Claimed")
    accounts = run.member_accounts(first)
    claim, wallet_token = accounts["claim"], accounts["wallet_token"]
    assert claim is not None
    assert wallet_token is not None
    paid = run.account("Claim", claim, TREASURER)["claimed"]
    assert (paid, chain.tokens(wallet_token), chain.tokens(run.vault)) == (500, 500, 0)
    owed = run.membership_of(first)["earned"] - paid
    assert owed > 0
    wallet = first.wallet.pubkey()
    return event, {"pool": run.pool, "wallet": wallet, "amount": paid, "still_owed": owed}


def closing(chain: Chain, funds: int) -> tuple[Run, Receipt]:
    """A finished run that is settled, and the first attempt to close its pool."""
    issuer = chain.keypair()
    run, members = stages.pool_finished(chain, issuer)
    assert run.mint is not None
    for m in members:
        run.settle(m)
    chain.mint_to(run.mint, issuer, run.vault, funds)
    return run, run.act("close_pool")


def withdrawn(chain: Chain) -> tuple[Fields, Fields]:
    run, receipt = closing(chain, 10 * stages.RATE)
    held, taken = chain.tokens(run.vault), stored_pool(run)["withdrawn"]
    own = run.accounts["authority_token"]
    assert own is not None
    assert chain.tokens(own) == taken == 10 * stages.RATE - held > 0
    return receipt.event("Withdrawn"), {"pool": run.pool, "amount": taken, "still_owed": held}


def pool_closed(chain: Chain) -> tuple[Fields, Fields]:
    issuer = chain.keypair()
    run, members = stages.pool_finished(chain, issuer)
    for m in members:
        run.settle(m)
    earned = sum(run.membership_of(m)["earned"] for m in members)
    assert earned > 0
    event = run.act("close_pool").event("PoolClosed")
    assert chain.data(run.pool) is None
    return event, {"pool": run.pool, "run": run.key, "unpaid": earned}


TREASURER_TABLE: dict[str, Scenario] = {
    "PoolCreated": pool_created,
    "PoolAuthoritySet": pool_authority_set,
    "Claimed": claimed,
    "Withdrawn": withdrawn,
    "PoolClosed": pool_closed,
}
