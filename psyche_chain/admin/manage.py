"""Steer a run: pause, resume, rates, tick, leave, close."""

from solders.pubkey import Pubkey

from psyche_chain.admin.rewards import claim, fetch_pay, pool_and_mint, settle_all
from psyche_chain.admin.session import Session, authority_of
from psyche_chain.chain import accounts, instructions, money
from psyche_chain.chain.accounts import Run
from psyche_chain.chain.errors import ProgramError
from psyche_chain.chain.state import Phase, RunState, SlotStatus
from psyche_chain.errors import NotFoundError, RefusedError


async def set_paused(session: Session, run: Run, paused: bool) -> RunState:
    """Pause or resume; nothing is sent where that is already so. A live epoch ends before the pause."""
    authority = await authority_of(session, run)
    state = await accounts.fetch_state(session.rpc, run)
    if state.phase is Phase.FINISHED:
        raise RefusedError(f"run {run.run_id} is finished", "its members claim with: psyche-chain claim RUN")
    if state.phase is Phase.UNINITIALIZED:
        raise RefusedError(
            f"run {run.run_id} is not set up completely",
            "finish it with: psyche-chain create-run CONFIG.toml",
        )
    already = state.phase is Phase.PAUSED or state.pause_requested
    if already != paused:
        label = "pause run" if paused else "resume run"
        await session.sender.send([authority.set_paused(paused)], label=label)
    return await accounts.fetch_state(session.rpc, run)


async def set_rate(session: Session, run: Run, rate: int) -> RunState:
    """Pay `rate` base units per round from the next epoch on."""
    authority = await authority_of(session, run)
    await session.sender.send([authority.set_round_rate(rate)], label="set round rate")
    return await accounts.fetch_state(session.rpc, run)


async def tick(session: Session, run: Run) -> bool:
    """Let the run make the transitions that are due; False where nothing is."""
    step = instructions.tick(run_state=run.run_state)
    try:
        await session.sender.send([step], label="tick", min_units=instructions.TICKING_UNITS)
    except ProgramError as exc:
        if exc.name == "NothingDue":
            return False
        raise
    return True


async def leave(session: Session, run: Run) -> int:
    """End the membership of the session's wallet; it keeps what it earned. Returns its slot.

    Raises:
        NotFoundError: the wallet holds no slot.
    """
    state = await accounts.fetch_state(session.rpc, run)
    slot = state.slot_of(session.wallet)
    if slot is None or slot.status is SlotStatus.DEPARTED:
        raise NotFoundError(
            f"wallet {session.wallet} is not present in run {run.run_id}",
            "leave with the wallet that joined: --keypair",
        )
    step = instructions.leave(slot.index, signer=session.wallet, run_state=run.run_state)
    await session.sender.send([step], label="leave", min_units=instructions.TICKING_UNITS)
    return slot.index


async def close_run(session: Session, run: Run, recipient: Pubkey) -> None:
    """Close a halted run: settle and pay everybody, withdraw what is left, return the rent to `recipient`.

    Raises:
        RefusedError: the run is live, or a pool's rent was to go to another wallet than its authority's.
    """
    authority = await authority_of(session, run)
    state = await accounts.fetch_state(session.rpc, run)
    if not state.phase.halted:
        raise RefusedError(
            f"run {run.run_id} is live ({state.phase.label})", f"pause it first: psyche-chain pause {run.key}"
        )
    if authority.pool is not None and recipient != session.wallet:
        raise RefusedError("the rent of a run that pays goes to its authority", "leave --recipient away")
    await settle_all(session, run)
    if authority.pool is None:
        step = instructions.close_run(
            authority=session.wallet, recipient=recipient, run=run.key, run_state=run.run_state
        )
        await session.sender.send([step], label="close run")
        return
    await _close_pool(session, run)


async def _close_pool(session: Session, run: Run) -> None:
    pool, mint = await pool_and_mint(session.rpc, run)
    for member in (await fetch_pay(session.rpc, run)).members:
        if member.open:
            await claim(session, run, member.wallet)
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
