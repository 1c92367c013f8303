"""Who may join: authorizations and their delegates."""

from collections.abc import Sequence

from solders.pubkey import Pubkey

from psyche_chain.admin.session import Session
from psyche_chain.chain import accounts, money
from psyche_chain.chain.accounts import Authorization
from psyche_chain.errors import NotFoundError


async def authorize(
    session: Session, grantee: Pubkey, *, max_weight: int = 1, min_tier: int = 0
) -> Authorization:
    """Admit `grantee` to every run whose join authority is the session's wallet. Safe to repeat."""
    grantor = session.wallet
    found = await accounts.fetch_authorization(session.rpc, grantor, grantee)
    steps = []
    if found is None:
        steps.append(
            money.create_authorization(
                grantee, payer=grantor, grantor=grantor, max_weight=max_weight, min_tier=min_tier
            )
        )
    elif (found.max_weight, found.min_tier) != (max_weight, min_tier):
        steps.append(money.set_limits(max_weight, min_tier, grantor=grantor, grantee=grantee))
    if found is None or not found.active:
        steps.append(money.set_active(True, grantor=grantor, grantee=grantee))
    if steps:
        await session.sender.send(steps, label=f"authorize {grantee}")
    return await _fetch(session, grantor, grantee)


async def revoke(session: Session, grantee: Pubkey) -> Authorization:
    """Withdraw an authorization. Members that it admitted can be evicted by anybody."""
    found = await _fetch(session, session.wallet, grantee)
    if found.active:
        step = money.set_active(False, grantor=session.wallet, grantee=grantee)
        await session.sender.send([step], label=f"revoke {grantee}")
    return await _fetch(session, session.wallet, grantee)


async def delegate(
    session: Session, grantor: Pubkey, add: Sequence[Pubkey], *, clear: bool = False
) -> Authorization:
    """Let other wallets use the authorization that `grantor` gave to the session's wallet."""
    found = await _fetch(session, grantor, session.wallet)
    new = [key for key in add if clear or key not in found.delegates]
    if new or (clear and found.delegates):
        step = money.set_delegates(
            new, clear=clear, payer=session.wallet, grantor=grantor, grantee=session.wallet
        )
        await session.sender.send([step], label="set delegates")
    return await _fetch(session, grantor, session.wallet)


async def _fetch(session: Session, grantor: Pubkey, grantee: Pubkey) -> Authorization:
    found = await accounts.fetch_authorization(session.rpc, grantor, grantee)
    if found is None:
        raise NotFoundError(
            f"{grantor} has not authorized {grantee}", f"authorize it with: psyche-chain authorize {grantee}"
        )
    return found
