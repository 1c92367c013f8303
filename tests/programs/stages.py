"""Runs at the stages where scenarios begin."""

from collections.abc import Callable, Sequence
from typing import Any

from solders.keypair import Keypair

from tests.programs.chain_harness import Chain, Grant, Member, Run, config

Team = tuple[Run, list[Member]]
RATE = 1000


def created(chain: Chain, **fields: Any) -> Run:
    """A run without a pool that nothing has been done to."""
    run = Run(chain, **fields)
    run.create()
    return run


def paused(chain: Chain, **changes: Any) -> Run:
    """A run with rules and a specification, not yet resumed."""
    run = created(chain)
    run.write_spec()
    run.act("seal_spec")
    run.act("configure", config=config(**changes))
    return run


def waiting(chain: Chain, **changes: Any) -> Run:
    """An open run without members, in WaitingForMembers."""
    run = Run(chain)
    run.start(**changes)
    return run


def warmup(chain: Chain, tiers: Sequence[int] = (0, 1, 1), **changes: Any) -> Team:
    """A run whose members are all there, in Warmup."""
    run = waiting(chain, **{"init_min_clients": len(tiers)} | changes)
    members = [run.member(tier) for tier in tiers]
    for m in members:
        run.join(m)
    assert run.state.phase == "Warmup"
    return run, members


def training(chain: Chain, tiers: Sequence[int] = (0, 1, 1), **changes: Any) -> Team:
    """A run in the first round of its first epoch."""
    run, members = warmup(chain, tiers, **changes)
    for m in members:
        run.duty("ready", m)
    assert run.state.phase == "RoundTrain"
    return run, members


def cooldown(chain: Chain, tiers: Sequence[int] = (0, 1, 1), **changes: Any) -> Team:
    """A run that has trained an epoch and agrees on its weights."""
    run, members = warmup(chain, tiers, **changes)
    run.play_epoch(members)
    return run, members


def finished(chain: Chain) -> Team:
    """A run that has come to its end."""
    run, members = cooldown(chain)
    run.agree(members)
    assert run.state.phase == "Finished"
    return run, members


def paying(chain: Chain, rate: int = RATE, **changes: Any) -> Team:
    """A run in Warmup whose rounds pay, without a pool."""
    run = paused(chain, **changes)
    run.act("set_round_rate", rate=rate)
    run.act("set_paused", paused=False)
    members = [run.member(tier) for tier in (0, 1, 1)]
    for m in members:
        run.join(m)
    return run, members


def guarded(chain: Chain, **changes: Any) -> tuple[Run, Keypair]:
    """A run that admits by authorization, without members, and the key that gives them."""
    authority = chain.keypair()
    run = Run(chain, join_authority=authority.pubkey())
    run.start(**changes)
    return run, authority


def admit(run: Run, authority: Keypair, member: Member, **limits: Any) -> Grant:
    """Give a member an active authorization, which it will join with."""
    grant = Grant(run.chain, authority, member.wallet)
    grant.create(**limits)
    grant.set_active(True)
    member.authorization = grant.key
    return grant


def pooled(chain: Chain, issuer: Keypair) -> Run:
    """A pool and its run, created and nothing else; the creator has an account of the token."""
    run = Run(chain, mint=chain.mint(issuer))
    run.create()
    assert run.mint is not None
    chain.token_account(run.mint, run.creator.pubkey())
    return run


def pool_in_warmup(
    chain: Chain, issuer: Keypair, make: Callable[[Chain, Keypair], Run] = pooled, **changes: Any
) -> Team:
    """A pool's run whose three members are all there."""
    run = make(chain, issuer)
    run.write_spec()
    run.act("seal_spec")
    run.act("configure", config=config(**changes))
    run.act("set_round_rate", rate=RATE)
    run.act("set_paused", paused=False)
    members = [run.member(tier) for tier in (0, 1, 1)]
    for m in members:
        run.join(m)
    return run, members


def pool_finished(chain: Chain, issuer: Keypair, **changes: Any) -> Team:
    """A pool's run at its end: its members earned four times the rate, nothing is settled or funded."""
    run, members = pool_in_warmup(chain, issuer, **changes)
    run.play_epoch(members)
    run.agree(members)
    assert run.state.phase == "Finished"
    return run, members
