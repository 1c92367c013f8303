"""What the strategies' tests share: tiny runs of every strategy, and ways to fold their logs again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from psyche_train.local_run import RUN, LocalRun
from psyche_train.records import RoundRecord
from psyche_train.spec import TrainSpec
from psyche_train.trainer import Trainer
from tests.train.conftest import tables

TIERS = (0, 1, 2)
STEPS = 4
Log = list[tuple[RoundRecord, dict[int, bytes]]]

CHUNKS = {"compression_chunk": 8, "compression_topk": 4}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "distro": {"Distro": {**CHUNKS, "weight_decay": 0.1}},
    "distro-entropy": {"Distro": {**CHUNKS, "entropy": True, "votes": "senders"}},
    "distro-tokens": {"Distro": {**CHUNKS, "votes": "tokens"}},
    "sparseloco": {"SparseLoCo": {**CHUNKS, "local_steps": 2, "clip_grad_norm": 1.0}},
    "sparseloco-senders": {"SparseLoCo": {**CHUNKS, "local_steps": 2, "votes": "senders"}},
    "sparseloco-momentum": {
        "SparseLoCo": {
            **CHUNKS,
            "local_steps": 2,
            "outer_momentum": 0.7,
            "nesterov": True,
            "votes": "tokens",
            "weight_decay": 0.1,
        }
    },
    "adamw": {"AdamW": {"weight_decay": 0.1, "clip_grad_norm": 1.0}},
    "adamw-holders": {"AdamW": {"votes": "holders"}},
}
STRATEGIES = ("distro-tokens", "sparseloco", "sparseloco-momentum", "adamw")
WITH_FOLDED = ("sparseloco-momentum", "adamw")
DEVICES = [
    "cpu",
    *(f"cuda:{i}" for i in range(torch.cuda.device_count())),
    *(["mps"] if torch.backends.mps.is_available() else []),
]


def make_spec(kind: str, **changes: Any) -> TrainSpec:
    """A model of some thousand parameters that is trained by one of `OPTIMIZERS`."""
    init = {
        "seed": 3,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "vocab_size": 160,
        "tie_word_embeddings": False,
    }
    return TrainSpec.model_validate(
        tables(checkpoint={"Init": init}, optimizer=OPTIMIZERS[kind], max_seq_len=8, **changes)
    )


def trained(kind: str, folder: Path, *, steps: int = STEPS) -> LocalRun:
    """Three members of three widths that trained some steps, all folded."""
    run = LocalRun(make_spec(kind), TIERS, folder, samples=13)
    list(run.train(steps))
    run.drain()
    return run


def member(kind: str, folder: Path, *, tier: int = 0, device: str = "cpu") -> Trainer:
    """A member that stands at the beginning, or at its newest checkpoint."""
    found = Trainer(make_spec(kind), tier=tier, run=RUN, state_dir=folder, device=device)
    found.load()
    return found


def replay(trainer: Trainer, log: Log) -> bytes:
    """Fold rounds and return the hash of what is shared."""
    for record, blobs in log:
        trainer.fold(record, blobs, None)
    return trainer.weights_hash()
