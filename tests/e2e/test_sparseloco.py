"""SparseLoCo with an outer momentum on a real chain: the momentum is agreed on, and a late joiner gets it."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from safetensors.torch import load_file

from psyche_chain.admin.manage import set_paused
from psyche_chain.chain.state import Phase
from psyche_train.checkpoints.store import FOLDED
from tests.e2e.cluster import TINY, MemberProcess, cluster

pytestmark = pytest.mark.slow

CONFIG = (
    TINY.replace(
        """[model.LLM.optimizer.Distro]
compression_chunk = 16
compression_topk = 4
""",
        """[model.LLM.optimizer.SparseLoCo]
compression_chunk = 16
compression_topk = 16
local_steps = 2
outer_momentum = 0.5
nesterov = true
""",
    )
    .replace("init_min_clients = 3", "init_min_clients = 2")
    .replace("epoch_time = 150", "epoch_time = 8")
)


async def test_members_and_one_that_joins_late_have_the_agreed_weights_and_momentum(tmp_path: Path) -> None:
    async with cluster(tmp_path, steps=100_000, config=CONFIG) as run:
        full, half, late = run.members
        full.start()
        half.start()
        await run.until("a checkpoint is agreed", lambda s: s.checkpoint.agreed and s.checkpoint.step >= 2)
        late.start()
        await run.until("the late one trains", lambda _: len(late.events("commit")) >= 3, limit_s=240)
        assert late.events("restore")[0]["step"] >= 2  # not from the first weights

        await set_paused(run.session, run.run, True)
        state = await run.until("the run pauses", lambda s: s.phase is Phase.PAUSED)
        await run.until("all save", lambda s: all(saved(m, s.step) for m in run.members))
        assert state.checkpoint.step == state.step
        hashes = run.final_hashes()
        assert hashes[0] == state.checkpoint.weights_hash.hex()
        assert hashes[1] == hashes[2]
        for member in run.members:
            checkpoint = Path(member.events("checkpoint")[-1]["path"])
            momenta = load_file(checkpoint / FOLDED)
            assert all(name.startswith("momentum/") for name in momenta)
            assert all(bool(value.any()) for value in momenta.values())
            member.send(signal.SIGTERM)
        await run.until_all_ended()


def saved(member: MemberProcess, step: int) -> bool:
    return any(e["step"] == step for e in member.events("checkpoint"))
