"""Settle: move what slots hold of pay into the members' accounts, and free the slots of those who left."""

from collections.abc import Sequence
from dataclasses import dataclass

from solders.instruction import Instruction
from solders.pubkey import Pubkey

from psyche_chain.admin.session import Session
from psyche_chain.chain import accounts, instructions
from psyche_chain.chain.accounts import Run
from psyche_chain.chain.errors import ProgramError
from psyche_chain.chain.state import Phase, RoundStatus, RunState, Slot, SlotStatus
from psyche_chain.errors import NotFoundError

MAX_PER_TRANSACTION = 16
"""Members settled by one transaction; the size of a transaction allows a few more."""


@dataclass(frozen=True, slots=True)
class Settled:
    """What a settlement did."""

    moved: int
    """Points, or base units of the pool's mint."""
    wallets: tuple[Pubkey, ...]
    """Whose pay was moved."""
    freed: tuple[int, ...]
    """Slots that are free now."""


def named_by_rounds(state: RunState, slot: Slot) -> bool:
    """A round that is not over names the slot: it cannot be freed yet. As the coordinator's `is_named`."""
    folding = state.phase in (Phase.WARMUP, Phase.ROUND_TRAIN, Phase.ROUND_WITNESS, Phase.COOLDOWN)
    for view in state.rounds:
        assigned = slot.index in view.assigned
        if view.status is RoundStatus.CLOSED:
            if assigned and folding:
                return True
        elif assigned or slot.index in view.witnesses:
            return True
    return False


def is_due(state: RunState, slot: Slot) -> bool:
    """Whether settling the slot changes anything."""
    return slot.earned > 0 or (slot.status is SlotStatus.DEPARTED and not named_by_rounds(state, slot))


async def settle(session: Session, run: Run, wallet: Pubkey | None = None) -> Settled:
    """Settle every slot where it changes something, or that of one wallet; anybody may. Safe to repeat.

    Raises:
        NotFoundError: `wallet` never was a member of the run.
    """
    before = await accounts.fetch_state(session.rpc, run)
    if wallet is not None and before.slot_of(wallet) is None:
        if await accounts.fetch_membership(session.rpc, run.run_state, wallet) is None:
            raise NotFoundError(
                f"wallet {wallet} is not a member of run {run.run_id}",
                f"see its members with: psyche-chain status {run.key}",
            )
        return Settled(0, (), ())
    due = [s for s in before.members() if is_due(before, s) and wallet in (None, s.wallet)]
    for i in range(0, len(due), MAX_PER_TRANSACTION):
        await _settle_some(session, run, due[i : i + MAX_PER_TRANSACTION])
    after = await accounts.fetch_state(session.rpc, run)
    left = {s.index: s for s in after.members()}
    moved = sum(s.earned for s in due)
    freed = tuple(s.index for s in due if s.index not in left)
    return Settled(moved, tuple(s.wallet for s in due if s.earned), freed)


async def _settle_some(session: Session, run: Run, slots: Sequence[Slot]) -> None:
    """In one transaction; where it is refused, one by one, so that one slot cannot keep the others back."""

    def step(slot: Slot) -> Instruction:
        return instructions.settle(run_state=run.run_state, wallet=slot.wallet)

    if len(slots) == 1:
        await session.sender.send([step(slots[0])], label=f"settle slot {slots[0].index}")
        return
    label = f"settle slots {', '.join(str(s.index) for s in slots)}"
    try:
        await session.sender.send([step(s) for s in slots], label=label)
    except ProgramError:
        for slot in slots:
            await session.sender.send([step(slot)], label=f"settle slot {slot.index}")
