"""Data-parallel AdamW on a real chain: whole gradients, no token lost, and moments that all agree on."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file

from psyche_train.checkpoints.store import FOLDED
from tests.e2e.cluster import TINY, cluster, finished

pytestmark = pytest.mark.slow

STEPS = 4
TOKENS = 6 * 32
"""Of a round: its samples, each of `max_seq_len`."""
CONFIG = TINY.replace("max_round_train_time = 5", "max_round_train_time = 20").replace(
    """[model.LLM.optimizer.Distro]
compression_chunk = 16
compression_topk = 4
""",
    """[model.LLM.optimizer.AdamW]
weight_decay = 0.1
clip_grad_norm = 1.0
""",
)


async def test_a_whole_run_ends_with_equal_weights_and_moments_and_no_token_lost(tmp_path: Path) -> None:
    async with cluster(tmp_path, steps=STEPS, config=CONFIG) as run:
        for member in run.members:
            member.start()
        state = await run.until("the run finishes", finished, limit_s=60)
        await run.until_all_ended(limit_s=30)

        assert state.step == STEPS
        hashes = run.final_hashes()
        assert state.checkpoint.agreed
        assert hashes[0] == state.checkpoint.weights_hash.hex()
        assert hashes[1] == hashes[2]

        trained = [event for member in run.members for event in member.events("train")]
        for member in run.members:
            folded = {e["step"]: e["accepted"] for e in member.events("fold") if e["accepted"]}
            assert sorted(folded) == list(range(STEPS))
            for step, slots in folded.items():
                counted = sum(e["tokens"] for e in trained if e["step"] == step and e["slot"] in slots)
                assert counted == TOKENS, (step, slots)
            assert len(member.events("train")) == len(member.events("commit")) == STEPS
            assert all(e["bytes"] >= 4 * e["parameters"] > 0 for e in member.events("train"))
            assert member.events("exit")[-1]["code"] == 0

        moments = [load_file(Path(m.events("checkpoint")[-1]["path"]) / FOLDED) for m in run.members]
        for found in moments:
            assert {name.split("/")[0] for name in found} == {"exp_avg", "exp_avg_sq"}
            assert all(bool(value.any()) for value in found.values())
        assert all(bool((moments[1][name] == moments[2][name]).all()) for name in moments[1])
