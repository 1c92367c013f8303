"""A whole run with two members who train nothing: every duty, pay, claims, closing."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import trio
from solders.keypair import Keypair

from psyche_chain.admin import access, manage, rewards
from psyche_chain.admin.closing import close_run
from psyche_chain.admin.create import create_run
from psyche_chain.admin.session import Session, open_session
from psyche_chain.chain import accounts, ids, instructions, queries
from psyche_chain.chain.accounts import Run
from psyche_chain.chain.errors import ProgramError
from psyche_chain.chain.state import Phase, RunState, set_to_bits
from psyche_chain.config import RunConfig, load_config
from psyche_train.records import GENESIS
from tests.chain.support import SOL, airdrop

ROOT = Path(__file__).resolve().parents[2]
UNITS = instructions.TICKING_UNITS

pytestmark = pytest.mark.usefixtures("unresolved")


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
            authorization=ids.authorization_address(self.run.join_authority, self.signer),
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


async def flow(url: str, config: RunConfig) -> dict[str, Any]:
    found: dict[str, Any] = {}
    keys = [Keypair() for _ in range(3)]
    async with (
        open_session([url], keys[0]) as boss,
        open_session([url], keys[1]) as one,
        open_session([url], keys[2]) as two,
    ):
        for session in (boss, one, two):
            await airdrop(session.rpc, session.wallet, 10 * SOL)
        run = await create_run(boss, config, paused=False, report=lambda line: None)
        members = [Member(one, run, 0), Member(two, run, 1)]
        with pytest.raises(ProgramError) as refused:
            await members[0].join()
        found["unauthorized"] = refused.value
        for member in members:
            await access.authorize(boss, member.signer)
            await member.join()
        with pytest.raises(ProgramError) as refused:
            await members[0].join()
        found["again"] = refused.value
        found["state"] = await drive(members, until=Phase.FINISHED)
        found["contacts"] = [m.contact for m in await accounts.fetch_memberships(boss.rpc, run.run_state)]
        found["pay"] = await rewards.fetch_pay(boss.rpc, run)
        found["claims"] = [await rewards.claim(one, run), await rewards.claim(boss, run, two.wallet)]
        found["claim_again"] = await rewards.claim(one, run)
        found["after"] = await rewards.fetch_pay(boss.rpc, run)
        assert await manage.leave(one, run) == 0
        await manage.leave(two, run)
        await close_run(boss, str(run.key), recipient=None, pay_claims=True, report=lambda line: None)
        found["accounts"] = await queries.get_accounts(
            boss.rpc, [run.key, run.run_state, ids.spec_address(run.key), ids.pool_address(run.run_state)]
        )
    return found


@pytest.mark.slow
def test_run_from_creation_to_closing(url: str, tmp_path: Path) -> None:
    text = (ROOT / "config/smoke.toml").read_text()
    for old, new in (("total_steps = 8", "total_steps = 3"), ("epoch_time = 10", "epoch_time = 60")):
        text = text.replace(old, new)
    path = tmp_path / "run.toml"
    path.write_text(text + '[join]\nauthority = "creator"\ncapacity = 4\n')
    found = trio.run(flow, url, load_config(path))

    assert found["unauthorized"].program == "coordinator"
    assert found["again"].name == "AlreadyJoined"
    assert "leave first" in found["again"].message
    state: RunState = found["state"]
    assert (state.step, state.config.total_steps, state.lost_samples) == (3, 3, 0)
    assert state.history != GENESIS
    assert state.checkpoint.agreed
    assert (state.checkpoint.step, state.checkpoint.uri) == (3, "file:///x")
    outer = hashlib.sha256(digest("g", 3, 1) + digest("g", 3, 0)).digest()
    assert state.checkpoint.weights_hash == outer
    assert found["contacts"] == ["/ip4/127.0.0.1/tcp/1"] * 2

    # three rounds of 1500 units each, tier 0 paid twice as much as tier 1
    earned = {m.tier: m.earned for m in found["pay"].members}
    assert earned == {0: 3000, 1: 1500}
    assert [(c.amount, c.still_owed) for c in found["claims"]] == [(3000, 0), (1500, 0)]
    assert found["claim_again"].amount == 0
    after = found["after"]
    assert after.funded == after.vault + after.pool.paid == 20_000
    assert after.pool.paid == 4500
    assert found["accounts"] == [None] * 4
