"""Who may join: authorizations, their limits and delegates, and what follows when one is withdrawn."""

from collections.abc import Sequence
from dataclasses import dataclass

from solders.pubkey import Pubkey

from psyche_chain.admin.session import Session
from psyche_chain.chain import accounts, ids, instructions, money, queries
from psyche_chain.chain.accounts import Authorization, Run
from psyche_chain.chain.errors import ProgramError
from psyche_chain.chain.programs import program
from psyche_chain.chain.rpc import RpcPool
from psyche_chain.chain.state import SlotStatus
from psyche_chain.errors import NotFoundError, RefusedError

DELEGATES_PER_TRANSACTION = 20
"""Keys of 32 bytes that fit into one transaction with everything else."""


async def authorize(
    session: Session, grantee: Pubkey, *, max_weight: int | None = None, min_tier: int | None = None
) -> Authorization:
    """Admit `grantee` to every run whose join authority is the session's wallet. Safe to repeat.

    A limit that is None stays as it is; a new authorization starts with weight 1 and every tier.
    """
    grantor = session.wallet
    found = await accounts.fetch_authorization(session.rpc, grantor, grantee)
    old = (1, 0) if found is None else (found.max_weight, found.min_tier)
    limits = (old[0] if max_weight is None else max_weight, old[1] if min_tier is None else min_tier)
    steps = []
    if found is None:
        steps.append(
            money.create_authorization(
                grantee, payer=grantor, grantor=grantor, max_weight=limits[0], min_tier=limits[1]
            )
        )
    elif limits != old:
        steps.append(money.set_limits(*limits, grantor=grantor, grantee=grantee))
    if found is None or not found.active:
        steps.append(money.set_active(True, grantor=grantor, grantee=grantee))
    if steps:
        await session.sender.send(steps, label=f"authorize {grantee}")
    return await fetch(session.rpc, grantor, grantee)


async def revoke(session: Session, grantee: Pubkey) -> Authorization:
    """Withdraw an authorization. Members that it admitted can be evicted by anybody."""
    found = await fetch(session.rpc, session.wallet, grantee)
    if found.active:
        step = money.set_active(False, grantor=session.wallet, grantee=grantee)
        await session.sender.send([step], label=f"revoke {grantee}")
    return await fetch(session.rpc, session.wallet, grantee)


async def close_authorization(session: Session, grantee: Pubkey) -> bool:
    """Take back the rent of a revoked authorization; False where there is none any more.

    Raises:
        RefusedError: it is still active.
        ProgramError: `StillDelegated`: delegates depend on it, and it is less than 30 days old.
        NotFoundError: there never was one.
    """
    grantor = session.wallet
    found = await accounts.fetch_authorization(session.rpc, grantor, grantee)
    if found is None:
        if await queries.has_history(session.rpc, ids.authorization_address(grantor, grantee)):
            return False
        raise _missing(grantor, grantee)
    if found.active:
        raise RefusedError(
            f"the authorization of {grantee} is active", f"withdraw it first: psyche-chain revoke {grantee}"
        )
    step = money.close_authorization(grantor=grantor, grantee=grantee, recipient=grantor)
    await session.sender.send([step], label=f"close authorization of {grantee}")
    return True


async def delegate(
    session: Session, grantor: Pubkey, add: Sequence[Pubkey], *, clear: bool = False
) -> Authorization:
    """Let other wallets use the authorization that `grantor` gave to the session's wallet.

    With `clear`, exactly those in `add` are delegates afterwards. Safe to repeat; many take several transactions.
    """
    found = await fetch(session.rpc, grantor, session.wallet)
    wanted = list(dict.fromkeys(add))
    drop = clear and any(key not in wanted for key in found.delegates)
    kept = () if drop else found.delegates
    new = [key for key in wanted if key not in kept]
    pieces = [
        new[i : i + DELEGATES_PER_TRANSACTION] for i in range(0, len(new), DELEGATES_PER_TRANSACTION)
    ] or ([[]] if drop else [])
    for number, piece in enumerate(pieces):
        step = money.set_delegates(
            piece,
            clear=drop and number == 0,
            payer=session.wallet,
            grantor=grantor,
            grantee=session.wallet,
        )
        await session.sender.send([step], label="set delegates")
    return await fetch(session.rpc, grantor, session.wallet)


@dataclass(frozen=True, slots=True)
class Evicted:
    """What `evict` did."""

    wallets: tuple[Pubkey, ...]
    kept: int
    """Present members that are still authorized."""


async def evict(session: Session, run: Run, wallet: Pubkey | None = None) -> Evicted:
    """End the presence of members whose authorization is gone, or of one of them; anybody may.

    Raises:
        NotFoundError: `wallet` is not present in the run.
        ProgramError: `StillAuthorized`: `wallet` may still join.
    """
    state = await accounts.fetch_state(session.rpc, run)
    present = {s.wallet for s in state.members() if s.status is not SlotStatus.DEPARTED}
    if wallet is not None and wallet not in present:
        member = await accounts.fetch_membership(session.rpc, run.run_state, wallet)
        if member is not None:
            return Evicted((), len(present))  # it was present: left, or evicted before
        raise NotFoundError(
            f"wallet {wallet} is not a member of run {run.run_id}",
            f"see its members with: psyche-chain status {run.key}",
        )
    members = await accounts.fetch_memberships(session.rpc, run.run_state)
    out = []
    for member in members:
        if member.wallet not in present or wallet not in (None, member.wallet):
            continue
        step = instructions.evict(
            run=run.key,
            run_state=run.run_state,
            wallet=member.wallet,
            authorization=member.authorization,
        )
        label = f"evict {member.wallet}"
        try:
            await session.sender.send([step], label=label, min_units=instructions.TICKING_UNITS)
        except ProgramError as exc:
            if exc.name == "StillAuthorized" and wallet is None:
                continue  # told by the simulation: nothing was sent
            raise
        out.append(member.wallet)
    return Evicted(tuple(out), len(present) - len(out))


async def close_membership(session: Session, run_state: Pubkey) -> bool:
    """Take back the rent of the wallet's own membership, and of its claim once the pool is closed.

    Safe to repeat; False where both are closed already.

    Raises:
        NotFoundError: the wallet never was a member.
        RefusedError: a pool still owes the wallet pay that it holds; it would be lost.
        ProgramError: `MembershipInUse`, `MembershipEarned`: the run lives, and the wallet has a slot or pay.
    """
    wallet = session.wallet
    found = await accounts.fetch_membership(session.rpc, run_state, wallet)
    pool = await accounts.fetch_pool(session.rpc, run_state)
    claim = (await accounts.fetch_claims(session.rpc, ids.pool_address(run_state), [wallet]))[0]
    steps = []
    if found is not None:
        claimed = 0 if claim is None else claim.claimed
        vault = None if pool is None else await queries.get_account(session.rpc, pool.vault)
        if pool is not None and found.earned > claimed and accounts.token_amount(vault):
            raise RefusedError(
                f"the pool of run {pool.run} still owes wallet {wallet} pay, which would be lost",
                f"claim it first: psyche-chain claim {pool.run}",
            )
        steps.append(instructions.close_membership(run_state=run_state, wallet=wallet))
    elif claim is None and not await queries.has_history(
        session.rpc, ids.membership_address(run_state, wallet)
    ):
        raise NotFoundError(
            f"wallet {wallet} never was a member of this run", "use the wallet that joined: --keypair"
        )
    if claim is not None and (pool is None or pool.created_slot != claim.created_slot):
        steps.append(money.close_claim(pool=ids.pool_address(run_state), wallet=wallet))
    if steps:
        await session.sender.send(steps, label="close membership")
    return bool(steps)


async def list_authorizations(
    rpc: RpcPool, *, grantor: Pubkey | None = None, grantee: Pubkey | None = None
) -> list[Authorization]:
    """Authorizations to join, by who gave or who got them; sorted by both."""
    matches = [(0, program("authorizer").discriminators["Authorization"])]
    matches += [(8, bytes(grantor))] if grantor is not None else []
    matches += [(40, bytes(grantee))] if grantee is not None else []
    found = [
        accounts.decode_authorization(a)
        for a in await queries.get_program_accounts(rpc, ids.AUTHORIZER_ID, matches)
    ]
    return sorted(
        (a for a in found if a.scope == ids.JOIN_SCOPE), key=lambda a: (str(a.grantor), str(a.grantee))
    )


async def fetch(rpc: RpcPool, grantor: Pubkey, grantee: Pubkey) -> Authorization:
    """Raises: NotFoundError: `grantor` has not authorized `grantee`."""
    found = await accounts.fetch_authorization(rpc, grantor, grantee)
    if found is None:
        raise _missing(grantor, grantee)
    return found


def _missing(grantor: Pubkey, grantee: Pubkey) -> NotFoundError:
    return NotFoundError(
        f"{grantor} has not authorized {grantee}",
        f"{grantor} authorizes it with: psyche-chain authorize {grantee}",
    )
