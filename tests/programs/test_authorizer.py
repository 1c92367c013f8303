"""The authorizer: who may grant, limit, delegate, revoke and close."""

import pytest
from chain_harness import AUTHORIZER, Grant, Refused
from solders.keypair import Keypair
from solders.pubkey import Pubkey

THIRTY_DAYS = 30 * 24 * 3600


@pytest.fixture
def grant(chain):
    grant = Grant(chain, chain.keypair(), chain.keypair())
    grant.create()
    return grant


def fresh_keys(count: int) -> list[Pubkey]:
    return [Keypair().pubkey() for _ in range(count)]


def test_authorization_lives_from_create_to_close(chain, grant):
    stored = grant.read()
    assert (stored["grantor"], stored["grantee"]) == (grant.grantor.pubkey(), grant.grantee.pubkey())
    assert not stored["active"]
    assert (stored["max_weight"], stored["min_tier"], stored["scope"]) == (5, 0, grant.scope)
    assert grant.set_active(True).event("ActiveSet")["active"]
    grant.act("set_limits", grant.grantor, max_weight=9, min_tier=1)
    keys = fresh_keys(3)
    grant.act("set_delegates", grant.grantee, add=keys[:2], clear=False)
    assert (
        grant.act("set_delegates", grant.grantee, add=keys[2:], clear=False).event("DelegatesSet")[
            "num_delegates"
        ]
        == 3
    )
    stored = grant.read()
    assert stored["active"]
    assert (stored["max_weight"], stored["min_tier"]) == (9, 1)
    assert stored["delegates"] == keys
    grant.act("set_delegates", grant.grantee, add=[], clear=True)
    grant.set_active(False)
    before = chain.lamports(grant.grantor.pubkey())
    rent = chain.lamports(grant.key)
    grant.act("close", grant.grantor)
    assert chain.data(grant.key) is None
    assert chain.lamports(grant.grantor.pubkey()) == before + rent


@pytest.mark.parametrize("scope", [b"", b"x" * 33])
def test_create_with_a_scope_of_wrong_length_is_refused(chain, refused, scope):
    grant = Grant(chain, chain.keypair(), chain.keypair(), scope)
    with refused("ScopeLength"):
        grant.create()
    grant.scope = b"x" * 32
    grant.create()


def test_zero_weight_is_refused(chain, grant, refused):
    with refused("ZeroWeight"):
        grant.act("set_limits", grant.grantor, max_weight=0, min_tier=0)
    grant.act("set_limits", grant.grantor, max_weight=1, min_tier=0)
    other = Grant(chain, chain.keypair(), chain.keypair())
    with refused("ZeroWeight"):
        other.create(max_weight=0)


def test_create_in_anothers_name_is_refused(chain):
    mallory, victim = chain.keypair(), chain.keypair()
    grant = Grant(chain, victim, mallory)
    with pytest.raises(Refused, match="ConstraintSeeds"):
        grant.act("create", mallory)
    grant.create()


@pytest.mark.parametrize(
    ("name", "args"),
    [("set_active", {"active": True}), ("set_limits", {"max_weight": 1, "min_tier": 0}), ("close", {})],
)
def test_grantor_instructions_by_another_are_refused(grant, refused, name, args):
    with refused("WrongGrantor"):
        grant.act(name, grant.grantee, **args)
    grant.act(name, grant.grantor, **args)


def test_delegates_by_another_are_refused(grant, refused):
    with refused("WrongGrantee"):
        grant.act("set_delegates", grant.grantor, add=fresh_keys(1), clear=False)
    grant.act("set_delegates", grant.grantee, add=fresh_keys(1), clear=False)


def test_delegates_end_at_64(chain, grant, refused):
    for _ in range(4):
        grant.act("set_delegates", grant.grantee, add=fresh_keys(16), clear=False)
    with refused("TooManyDelegates"):
        grant.act("set_delegates", grant.grantee, add=fresh_keys(1), clear=False)
    data = chain.data(grant.key)
    assert data is not None
    assert len(AUTHORIZER.decode_account("Authorization", data)["delegates"]) == 64
    grant.act("set_delegates", grant.grantee, add=fresh_keys(20), clear=True)
    assert len(grant.read()["delegates"]) == 20


def test_delegate_named_twice_is_refused(grant, refused):
    (key,) = fresh_keys(1)
    for add in ([key, key], [grant.grantee.pubkey()]):
        with refused("DuplicateDelegate"):
            grant.act("set_delegates", grant.grantee, add=add, clear=False)
    grant.act("set_delegates", grant.grantee, add=[key], clear=False)


def test_close_waits_for_revocation_and_delegates(chain, grant, refused):
    grant.set_active(True)
    grant.act("set_delegates", grant.grantee, add=fresh_keys(1), clear=False)
    with refused("StillActive"):
        grant.act("close", grant.grantor)
    grant.set_active(False)
    chain.pass_time(THIRTY_DAYS - 1)
    with refused("StillDelegated"):
        grant.act("close", grant.grantor)
    chain.pass_time(1)
    grant.act("close", grant.grantor)
