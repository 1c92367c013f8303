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
from psyche_chain.admin.session import open_session
from psyche_chain.chain import accounts, ids, queries
from psyche_chain.chain.errors import ProgramError
from psyche_chain.chain.state import Phase, RunState
from psyche_chain.config import RunConfig, load_config
from psyche_train.records import GENESIS
from tests.chain.members import Member, digest, drive
from tests.chain.support import SOL, airdrop

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.usefixtures("unresolved")


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
