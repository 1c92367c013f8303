"""Members who train nothing: they do every duty that the chain asks of them, so that pay is earned."""

import hashlib
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import trio
from solders.pubkey import Pubkey

from psyche_chain.admin import manage
from psyche_chain.admin.session import Session, open_session
from psyche_chain.chain import accounts, ids, instructions
from psyche_chain.chain.accounts import Run
from psyche_chain.chain.errors import ProgramError
from psyche_chain.chain.state import Phase, RunState, set_to_bits
from psyche_chain.wallet import load_wallet

UNITS = instructions.TICKING_UNITS


def digest(*parts: object) -> bytes:
    return hashlib.sha256(repr(parts).encode()).digest()


class Member:
    """A wallet that does its duties without a model."""

    def __init__(self, session: Session, run: Run, tier: int) -> None:
        self.session, self.run, self.tier = session, run, tier
        self.signer = session.wallet

    async def send(self, label: str, instruction: Any) -> None:
        await self.session.sender.send([instruction], label=label, min_units=UNITS)

    async def join(self) -> None:
        step = instructions.join(
            payer=self.signer,
            wallet=self.signer,
            run=self.run.key,
            run_state=self.run.run_state,
            authorization=None
            if self.run.open
            else ids.authorization_address(self.run.join_authority, self.signer),
            hot_key=self.signer,
            p2p_key=digest("p2p", self.signer),
            tier=self.tier,
            weight=1,
            contact="/ip4/127.0.0.1/tcp/1",
        )
        await self.send("join", step)

    async def act(self, state: RunState) -> bool:
        """Do one thing that the snapshot says is owed."""
        slot = state.slot_of(self.signer)
        assert slot is not None
        duty = {"signer": self.signer, "run_state": self.run.run_state}
        current = state.current
        if state.phase is Phase.WARMUP and not slot.ready:
            await self.send("ready", instructions.ready(slot.index, **duty))
        elif state.phase is Phase.COOLDOWN and not state.pending.agreed and not slot.attested:
            digests = [digest("g", state.step, t) for t in range(state.config.max_tier, self.tier - 1, -1)]
            await self.send("attest", instructions.attest_checkpoint(slot.index, state.step, digests, **duty))
        elif state.phase is Phase.COOLDOWN and state.uploader == slot.index:
            await self.send("record", instructions.record_checkpoint(slot.index, "file:///x", **duty))
        elif current is not None and state.phase in (Phase.ROUND_TRAIN, Phase.ROUND_WITNESS):
            before = state.rounds_by_number.get(current.number - 1)
            if (
                state.phase is Phase.ROUND_TRAIN
                and slot.index in current.assigned
                and slot.index not in current.committed
            ):
                hash_ = digest("blob", current.number, slot.index)
                await self.send("commit", instructions.commit(slot.index, current.number, hash_, **duty))
            elif before is not None and slot.index in before.witnesses and slot.index not in before.attested:
                seen = set_to_bits(before.committed)
                await self.send("witness", instructions.witness(slot.index, before.number, seen, **duty))
            else:
                return False
        else:
            return False
        return True


async def drive(members: list[Member], *, until: Phase) -> RunState:
    """Let members act on snapshots until the run is in a phase."""
    rpc, run = members[0].session.rpc, members[0].run
    with trio.fail_after(120):
        while True:
            state = await accounts.fetch_state(rpc, run)
            if state.phase is until:
                return state
            acted = False
            for member in members:
                try:
                    acted |= await member.act(await accounts.fetch_state(rpc, run))
                except ProgramError as exc:
                    if exc.program != "coordinator":  # else another's transaction ended the phase first
                        raise
            if not acted:
                await trio.sleep(0.2)
                await manage.tick(members[0].session, run)


async def _act(
    url: str,
    run_key: str,
    wallets: Sequence[Path],
    tiers: Sequence[int],
    join: bool,
    until: Phase | None,
) -> None:
    async with AsyncExitStack() as stack:
        members = []
        for path, tier in zip(wallets, tiers, strict=True):
            session = await stack.enter_async_context(open_session([url], load_wallet(path)[0]))
            run = await accounts.fetch_run(session.rpc, Pubkey.from_string(run_key))
            members.append(Member(session, run, tier))
            if join:
                await members[-1].join()
        if until is not None:
            await drive(members, until=until)


def join_all(url: str, run_key: str, wallets: Sequence[Path], tiers: Sequence[int]) -> None:
    """Let wallets join a run."""
    trio.run(_act, url, run_key, wallets, tiers, True, None)


def take_part(
    url: str,
    run_key: str,
    wallets: Sequence[Path],
    tiers: Sequence[int],
    *,
    until: Phase = Phase.FINISHED,
    joined: bool = False,
) -> None:
    """Let wallets join a run (unless they have) and do their duties until it is in a phase."""
    trio.run(_act, url, run_key, wallets, tiers, not joined, until)
