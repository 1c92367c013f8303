"""`[model.LLM.matformer]`: nested slices."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from psyche_train.spec.tables import Table


class MatFormer(Table):
    """Nested model slices: tier t keeps the first 1/2**t of every feed-forward layer."""

    max_tier: int = Field(default=0, ge=0, le=2)
    """Smallest slice that may join; every tier's chunk grid is a prefix of the full one's."""
    ffn_rescale: float = Field(default=1.0, ge=0, le=2)
    """Tier t multiplies its feed-forward output by ``2 ** (t * ffn_rescale)``."""
    helper_fraction: float = Field(default=0.0, ge=0, le=1)
    """Share of the neurons outside their slice that members of tiers above 0 train too; 0 is off."""
    helper_rotation_rounds: int = Field(default=0, ge=0, le=1_000_000)
    """Rounds after which the sample of those neurons changes; 0: at every epoch."""

    @model_validator(mode="after")
    def _helpers_have_a_tier(self) -> Self:
        if self.helper_fraction > 0 and self.max_tier == 0:
            raise ValueError(
                f"matformer.helper_fraction = {self.helper_fraction} needs members that hold less than the "
                "whole: set matformer.max_tier to 1 or 2, or helper_fraction to 0"
            )
        if self.helper_rotation_rounds > 0 and self.helper_fraction == 0:
            raise ValueError(
                f"matformer.helper_rotation_rounds = {self.helper_rotation_rounds} without helper mode: "
                "set matformer.helper_fraction above 0"
            )
        return self
