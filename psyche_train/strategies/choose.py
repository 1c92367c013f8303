"""The strategy that a run's specification names."""

from __future__ import annotations

from typing import Any

import torch

from psyche_train.models.schema import Schema
from psyche_train.spec import TrainSpec
from psyche_train.strategies.base import Strategy
from psyche_train.strategies.distro_strategy import Distro


def strategy_of(spec: TrainSpec, schema: Schema, tier: int, device: torch.device) -> Strategy[Any]:
    """Return one member's strategy, with its own state empty."""
    return Distro(spec.optimizer.chosen, spec, schema, tier, device)
