"""Accounts as an earlier build wrote them: the client decodes them, and today's programs go on from them.

`account_fixtures.json` holds the whole of a paying run in its second epoch. WRITE_FIXTURE=1 writes it anew: only when
the layout changes on purpose, and then with another version in the accounts' headers once there are users.
"""

import base64
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from solders.account import Account
from solders.keypair import Keypair
from solders.pubkey import Pubkey
from solders.token import ID as TOKEN

from psyche_chain.chain import accounts as client
from psyche_chain.chain.queries import Account as Fetched
from psyche_chain.chain.state import RunState
from psyche_chain.chain.views import Phase, RoundStatus, SlotStatus
from tests.programs.chain_harness import (
    AUTHORIZER,
    COORDINATOR,
    TREASURER,
    Chain,
    Grant,
    Member,
    Run,
    bitmap,
    config,
)

FIXTURE = Path(__file__).with_name("account_fixtures.json")
OWNERS = {
    "coordinator": COORDINATOR.program,
    "authorizer": AUTHORIZER.program,
    "treasurer": TREASURER.program,
    "token": TOKEN,
}
CREATOR, LOG, GRANTOR, ISSUER = (Keypair.from_seed(bytes([n]) * 32) for n in (1, 2, 3, 4))
WEIGHTS = (1, 2, 3)


def team(chain: Chain) -> list[Member]:
    """Three members, by fixed keys."""
    found = []
    for n, (tier, weight) in enumerate(zip((0, 1, 1), WEIGHTS, strict=True)):
        wallet, hot = (Keypair.from_seed(bytes([10 + n, kind] * 16)) for kind in (0, 1))
        chain.airdrop(wallet.pubkey(), 1)
        p2p = hashlib.sha256(bytes([n])).digest()
        found.append(Member(wallet, hot, p2p, tier, weight, slot=n))
    return found


def second_epoch(chain: Chain) -> tuple[Run, list[Member], Pubkey]:
    """A run that fills every account with something: the fixture's scenario."""
    mint = chain.mint(ISSUER)
    run = Run(chain, "frozen", 3, GRANTOR.pubkey(), mint=mint, creator=CREATOR, log=LOG)
    run.create()
    chain.token_account(mint, CREATOR.pubkey())
    run.write_spec()
    run.act("seal_spec")
    run.act("configure", config=config(total_steps=20, pay_per_tier=[4, 1, 1, 1]))
    run.act("set_round_rate", rate=1003)
    run.act("set_paused", paused=False)
    members = team(chain)
    for m in members:
        grant = Grant(chain, GRANTOR, m.wallet)
        grant.create()
        grant.set_active(True)
        m.authorization = grant.key
        run.join(m)
    grant.act("set_delegates", members[2].wallet, add=[CREATOR.pubkey()], clear=False)
    for m in members:
        run.duty("ready", m)
    run.play_round(members)
    run.act("set_paused", paused=True)
    while run.state.phase == "RoundTrain":
        run.play_round(members)
    run.agree(members)
    run.act("set_round_rate", rate=7)
    run.act("set_paused", paused=False)
    run.tick()
    chain.mint_to(mint, ISSUER, run.vault, 500)
    run.claim(members[0])
    for m in members:
        run.duty("ready", m)
    number = run.state.open.number
    for m in members[:2]:
        run.duty("commit", m, round=number, hash=bytes([m.slot + 1]) * 32)
    chain.pass_time(60)
    run.tick()  # the third did not commit
    for m in members[:1]:
        run.duty("witness", m, round=number, bitmap=bitmap({0, 1}))
    return run, members, mint


def named(run: Run, members: list[Member], mint: Pubkey) -> dict[str, tuple[Pubkey, str]]:
    """Every account of the scenario, by its kind, with its program."""
    found = {
        "Run": (run.key, "coordinator"),
        "RunState": (run.log.pubkey(), "coordinator"),
        "Spec": (run.spec_key, "coordinator"),
        "Pool": (run.pool, "treasurer"),
        "mint": (mint, "token"),
        "vault": (run.vault, "token"),
    }
    for m in members:
        accounts = run.member_accounts(m)
        for kind, program in (
            ("membership", "coordinator"),
            ("authorization", "authorizer"),
            ("claim", "treasurer"),
        ):
            key = accounts[kind]
            assert key is not None
            if run.chain.data(key):
                found[f"{kind.capitalize()} {m.slot}"] = (key, program)
    return found


def write() -> None:
    chain = Chain()
    run, members, mint = second_epoch(chain)
    stored = {
        kind: {
            "key": str(key),
            "program": program,
            "lamports": chain.lamports(key),
            "data": base64.b64encode(chain.data(key) or b"").decode(),
        }
        for kind, (key, program) in named(run, members, mint).items()
    }
    FIXTURE.write_text(json.dumps({"now": chain.now, "accounts": stored}, indent=1) + "\n")


@pytest.fixture(scope="module")
def frozen() -> dict[str, Any]:
    if os.environ.get("WRITE_FIXTURE"):
        write()
    found: dict[str, Any] = json.loads(FIXTURE.read_text())
    return found


def fetched(frozen: dict[str, Any], kind: str) -> Fetched:
    stored = frozen["accounts"][kind]
    key = Pubkey.from_string(stored["key"])
    data = base64.b64decode(stored["data"])
    return Fetched(key, OWNERS[stored["program"]], stored["lamports"], data, 0)


def key_of(frozen: dict[str, Any], kind: str) -> Pubkey:
    return fetched(frozen, kind).key


def test_run_state_decodes(frozen):
    account = fetched(frozen, "RunState")
    state = RunState.from_account(account.data, owner=account.owner)
    assert (state.capacity, state.run, state.phase) == (3, key_of(frozen, "Run"), Phase.ROUND_TRAIN)
    assert (state.epoch, state.round_rate, state.next_round_rate) == (2, 7, 7)
    assert state.config.total_steps == 20
    assert state.config.pay_per_tier == (4, 1, 1, 1)
    assert state.config.init_min_clients == 3
    assert state.config.max_tier == 1
    now = state.current
    assert now is not None
    assert (now.status, now.trained, now.samples) == (RoundStatus.OPEN, True, 8)
    assert (now.number, now.step, now.epoch) == (state.step + 1, state.step - 1, 2)
    before = state.rounds_by_number[now.number - 1]
    assert (before.status, before.assigned, before.committed) == (RoundStatus.COMMITTED, {0, 1, 2}, {0, 1})
    assert (before.witnesses, before.attested) == ({0, 1}, {0})
    assert before.commitments[:2] == (b"\1" * 32, b"\2" * 32)
    assert state.checkpoint.agreed
    assert (state.checkpoint.uri, state.checkpoint.epoch) == ("hub://somebody/weights", 1)
    digests = [hashlib.sha256(bytes([p])).digest() for p in range(2)]
    assert state.checkpoint.weights_hash == hashlib.sha256(digests[0] + digests[1]).digest()
    assert [s.status for s in state.slots] == [SlotStatus.ACTIVE] * 3
    assert [(s.tier, s.weight, s.ready) for s in state.slots] == [(0, 1, True), (1, 2, True), (1, 3, False)]
    assert state.slots[0].earned == 0  # claimed
    assert state.slots[1].earned * 3 == pytest.approx(state.slots[2].earned * 2, abs=9)
    for slot in state.slots:
        membership = client.decode_membership(fetched(frozen, f"Membership {slot.index}"))
        assert (slot.wallet, slot.hot_key, slot.p2p_key) == (
            membership.wallet,
            membership.hot_key,
            membership.p2p_key,
        )


def test_borsh_accounts_decode(frozen):
    run = client.decode_run(fetched(frozen, "Run"))
    assert (run.creator, run.run_state, run.join_authority) == (
        CREATOR.pubkey(),
        LOG.pubkey(),
        GRANTOR.pubkey(),
    )
    assert (run.run_id, run.name, run.min_client_version) == ("frozen", "A run", "0.1.0")
    assert run.authority == key_of(frozen, "Pool")
    spec = client.decode_spec(fetched(frozen, "Spec"))
    assert (spec.run, spec.sealed) == (run.key, True)
    assert hashlib.sha256(spec.data).digest() == run.spec_sha256
    assert len(spec.data) == run.spec_len
    pool = client.decode_pool(fetched(frozen, "Pool"))
    assert (pool.run, pool.run_state, pool.authority) == (run.key, run.run_state, CREATOR.pubkey())
    assert (pool.mint, pool.vault) == (key_of(frozen, "mint"), key_of(frozen, "vault"))
    claim = client.decode_claim(fetched(frozen, "Claim 0"))
    first = client.decode_membership(fetched(frozen, "Membership 0"))
    assert (claim.pool, claim.wallet, claim.claimed) == (pool.key, first.wallet, pool.paid)
    assert pool.paid == 500 < first.earned
    assert pool.total_earned == 0  # the run lives
    state = RunState.from_account(fetched(frozen, "RunState").data)
    assert {pool.created_slot, claim.created_slot, first.created_slot} == {state.created_slot} != {0}
    for n, weight in enumerate(WEIGHTS):
        membership = client.decode_membership(fetched(frozen, f"Membership {n}"))
        assert (membership.slot, membership.weight, membership.last_epoch) == (n, weight, 1 if n == 2 else 0)
        assert membership.contact == "/ip4/127.0.0.1/tcp/4001"
        granted = client.decode_authorization(fetched(frozen, f"Authorization {n}"))
        assert (granted.grantor, granted.grantee) == (GRANTOR.pubkey(), membership.wallet)
        assert (granted.active, granted.max_weight, granted.min_tier) == (True, 5, 0)
        assert granted.scope == b"CoordinatorJoinRun"
        assert granted.delegates == ((CREATOR.pubkey(),) if n == 2 else ())


def test_todays_programs_go_on_from_them(frozen):
    """A new chain that knows nothing but the frozen accounts: the run trains on, pays in full and closes."""
    chain = Chain()
    for kind in frozen["accounts"]:
        a = fetched(frozen, kind)
        chain.svm.set_account(a.key, Account(a.lamports, a.data, a.owner, False, 0))
    chain.pass_time(frozen["now"] - chain.now)
    mint = key_of(frozen, "mint")
    run = Run(chain, "frozen", 3, GRANTOR.pubkey(), mint=mint, creator=CREATOR, log=LOG)
    chain.token_account(mint, CREATOR.pubkey())
    members = team(chain)
    late, number = members[2], run.state.open.number
    run.duty("ready", late)
    run.duty("witness", members[1], round=number - 1, bitmap=bitmap({0, 1}))
    for m in members[:2]:
        run.duty("commit", m, round=number, hash=bytes(32))
    assert run.state.open.number == number + 1
    run.act("set_paused", paused=True)
    while run.state.phase in ("RoundTrain", "RoundWitness"):
        run.play_round(members)
    run.agree(members)
    assert run.state.phase == "Paused"
    grant = Grant(chain, GRANTOR, late.wallet)
    grant.act("set_delegates", late.wallet, add=[], clear=True)
    grant.set_active(False)
    grant.act("close", GRANTOR)
    earned = run.state.total_earned
    chain.mint_to(mint, ISSUER, run.vault, earned)  # 500 of it was there before
    for m in members:
        run.claim(m)
        paid = chain.tokens(run.member_accounts(m)["wallet_token"])
        assert paid + (500 if m.slot == 0 else 0) == run.membership_of(m)["earned"]
    assert run.act("close_pool").event("Withdrawn")["amount"] == 500
    assert chain.data(run.log.pubkey()) is None


def test_every_kind_of_account_is_frozen(frozen):
    kinds = {kind.split()[0] for kind in frozen["accounts"]} - {"mint", "vault"}
    named = {name for idl in (COORDINATOR, AUTHORIZER, TREASURER) for name in idl.accounts}
    assert kinds == named | {"RunState"}
