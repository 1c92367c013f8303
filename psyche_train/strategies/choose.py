"""The strategy that a run's specification names."""

from __future__ import annotations

from typing import Any

import torch

from psyche_train.models.schema import Schema
from psyche_train.spec import AdamWOptimizer, DistroOptimizer, SparseLoCoOptimizer, TrainSpec
from psyche_train.strategies.adamw import AdamW
from psyche_train.strategies.base import Strategy
from psyche_train.strategies.distro_strategy import Distro
from psyche_train.strategies.sparseloco import SparseLoCo


def strategy_of(spec: TrainSpec, schema: Schema, tier: int, device: torch.device) -> Strategy[Any]:
    """Return one member's strategy, with its own state empty."""
    match spec.optimizer.chosen:
        case DistroOptimizer() as config:
            return Distro(config, spec, schema, tier, device)
        case SparseLoCoOptimizer() as config:
            return SparseLoCo(config, spec, schema, tier, device)
        case AdamWOptimizer() as config:
            return AdamW(config, spec, schema, tier, device)
