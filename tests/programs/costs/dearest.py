"""The dearest run: owned by a pool, joined by delegates, every pay different, half of the work refused."""

from solders.pubkey import Pubkey

from tests.programs.chain_harness import Grant, Member
from tests.programs.costs.play import attest, play_round, record, set_up, sizes_of_pool
from tests.programs.costs.scene import LONG_CONTACT, LONG_TEXTS, Scene
from tests.programs.costs.table import Table

DELEGATES = 64
MOST_ADDED = 25
"""Delegates that one transaction can add."""
TIERS = 3
ROUND_TIME_S = 60


def play(table: Table, capacity: int) -> None:
    """Two epochs: in the first every other member's work is refused and nobody does the last round."""
    scene = Scene(table, capacity, pool=True, closed=True)
    scene.create("longest texts", **LONG_TEXTS)
    pay = {"pay_per_tier": [1_000_000, 700_001, 300_007, 0]}
    set_up(scene, total_steps=5, max_tier=TIERS - 1, max_missed=3, **pay)
    grants = authorize(scene)
    join_all(scene, grants)
    get_ready(scene)
    play_round(scene, "makes two transitions: the next round opens")
    dear = "half of the work is refused, every pay differs"
    play_round(scene, f"makes two transitions: a round closes, {dear}", share=2)
    play_round(scene, f"makes two transitions: a round closes, {dear}", share=2, by_witness=True)
    miss_the_last_round(scene)
    assert attest(scene, [m for m in scene.members if m.slot % 2 == 0], TIERS)
    record(scene)
    second_epoch(scene, grants)
    pay_out(scene, grants)


def authorize(scene: Scene) -> list[Grant]:
    """Authorizations with 64 delegates each, the members last."""
    grants = []
    tiers = [i % TIERS for i in range(scene.capacity)]
    for first in range(0, scene.capacity, DELEGATES):
        members = [
            scene.new_member(t, weight=1 + i % 5) for i, t in enumerate(tiers[first : first + DELEGATES])
        ]
        grant = scene.grant()
        scene.grant_act("create", "", grant)
        scene.grant_act("set_active", "", grant, active=True)
        scene.grant_act("set_limits", "", grant, max_weight=5, min_tier=0)
        scene.size_of("Authorization", "no delegates", grant.key)
        strangers = [scene.chain.fresh_key().pubkey() for _ in range(DELEGATES - len(members))]
        delegate(scene, grant, [*strangers, *(m.wallet.pubkey() for m in members)])
        scene.size_of("Authorization", f"{DELEGATES} delegates", grant.key)
        for member in members:
            member.authorization = grant.key
        scene.members += members
        grants.append(grant)
    return grants


def delegate(scene: Scene, grant: Grant, keys: list[Pubkey]) -> None:
    scene.grant_act("set_delegates", "one", grant, add=keys[:1], clear=False)
    scene.grant_act("set_delegates", "clear", grant, add=[], clear=True)
    for at in range(0, len(keys), MOST_ADDED):
        part = keys[at : at + MOST_ADDED]
        case = f"{MOST_ADDED} more" if len(part) == MOST_ADDED else "the last ones of 64"
        scene.grant_act("set_delegates", case, grant, add=part, clear=False)


def join_all(scene: Scene, grants: list[Grant]) -> None:
    *others, last = scene.members
    for member in others:
        scene.join("by the last of 64 delegates", member, contact=LONG_CONTACT)
    scene.grant_act("set_active", "", grants[0], active=False)
    evicted = others[0]
    accounts = scene.run.member_accounts(evicted)
    scene.send("coordinator.evict", "nothing due", accounts, scene.chain.rich)
    scene.grant_act("set_active", "", grants[0], active=True)
    scene.join("by a delegate, back to its slot", evicted, contact=LONG_CONTACT)
    case = "by the last of 64 delegates, makes one transition: the epoch starts"
    scene.join(case, last, contact=LONG_CONTACT)


def get_ready(scene: Scene) -> None:
    for member in scene.members[:-1]:
        scene.duty("ready", member)
    scene.duty("ready", scene.members[-1], "makes one transition: the first round opens")


def miss_the_last_round(scene: Scene) -> None:
    """Nobody commits; the last witness comes when the time is over: four transitions, three rounds close."""
    state = scene.run.state
    (before,) = [r for r in state.rounds if r.number == state.open.number - 1]
    witnesses = [m for m in scene.members if m.slot in before.witnesses]
    held = {slot for slot in before.committed if slot % 2 == 0}
    for m in witnesses[:-1]:
        scene.vote(m, before.number, held)
    scene.chain.pass_time(ROUND_TIME_S)
    case = "makes four transitions: three rounds close, half of the members are dropped"
    scene.vote(witnesses[-1], before.number, held, case)
    assert scene.run.state.phase == "Cooldown"


def second_epoch(scene: Scene, grants: list[Grant]) -> None:
    """Who was dropped comes back into the full table; one round, then everybody attests."""
    *_, last = back = [m for m in scene.members if m.slot % 2]
    for member in back[:-1]:
        scene.join("by a delegate, back to its slot", member, contact=LONG_CONTACT)
    scene.join("by a delegate, back to its slot, makes one transition: the epoch starts", last)
    get_ready(scene)
    play_round(scene, "makes two transitions: the drain round opens")
    play_round(scene, "makes two transitions: the last two rounds close", by_witness=True)
    full, *smaller = ([m for m in scene.members if m.tier == tier] for tier in range(TIERS))
    decisive = len(full) // 2
    assert not attest(scene, [*smaller[1], *smaller[0], *full[:decisive]], TIERS)
    go_while_votes_are_counted(scene, smaller[1], grants)
    assert attest(scene, full[decisive:], TIERS)
    record(scene)
    assert scene.run.state.phase == "Finished"


def go_while_votes_are_counted(scene: Scene, members: list[Member], grants: list[Grant]) -> None:
    """One vote before the agreement, one member leaves and another is evicted."""
    leaver, evicted, *_ = members
    scene.duty("leave", leaver, "votes on the weights are counted")
    (grant,) = [g for g in grants if g.key == evicted.authorization]
    scene.grant_act("set_active", "", grant, active=False)
    accounts = scene.run.member_accounts(evicted)
    scene.send("coordinator.evict", "votes on the weights are counted", accounts, scene.chain.rich)


def pay_out(scene: Scene, grants: list[Grant]) -> None:
    """Claims, and everything closed."""
    run, chain = scene.run, scene.chain
    chain.token_account(scene.mint, run.creator.pubkey())
    chain.mint_to(scene.mint, scene.issuer, run.vault, 10**9)
    first, *others = scene.members
    accounts = run.member_accounts(first)
    scene.send("treasurer.claim", "new claim and token account", accounts, first.wallet)
    scene.send("treasurer.claim", "again", accounts, first.wallet)
    sizes_of_pool(scene, first)
    for member in others:
        run.settle(member)
    scene.act("set_authority", "", authority=run.creator.pubkey())
    scene.act("close_pool", "members are still owed")
    for member in others:
        run.claim(member)
    scene.act("close_pool", "everything closes")
    revoke(scene, grants[0])


def revoke(scene: Scene, grant: Grant) -> None:
    scene.grant_act("set_active", "", grant, active=False)
    scene.grant_act("set_delegates", "clear", grant, add=[], clear=True)
    scene.grant_act("close", "", grant)
