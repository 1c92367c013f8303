"""Runs that were closed while their pool still owes members something, and how a user names them."""

from dataclasses import dataclass

from solders.pubkey import Pubkey

from psyche_chain.chain import accounts, ids, queries
from psyche_chain.chain.accounts import Membership, Pool, Run
from psyche_chain.chain.programs import program
from psyche_chain.chain.rpc import RpcPool
from psyche_chain.errors import NotFoundError

POOL_RUN_OFFSET = 8 + 32
"""Where the run's key starts in a `Pool` account."""
MEMBERSHIP_WALLET_OFFSET = 8 + 32
"""Where the wallet starts in a `Membership` account."""


@dataclass(frozen=True, slots=True)
class ClosedRun:
    """What is left of a run that was closed: its pool pays what the members' accounts say they earned."""

    key: Pubkey
    run_id: str
    """As the user named it."""
    run_state: Pubkey
    pool: Pool


async def resolve_any(rpc: RpcPool, name: str, wallet: Pubkey | None = None) -> Run | ClosedRun:
    """The run that a user names, also where only its pool is left.

    Args:
        rpc: the cluster.
        name: key, or id; the id of a closed run is known to its creator and its members only. A pool whose
            run was closed is also named by its own key.
        wallet: of the user.

    Raises:
        NotFoundError: there is neither a run nor a pool.
    """
    try:
        return await accounts.resolve_run(rpc, name)
    except NotFoundError:
        pool = await _find_pool(rpc, name, wallet)
        if pool is None:
            raise
        account = await queries.get_account(rpc, pool.run)
        if account is not None and (run := accounts.decode_run(account)).run_state == pool.run_state:
            return run  # the pool of a run that lives was named
        return ClosedRun(pool.run, name, pool.run_state, pool)


async def was_closed(rpc: RpcPool, name: str, wallet: Pubkey) -> Pubkey | None:
    """The key of a run that the chain remembers and that is no more; None where nothing is known of it."""
    key = run_key(name, wallet)
    if key is None or await queries.get_account(rpc, key) is not None:
        return None
    return key if await queries.has_history(rpc, key) else None


def run_key(name: str, wallet: Pubkey | None) -> Pubkey | None:
    """The key that a name stands for: itself, or the one that `wallet` has under this id."""
    if (key := as_key(name)) is not None:
        return key
    usable = 0 < len(name.encode()) <= 32
    return ids.run_address(wallet, name) if usable and wallet is not None else None


def as_key(text: str) -> Pubkey | None:
    """The public key that a text is, if it is one."""
    try:
        return Pubkey.from_string(text)
    except ValueError:
        return None


async def _find_pool(rpc: RpcPool, name: str, wallet: Pubkey | None) -> Pool | None:
    key = run_key(name, wallet)
    if key is None:
        return None
    matches = [(0, program("treasurer").discriminators["Pool"]), (POOL_RUN_OFFSET, bytes(key))]
    for account in await queries.get_program_accounts(rpc, ids.TREASURER_ID, matches):
        return accounts.decode_pool(account)
    if str(key) == name:  # its own key, or that of its RunState: both outlast a new run of the same id
        own, by_state = await queries.get_accounts(rpc, [key, ids.pool_address(key)])
        for account_or_none in (by_state, own):
            if account_or_none is not None and account_or_none.owner == ids.TREASURER_ID:
                return accounts.decode_pool(account_or_none)
    if wallet is None or str(key) == name:
        return None
    for member in await memberships_of(rpc, wallet):
        pool = await accounts.fetch_pool(rpc, member.run_state)
        if pool is not None and ids.run_address(pool.authority, name) == pool.run:
            return pool
    return None


async def memberships_of(rpc: RpcPool, wallet: Pubkey) -> list[Membership]:
    """All memberships of a wallet, of closed runs too."""
    matches = [
        (0, program("coordinator").discriminators["Membership"]),
        (MEMBERSHIP_WALLET_OFFSET, bytes(wallet)),
    ]
    found = await queries.get_program_accounts(rpc, ids.COORDINATOR_ID, matches)
    return sorted((accounts.decode_membership(a) for a in found), key=lambda m: str(m.run_state))


async def run_state_of(rpc: RpcPool, name: str, wallet: Pubkey) -> Pubkey:
    """The `RunState` of a run that a member names; of a closed one by its own key.

    Raises:
        NotFoundError: no run is called so; the hint names the wallet's memberships of closed runs.
    """
    try:
        return (await resolve_any(rpc, name, wallet)).run_state
    except NotFoundError as exc:
        mine = await memberships_of(rpc, wallet)
        states = await queries.get_accounts(rpc, [m.run_state for m in mine], first_bytes=8)
        gone = [m.run_state for m, state in zip(mine, states, strict=True) if state is None]
        if any(name == str(key) for key in gone):
            return Pubkey.from_string(name)
        if (key := as_key(name)) is not None and await queries.has_history(
            rpc, ids.membership_address(key, wallet)
        ):
            return key  # closed before
        keys = ", ".join(map(str, gone[:5]))
        hint = (
            f"of closed runs this wallet has the memberships {keys}: name one of them" if gone else exc.hint
        )
        raise NotFoundError(exc.message, hint) from None
