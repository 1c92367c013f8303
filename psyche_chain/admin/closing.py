"""`close-run`: settle and pay everybody, take out what nobody is owed, and get every lamport of rent back."""

from collections.abc import Callable
from dataclasses import dataclass

from solders.pubkey import Pubkey

from psyche_chain.admin.closed import ClosedRun, resolve_any, was_closed
from psyche_chain.admin.rewards import claim_all, fetch_pay, pool_and_mint
from psyche_chain.admin.session import Report, Session, authority_of
from psyche_chain.admin.settle import settle
from psyche_chain.amounts import format_amount
from psyche_chain.chain import accounts, instructions, money, queries
from psyche_chain.chain.accounts import Run
from psyche_chain.errors import NotFoundError, RefusedError


@dataclass(frozen=True, slots=True)
class Closed:
    """How far a run is closed."""

    key: Pubkey
    run_closed: bool
    pool_closed: bool
    """True also where there never was a pool."""
    pool: Pubkey | None
    """The pool that stays, or stayed until now."""
    unpaid: int
    """Base units that members earned and were not paid."""
    decimals: int


async def close_run(
    session: Session,
    name: str,
    *,
    recipient: Pubkey | None,
    pay_claims: bool,
    report: Report,
    confirm_loss: Callable[[int, int], None] = lambda unpaid, decimals: None,
) -> Closed:
    """Close a halted run, and its pool as soon as every member was paid. Safe to repeat.

    Args:
        session: the authority's wallet.
        name: key or id; of a run, or of a pool whose run is closed already.
        recipient: gets the rent of a run without a pool; None: the wallet.
        pay_claims: claim for the members that have not, first; their accounts may cost rent.
        report: told each step that is done.
        confirm_loss: called with base units and decimals before a pool ends whose vault is empty though members
            are owed something; raises where that is not wanted.

    Raises:
        RefusedError: the run is live, another wallet's, or a pool's rent was to go elsewhere.
        NotFoundError: there never was such a run.
    """
    try:
        run = await resolve_any(session.rpc, name, session.wallet)
    except NotFoundError:
        if (key := await was_closed(session.rpc, name, session.wallet)) is None:
            raise
        return Closed(key, run_closed=True, pool_closed=True, pool=None, unpaid=0, decimals=0)
    to = recipient or session.wallet
    if isinstance(run, ClosedRun):
        if run.pool.authority != session.wallet:
            raise RefusedError(
                f"the pool of run {run.run_id} belongs to {run.pool.authority}, this wallet is {session.wallet}",
                "use that wallet's key file: --keypair",
            )
        return await _close_pool(session, run, pay_claims, report, confirm_loss)
    authority = await authority_of(session, run)
    state = await accounts.fetch_state(session.rpc, run)
    if not state.phase.halted:
        wait = "it pauses at the end of the epoch" if state.pause_requested else ""
        raise RefusedError(
            f"run {run.run_id} is live ({state.phase.label})" + (f"; {wait}" if wait else ""),
            f"pause it first: psyche-chain pause {run.key}" if not wait else "run the command again then",
        )
    if authority.pool is not None and to != session.wallet:
        raise RefusedError("the rent of a run that pays goes to its authority", "leave --recipient away")
    settled = await settle(session, run)
    if settled.wallets or settled.freed:
        report(f"settled members: {len(settled.wallets)}, freed slots: {len(settled.freed)}")
    if authority.pool is not None:
        return await _close_pool(session, run, pay_claims, report, confirm_loss)
    step = instructions.close_run(
        authority=session.wallet, recipient=to, run=run.key, run_state=run.run_state
    )
    await session.sender.send([step], label="close run")
    return Closed(run.key, run_closed=True, pool_closed=True, pool=None, unpaid=0, decimals=0)


async def _close_pool(
    session: Session,
    run: Run | ClosedRun,
    pay_claims: bool,
    report: Report,
    confirm_loss: Callable[[int, int], None],
) -> Closed:
    pool, mint = await pool_and_mint(session.rpc, run)
    if pay_claims:
        claims = await claim_all(session, run)
        for done in claims.claims:
            if done.amount:
                report(f"paid {format_amount(done.amount, mint.decimals)} tokens to {done.wallet}")
        for wallet, error in claims.failed:
            report(f"{wallet} cannot be paid: {error.message}")
    pay = await fetch_pay(session.rpc, run)
    unpaid = sum(m.open for m in pay.members)
    stays = 0 < pay.vault <= unpaid
    if unpaid and not pay.vault:
        confirm_loss(unpaid, mint.decimals)
    if not (stays and isinstance(run, ClosedRun)):  # else it would change nothing
        steps = [
            money.create_token_account(
                payer=session.wallet, owner=session.wallet, mint=mint.key, token_program=mint.program
            ),
            money.close_pool(
                authority=session.wallet,
                run=run.key,
                run_state=run.run_state,
                mint=mint.key,
                vault=pool.vault,
                token_program=mint.program,
            ),
        ]
        await session.sender.send(steps, label="close run and pool")
    run_there, pool_there = await queries.get_accounts(session.rpc, [run.run_state, pool.key])
    return Closed(
        run.key,
        run_closed=run_there is None,
        pool_closed=pool_there is None,
        pool=pool.key,
        unpaid=unpaid,
        decimals=mint.decimals,
    )
