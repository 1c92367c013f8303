"""What is trained: one row for each line of the tables in docs/learning.md."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from psyche_train.spec import TrainSpec

Tables = dict[str, Any]

SEEDS = (1, 2, 3)


@dataclass(frozen=True, slots=True)
class Scale:
    """Size of the model and of the budget; the same for all rows of one table."""

    hidden_size: int = 128
    intermediate_size: int = 512
    num_layers: int = 4
    num_heads: int = 4
    max_seq_len: int = 128
    rounds: int = 240
    samples: int = 12
    """Samples of a round, all members together."""
    warmup: int = 10
    text_bytes: int = 8_000_000
    evaluations: int = 6


QUICK = Scale(
    hidden_size=32, intermediate_size=512, num_layers=2, num_heads=2, max_seq_len=32, rounds=6, warmup=2,
    text_bytes=200_000, evaluations=2,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """One configuration; its seeds are its repetitions.

    Args:
        name: short and unique; other rows and the report refer to it.
        label: in the tables.
        tiers: the members.
        optimizer: the table `[model.LLM.optimizer]`.
        lr: highest learning rate; it rises over the warm-up and falls to zero along a cosine.
        pipelined: train round h + 1 before round h is folded, as the clients do.
        narrower: the model itself is narrowed to this tier's width: an independently trained twin.
        share: part of the round's samples that is trained; a lone member trains its own third.
    """

    name: str
    label: str
    tiers: tuple[int, ...]
    optimizer: Tables
    lr: float
    pipelined: bool = True
    matformer: Tables = field(default_factory=dict)
    narrower: int = 0
    share: float = 1.0

    @property
    def samples(self) -> str:
        """Share of the round's tokens, in words."""
        return "all" if self.share == 1.0 else f"{self.share:.0%}"


def spec_of(row: Row, scale: Scale, seed: int) -> TrainSpec:
    """The training specification of one run; the seed is that of the first weights."""
    tables: Tables = {
        "max_seq_len": scale.max_seq_len,
        "checkpoint": {
            "Init": {
                "seed": seed,
                "hidden_size": scale.hidden_size,
                "intermediate_size": scale.intermediate_size >> row.narrower,
                "num_hidden_layers": scale.num_layers,
                "num_attention_heads": scale.num_heads,
                "num_key_value_heads": scale.num_heads // 2,
                "vocab_size": 256,
                "tie_word_embeddings": False,
            }
        },
        "data_location": {"Stdlib": {"max_bytes": scale.text_bytes, "validation_fraction": 0.05}},
        "lr_schedule": {
            "Cosine": {
                "base_lr": row.lr,
                "warmup_steps": scale.warmup,
                "total_steps": scale.rounds,
                "final_lr": 0.0,
            }
        },
        "optimizer": row.optimizer,
        "matformer": {"max_tier": max(row.tiers), **row.matformer},
    }
    return TrainSpec.model_validate(tables)


def identity(row: Row, scale: Scale, seed: int) -> str:
    """The run's name among the results: a hash of everything that decides its outcome."""
    content = {"row": asdict(replace(row, label="")), "scale": asdict(scale), "seed": seed, "version": 1}
    return (
        f"{row.name}-{seed}-{hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]}"
    )
