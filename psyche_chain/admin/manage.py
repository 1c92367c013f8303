"""Steer a run: pause, resume, rates, tick, leave, hand over."""

from solders.pubkey import Pubkey

from psyche_chain.admin.session import Session, authority_of, owner_of
from psyche_chain.chain import accounts, instructions
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
    """Pay `rate` base units per round from the next epoch on; nothing is sent where that is already so."""
    authority = await authority_of(session, run)
    state = await accounts.fetch_state(session.rpc, run)
    if state.next_round_rate == rate:
        return state
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


async def set_authority(session: Session, run: Run, new: Pubkey) -> bool:
    """Hand the run over, or the pool that owns it; False where `new` has it already. Only `new` can undo it.

    Raises:
        RefusedError: the run belongs to another wallet.
    """
    owner, _ = await owner_of(session.rpc, run)
    if owner == new:
        return False
    authority = await authority_of(session, run)
    await session.sender.send([authority.set_authority(new)], label="set authority")
    return True
